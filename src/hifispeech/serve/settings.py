"""What the service allows and where it keeps its files: one value for each flag of `hifispeech serve`."""

import os
from dataclasses import dataclass
from pathlib import Path

from hifispeech.weights.packaged import DEFAULT

API_KEY_VARIABLE = "HIFISPEECH_API_KEY"
SHORTEST_KEY = 16


@dataclass(frozen=True)
class Settings:
    """Limits of one server.

    Work that a client waits for (`/v1/upscale`, `/v1/inspect`) runs on `workers` processes, jobs on
    `job_workers` others, so that long jobs never hold up a request.
    """

    data: Path
    model: str = DEFAULT
    device: str = "auto"
    threads: int = 1  # of each worker process
    workers: int = 2
    job_workers: int = 1
    queue: int = 32  # requests that may wait for a worker
    job_queue: int = 1000  # jobs that may wait
    streams: int = 4  # open streams of /v1/stream
    max_upload_mb: float = 500.0  # 10^6 bytes
    max_minutes: float = 10.0  # of audio, /v1/upscale
    max_job_minutes: float = 240.0  # of audio, jobs and /v1/inspect
    max_channels: int = 8
    timeout_s: float = 300.0  # of a request, from its first byte to its last
    stall_s: float = 60.0  # without a sign of life from a client or a worker
    worker_memory_mb: float = 1000.0  # of a worker, beside its model
    keep_hours: float = 24.0  # finished jobs and their results
    grace_s: float = 20.0  # to finish after SIGTERM
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()  # empty: any

    @property
    def max_upload_bytes(self) -> int:
        """Largest request body."""
        return round(self.max_upload_mb * 1e6)


def read_keys(file: Path | None) -> tuple[str, ...]:
    """The API keys: the lines of `file` (blank ones and those with # left out), else the variable.

    Raises:
        ValueError: the file holds no key, or a key is short enough to be guessed.
        OSError: the file cannot be read.
    """
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        keys = tuple(line for line in lines if line and not line.startswith("#"))
        if not keys:
            raise ValueError(f"{file}: holds no key; write one key a line, {SHORTEST_KEY} characters or more")
    else:
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        keys = (key,) if key else ()
    where = file or API_KEY_VARIABLE
    for key in keys:
        if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"{where}: a key of {len(key)} characters does not do; {SHORTEST_KEY} or more ASCII "
                "characters without blanks are needed; make one with: openssl rand -hex 32"
            )
    return keys
