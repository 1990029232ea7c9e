"""Where a corpus run reads and writes: local folders, fsspec URLs (s3, gs, hdfs, ...) and lists of files.

fsspec belongs to the extra `dist` and is imported inside the functions.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from hifispeech.errors import AudioError
from hifispeech.files import rename
from hifispeech.paths import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LIST_SUFFIXES = (".parquet", ".csv", ".jsonl")
PATH_COLUMNS = ("path", "input")  # of a list; `input` is what our own manifests call it
# What changes when a file does, by the names that file systems give it; the first that is there counts.
VERSION_KEYS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "updated", "created")
# An upload to these appears whole or not at all; elsewhere it is renamed when it is whole.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"})
STAT_THREADS = 16
WORK = ".work"  # below the output: files on their way


@dataclass(frozen=True)
class Source:
    """An input file: its path or URL, size, version (changes when the content does), length if it is known.

    `missing` files are kept: they become a failure in the manifest, not the end of the run.
    """

    path: str
    size: int
    version: str
    duration_s: float | None = None

    @property
    def length(self) -> tuple[str, float]:
        """Files whose first values are equal compare in the second: seconds, or bytes of one format."""
        if self.duration_s is not None:
            return "", self.duration_s
        return PurePosixPath(self.path).suffix.lower(), float(self.size)


def open_url(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a path or URL, and the path in it.

    Raises:
        AudioError: the protocol is unknown.
        ImportError: the package for the protocol (s3fs, gcsfs, ...), or fsspec itself, is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url)
    except ValueError as error:
        raise AudioError(f"{url}: {error}; pass a folder or a URL such as s3://bucket/folder") from error
    return fs, path


def protocol_of(fs: "AbstractFileSystem") -> str:
    """Its first name, such as `file` or `s3`."""
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


def list_sources(url: str, output: str) -> list[Source]:
    """The audio files of a folder (searched recursively), or those named by a Parquet, CSV or JSONL list.

    Args:
        url: path or fsspec URL of a folder, a list or one audio file.
        output: left out of the search: the results may lie below the folder.

    Raises:
        AudioError: nothing is there, or there is no audio in it, or the list cannot be used.
    """
    fs, path = open_url(url)
    if not fs.exists(path):
        raise AudioError(f"{url}: no such file or folder; check the path")
    if fs.isdir(path):
        found = _in_folder(fs, path, output)
    elif path.lower().endswith(LIST_SUFFIXES):
        found = _in_list(fs, path)
    else:
        found = [_source(fs, path, fs.info(path))]
    if not found:
        known = " ".join(sorted(AUDIO_SUFFIXES))
        raise AudioError(f"{url}: no audio file in it; one of {known} is needed; check the path")
    return found


def _in_folder(fs: "AbstractFileSystem", folder: str, output: str) -> list[Source]:
    output_fs, results = open_url(output)
    inside = f"{results.rstrip('/')}/" if protocol_of(output_fs) == protocol_of(fs) else "\0"
    inside = inside if inside != f"{folder.rstrip('/')}/" else f"{inside}audio/"
    files = fs.find(folder, detail=True)
    below = len(folder.rstrip("/")) + 1
    return [
        _source(fs, path, files[path])
        for path in sorted(files)
        if PurePosixPath(path).suffix.lower() in AUDIO_SUFFIXES
        and not path.startswith(inside)
        and not any(part.startswith(".") for part in path[below:].split("/"))
    ]


def _source(
    fs: "AbstractFileSystem", path: str, info: dict[str, Any], duration_s: float | None = None
) -> Source:
    name = path if protocol_of(fs) == "file" else fs.unstrip_protocol(path)
    version = next((str(info[key]) for key in VERSION_KEYS if info.get(key) is not None), "")
    return Source(name, int(info.get("size") or 0), version, duration_s)


def _in_list(fs: "AbstractFileSystem", path: str) -> list[Source]:
    """The files of a list; paths in it may be relative to its folder."""
    folder = fs.unstrip_protocol(path).rsplit("/", 1)[0]
    rows: dict[str, float | None] = {}
    for row in _rows(fs, path):
        name = next((row[column] for column in PATH_COLUMNS if row.get(column)), None)
        if name is None:
            raise AudioError(
                f"{path}: a row has no path; a column 'path' is needed, 'duration_s' may be there"
            )
        name = str(name) if "://" in str(name) or str(name).startswith("/") else f"{folder}/{name}"
        seconds = row.get("duration_s")
        rows[name] = float(seconds) if seconds not in (None, "") else None
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return list(pool.map(_stat, rows, rows.values()))


def _stat(name: str, duration_s: float | None) -> Source:
    fs, path = open_url(name)
    try:
        return _source(fs, path, fs.info(path), duration_s)
    except OSError:  # the worker finds it missing, too, and reports it as one failed file
        return Source(path if protocol_of(fs) == "file" else name, 0, "", duration_s)


def _rows(fs: "AbstractFileSystem", path: str) -> Iterable[dict[str, Any]]:
    content = cast(bytes, fs.cat_file(path))
    try:
        if path.lower().endswith(".parquet"):
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(io.BytesIO(content))
            wanted = [name for name in (*PATH_COLUMNS, "duration_s") if name in table.column_names]
            return table.select(wanted).to_pylist()
        text = content.decode("utf-8-sig")
        if path.lower().endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text)))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, OSError) as error:
        raise AudioError(f"{path}: not a readable list ({error}); pass Parquet, CSV or JSON Lines") from error


class Store:
    """The output folder, local or remote: files appear in it whole or not at all.

    Args:
        url: path or fsspec URL.
        owner: name of the folder for files on their way; a later `Store` of the same owner clears it.
    """

    def __init__(self, url: str, owner: str) -> None:
        import tempfile

        self.fs, self.root = open_url(url)
        self.root = self.root.rstrip("/")
        self.protocol = protocol_of(self.fs)
        parent = Path(self.root, WORK)
        if self.protocol != "file":  # runs into several outputs may go on at a time on one machine
            digest = hashlib.sha256(url.encode()).hexdigest()[:16]
            parent = Path(tempfile.gettempdir(), f"hifispeech-{digest}")
        self.work_dir = parent / owner
        shutil.rmtree(self.work_dir, ignore_errors=True)
        self.work_dir.mkdir(parents=True)

    def put(self, local: Path, name: str) -> None:
        """Move a local file of `work_dir` to `name` below the root."""
        target = f"{self.root}/{name}"
        if self.protocol == "file":
            os.makedirs(os.path.dirname(target), exist_ok=True)
            rename(local, Path(target))
            return
        if self.protocol in OBJECT_STORES:
            self.fs.put_file(str(local), target)
        else:
            part = f"{self.root}/{WORK}/{uuid.uuid4().hex}"
            self.fs.makedirs(part.rsplit("/", 1)[0], exist_ok=True)
            self.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            self.fs.put_file(str(local), part)
            if self.fs.exists(target):
                self.fs.rm_file(target)
            self.fs.mv(part, target)
        local.unlink()

    def put_text(self, text: str, name: str) -> None:
        """Write a small file."""
        local = self.work_dir / uuid.uuid4().hex
        local.write_text(text, encoding="utf-8")
        self.put(local, name)

    def text(self, name: str) -> str | None:
        """The content of a small file; None if there is none."""
        try:
            return cast(bytes, self.fs.cat_file(f"{self.root}/{name}")).decode("utf-8")
        except FileNotFoundError:
            return None

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a file, read as they are asked for; none if there is no file."""
        if not self.has(name):
            return
        with self.fs.open(f"{self.root}/{name}", "rb") as file:
            for line in io.TextIOWrapper(cast(Any, file), encoding="utf-8"):
                yield line.rstrip("\n")

    def has(self, name: str) -> bool:
        return bool(self.fs.exists(f"{self.root}/{name}"))

    def names(self, folder: str) -> set[str]:
        """All files below a folder, as paths below the root."""
        self.fs.invalidate_cache()
        return {path[len(self.root) + 1 :] for path in self.fs.find(f"{self.root}/{folder}")}

    def remove(self, name: str) -> None:
        """Remove a file, and its folder if that is empty then."""
        path = f"{self.root}/{name}"
        self.fs.rm_file(path)
        if self.protocol == "file":
            _remove_empty(Path(path).parent)

    def clear_work(self) -> None:
        """Remove what killed runs left on its way; for the driver, before and after all work."""
        if self.protocol == "file":
            for folder in Path(self.root, WORK).glob("*"):
                if folder != self.work_dir:
                    shutil.rmtree(folder, ignore_errors=True)
        elif self.fs.exists(f"{self.root}/{WORK}"):
            self.fs.rm(f"{self.root}/{WORK}", recursive=True)

    def close(self) -> None:
        """Remove the folder for files on their way."""
        shutil.rmtree(self.work_dir, ignore_errors=True)
        _remove_empty(self.work_dir.parent)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty, or gone
        folder.rmdir()
