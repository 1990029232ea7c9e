"""One way to write a file: whole or not at all, whatever happens meanwhile."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hifispeech.files import atomic_file, atomic_path, file_sha256, rename, try_lock, write_atomic


@pytest.mark.parametrize("durable", [False, True])
def test_new_content_replaces_the_old_at_the_end_of_the_block(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "name.txt"
    target.write_text("old")
    with atomic_file(target, durable=durable) as file:
        file.write(b"new")
        assert target.read_text() == "old"
        (temporary,) = set(tmp_path.iterdir()) - {target}
        assert temporary.name.startswith(".")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_content_alone(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "name.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_file(target) as file:
        file.write(b"half")
        raise error
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    for ends_well in (False, True):
        try:
            with atomic_path(tmp_path / "out") as folder:
                folder.mkdir()
                (folder / "a").write_text("content")
                if not ends_well:
                    raise ValueError
        except ValueError:
            assert list(tmp_path.iterdir()) == []
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/a"]


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.csv", "é\r\n", durable=True)
    assert (tmp_path / "new" / "a.csv").read_bytes() == b"\xc3\xa9\r\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_get_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "atomic", b"")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_rename_reaches_the_disk_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content before name, name before return: a power failure never leaves an empty file of that name."""
    seen: list[str] = []
    real_replace, real_fsync = os.replace, os.fsync

    def note_replace(source: Path, target: Path) -> None:
        seen.append("rename")
        real_replace(source, target)

    def note_fsync(descriptor: int) -> None:
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "fsync", note_fsync)
    write_atomic(tmp_path / "a", b"content", durable=True)
    rename(tmp_path / "a", tmp_path / "b", durable=True)
    assert seen == ["file", "rename", "folder", "rename", "folder"]


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "x") == expected


def test_lock_is_held_until_the_file_is_closed(tmp_path: Path) -> None:
    code = "import sys; from hifispeech.files import try_lock; print(try_lock(open(sys.argv[1], 'ab')))"
    words = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with (tmp_path / "lock").open("ab") as file:
        assert try_lock(file)
        assert subprocess.run(words, capture_output=True, text=True).stdout == "False\n"
    assert subprocess.run(words, capture_output=True, text=True).stdout == "True\n"
