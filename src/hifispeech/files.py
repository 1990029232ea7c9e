"""Files that are written whole or not at all, forced to the disk, hashed and locked; nothing else does these.

A result is first written under a hidden name in the folder it belongs to: a rename never crosses to another
disk, and whoever lists audio leaves hidden files out.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK)
_LOCK_OFFSET = 1 << 40  # Windows locks a byte, not a file: one that no file reaches
_READ_BYTES = 1 << 20


def temporary_beside(target: Path) -> Path:
    """A new hidden name in the folder of `target`, to be given to `rename` later."""
    # Not tempfile: its files are readable by their owner alone, and the mode would stay.
    return target.absolute().with_name(f".hifispeech-{secrets.token_hex(8)}.tmp")


def rename(source: Path, target: Path, *, durable: bool = False) -> None:
    """Give a finished file or folder its name, replacing a file that has it.

    With `durable` the name survives a power failure, too; the content has to be on the disk already.
    """
    os.replace(source, target)
    if durable:
        fsync(target.parent)


def fsync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # Windows has no such call for folders
    # Windows flushes only what is open for writing; elsewhere reading will do, also for files of others.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(target: Path, *, durable: bool = False) -> Iterator[Path]:
    """A free name beside `target` for a file or folder to be made by the block.

    It replaces `target` when the block ends and is removed when the block raises. With `durable` the file
    survives a power failure right after that.
    """
    temporary = temporary_beside(target)
    try:
        yield temporary
        if durable:
            fsync(temporary)
        rename(temporary, target.absolute(), durable=durable)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_file(target: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """The open file of `atomic_path`, for writing bytes."""
    with atomic_path(target, durable=durable) as temporary, temporary.open("xb") as file:
        yield file
        file.close()  # before the rename, which Windows refuses for open files


def write_atomic(target: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a small file (text as UTF-8, line ends as they are) in a folder that is made if it is missing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def file_sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def try_lock(file: IO[bytes]) -> bool:
    """Lock an open file against other processes until it is closed; False if another process holds the lock.

    The file stands for its folder. The system takes the lock back when the process dies, however it dies, so
    there are no stale locks.

    Raises:
        OSError: the file cannot be locked at all, as on some network file systems.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_LOCK_OFFSET)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True
