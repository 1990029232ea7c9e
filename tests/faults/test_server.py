"""Kill -9 of the server and of its workers at random points: no lost job, no half file.

`HIFISPEECH_KILLS=50 pytest tests/faults/test_server.py` does it as often as one likes.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hifispeech

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
import httpx

SEED = 5
KILLS = int(os.environ.get("HIFISPEECH_KILLS", "12"))
KINDS = ("wav", "flac")
JOBS_A_ROUND = 3
ACTIVE = ("queued", "running")


class Submitter(threading.Thread):
    """Hands in jobs one after the other until enough are accepted or the server is gone."""

    def __init__(self, url: str, clip: Path, rng: random.Random, count: int) -> None:
        super().__init__(daemon=True)
        self.url, self.data, self.rng, self.count = url, clip.read_bytes(), rng, count
        self.accepted: dict[str, str] = {}

    def run(self) -> None:
        with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=self.url, timeout=60) as client:
            for _ in range(self.count):
                kind = self.rng.choice(KINDS)
                answer = client.post(f"/v1/jobs?format={kind}", files={"file": ("a.wav", self.data)})
                assert answer.status_code == 202, answer.text
                self.accepted[answer.json()["id"]] = kind


def is_alive(pid: int) -> bool:
    """Whether there is such a process that is not just waiting to be buried."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def check_results(server: Any, accepted: dict[str, str], expected: dict[str, bytes]) -> None:
    """Whatever has the name of a result is one, whole, for a job that was accepted or just being so."""
    for path in server.data.glob("results/*"):
        assert path.read_bytes() == expected[path.suffix[1:]], path
        assert accepted.get(path.stem, path.suffix[1:]) == path.suffix[1:]


@pytest.mark.slow
def test_no_job_is_lost_and_no_file_is_half(
    start_server: Callable[..., Any], phone_clip: Path, tmp_path: Path
) -> None:
    """Of three kills two hit the server, one a worker; then all jobs that were accepted get done."""
    rng = random.Random(SEED)
    expected: dict[str, bytes] = {}
    for kind in KINDS:
        target = tmp_path / f"expected.{kind}"
        hifispeech.Upscaler(threads=1).process_file(phone_clip, target)
        expected[kind] = target.read_bytes()
    accepted: dict[str, str] = {}
    server = None
    for number in range(KILLS):
        if server is None:
            server = start_server(folder=tmp_path / "server")
        submitter = Submitter(server.url, phone_clip, rng, JOBS_A_ROUND)
        submitter.start()
        time.sleep(rng.uniform(0.0, 1.5))
        workers = server.workers()
        if number % 3 == 2:
            os.kill(rng.choice(workers), signal.SIGKILL)
            submitter.join(timeout=120)
        else:
            server.kill()
            submitter.join(timeout=120)
            deadline = time.monotonic() + 60
            while any(map(is_alive, workers)):  # they leave with the server
                assert time.monotonic() < deadline
                time.sleep(0.05)
        accepted.update(submitter.accepted)
        check_results(server, accepted, expected)
        if server.process.poll() is not None:
            server = None
    server = server or start_server(folder=tmp_path / "server")
    assert len(accepted) > KILLS / 2
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for id, kind in accepted.items():
            while (job := client.get(f"/v1/jobs/{id}").json())["status"] in ACTIVE:
                time.sleep(0.05)
            assert job["status"] == "done", job
            assert client.get(f"/v1/jobs/{id}/result").content == expected[kind]
    check_results(server, accepted, expected)
    assert list(server.data.glob("uploads/*")) == []
    assert server.stop() == 0
    assert server.temporary() == []


@pytest.mark.slow
def test_many_clients_get_right_answers_or_429(repo_dir: Path, tmp_path: Path) -> None:
    """benchmarks/load.py in small: it compares every answer and fails on any error but 429."""
    options = ("--clients", "24", "--seconds", "6", "--queue", "4", "--output", str(tmp_path / "load.md"))
    words = [sys.executable, str(repo_dir / "benchmarks" / "load.py"), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "load.md").read_text()
    assert "wrong answers and other errors: 0" in page
    assert int(re.search(r"asked again: (\d+)", page)[1]) > 0  # type: ignore[index]
