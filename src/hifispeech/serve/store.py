"""The files of the service: one data directory, cleaned of what a crash left behind.

`uploads/ID` are inputs of jobs, `results/ID.FORMAT` finished results (complete whenever they have this name),
`tmp/` whatever belongs to a request or a run in progress, `jobs.sqlite3` the jobs. All names are made here;
none comes from a client.
"""

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from hifispeech.errors import HifispeechError
from hifispeech.files import try_lock


class Store:
    """The data directory, held by one server at a time.

    Raises:
        HifispeechError: another server uses it.
        OSError: it cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uploads, self.results, self.tmp = (self.root / name for name in ("uploads", "results", "tmp"))
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._hold(self.root / "lock")
        shutil.rmtree(self.tmp, ignore_errors=True)
        for folder in (self.uploads, self.results, self.tmp):
            folder.mkdir(exist_ok=True, mode=0o700)

    @property
    def database(self) -> Path:
        """The SQLite file of the jobs."""
        return self.root / "jobs.sqlite3"

    def scratch(self) -> Path:
        """A new folder under `tmp/`, for one request or run; give it to `discard` at the end."""
        folder = self.tmp / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder of `scratch`, or a file, if it is there."""
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.unlink(missing_ok=True)

    def upload_of(self, job: str) -> Path:
        """The input of a job."""
        return self.uploads / job

    def result_of(self, job: str, file_type: str) -> Path:
        """The result of a job."""
        return self.results / f"{job}.{file_type}"

    def keep_only(self, uploads: Iterable[Path], results: Iterable[Path]) -> None:
        """Remove the files of jobs that are not in the database (or not any more)."""
        for folder, wanted in ((self.uploads, set(uploads)), (self.results, set(results))):
            for file in folder.iterdir():
                if file not in wanted:
                    file.unlink(missing_ok=True)

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes fit on the disk, and as much again for what becomes of them."""
        return shutil.disk_usage(self.root).free > 2 * size

    def close(self) -> None:
        """Let another server have the directory."""
        self._lock.close()

    @staticmethod
    def _hold(path: Path) -> IO[bytes]:
        file, is_held = path.open("ab"), False
        try:
            is_held = try_lock(file)
        finally:
            if not is_held:
                file.close()
        if not is_held:
            raise HifispeechError(
                f"{path.parent}: another server keeps its jobs here; stop it, or pass another --data"
            )
        return file
