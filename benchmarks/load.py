"""Many clients against one server: answers, errors, waiting times, memory. Writes docs/benchmarks/load.md.

    python benchmarks/load.py
    python benchmarks/load.py --clients 16 --seconds 10 --output out/load.md

Each client sends files one after the other: most to /v1/upscale (WAV or FLAC back), some to /v1/inspect, some
as jobs. A refusal (429) is waited out as long as Retry-After says. Every answer is compared with what the
library makes of the same file. Exit code 1 if anything but 429 went wrong, an accepted job is missing, or
memory grew by more than a quarter from the second third of the time to the last.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from common.report import ROOT, provenance, table, write_page

import hifispeech

CLIP = ROOT / "examples" / "phone_8k.wav"
LENGTHS_S = (1, 2, 4)
KINDS = ("upscale wav", "upscale flac", "inspect", "job")
SHARES = (0.5, 0.3, 0.1, 0.1)
START_S, PATIENCE_S = 180, 600
MOST_GROWTH = 1.25


@dataclass
class Tally:
    """What the clients met, filled by their threads."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    busy: int = 0
    audio_s: float = 0.0
    errors: list[str] = field(default_factory=list)
    jobs_right: int = 0
    jobs: dict[str, int] = field(default_factory=dict)  # id to the length of the clip
    lock: threading.Lock = field(default_factory=threading.Lock)


class Clips:
    """The files to send and the answers that are right."""

    def __init__(self, folder: Path) -> None:
        audio, rate = soundfile.read(CLIP, dtype="int16")
        upscaler = hifispeech.Upscaler(threads=1)
        self.files: dict[int, bytes] = {}
        self.results: dict[tuple[int, str], bytes] = {}
        self.cutoffs: dict[int, float] = {}
        for length_s in LENGTHS_S:
            path = folder / f"{length_s}.wav"
            soundfile.write(path, audio[: length_s * rate], rate)
            self.files[length_s] = path.read_bytes()
            self.cutoffs[length_s] = hifispeech.inspect(path).cutoff_hz
            for kind in ("wav", "flac"):
                target = folder / f"{length_s}_out.{kind}"
                upscaler.process_file(path, target)
                self.results[length_s, kind] = target.read_bytes()


class Server:
    """`hifispeech serve` on two cores, and what memory it takes."""

    def __init__(self, folder: Path, workers: int, queue: int) -> None:
        words = ["serve", "--port", "0", "--data", str(folder / "data"), "--workers", str(workers)]
        all_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, set(sorted(all_cores)[:2]))
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hifispeech", *words, "--queue", str(queue)], stderr=self._log
        )
        os.sched_setaffinity(0, all_cores)
        self.url = self._url(folder / "server.log")
        self.memory_mb: list[float] = []

    def sample(self) -> None:
        """Note the memory of the server and its workers, proportional to sharing."""
        children: list[str] = []
        for thread in Path(f"/proc/{self.process.pid}/task").glob("*/children"):  # any may have started some
            with contextlib.suppress(OSError):
                children += thread.read_text().split()
        total = 0
        for pid in [str(self.process.pid), *children]:
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        self.memory_mb.append(total * 1024 / 1e6)

    @property
    def growth(self) -> float:
        """The most memory in the last third of the time against the most in the second: both are warm."""
        third = max(1, len(self.memory_mb) // 3)
        return max(self.memory_mb[-third:]) / max(self.memory_mb[third : 2 * third] or self.memory_mb)

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=120)

    def _url(self, log: Path) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in log.read_text().splitlines():
                if '"listening"' in line:
                    return f"http://127.0.0.1:{json.loads(line)['port']}"
            time.sleep(0.1)
        raise SystemExit(f"the server did not start: {log.read_text()}")


def client(number: int, url: str, clips: Clips, tally: Tally, seed: int, deadline: float) -> None:
    """One client's thread."""
    rng = random.Random(f"{seed}/{number}")
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        while time.monotonic() < deadline:
            kind = rng.choices(KINDS, SHARES)[0]
            length_s = rng.choice(LENGTHS_S)
            try:
                pause_s = exchange(http, kind, length_s, clips, tally)
            except Exception as error:  # whatever it is, it is not the answer
                with tally.lock:
                    tally.errors.append(f"{kind}: {type(error).__name__}: {error}")
                pause_s = 1.0
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))


def exchange(http: httpx.Client, kind: str, length_s: int, clips: Clips, tally: Tally) -> float:
    """Send one file and check the answer; returns how long to wait before the next."""
    path, _, file_type = kind.partition(" ")
    route = "/v1/jobs" if path == "job" else f"/v1/{path}"
    query = {"format": file_type} if file_type else {}
    started = time.monotonic()
    answer = http.post(route, params=query, files={"file": ("a.wav", clips.files[length_s])})
    seconds = time.monotonic() - started
    with tally.lock:
        if answer.status_code == 429:
            tally.busy += 1
            return float(answer.headers["Retry-After"])
        if not is_right(answer, path, file_type, length_s, clips):
            tally.errors.append(f"{kind} of {length_s} s: {answer.status_code} {answer.text[:200]}")
        elif path == "job":
            tally.jobs[answer.json()["id"]] = length_s
        tally.seconds[kind].append(seconds)
        tally.audio_s += length_s if path == "upscale" else 0
    return 0.0


def is_right(answer: httpx.Response, path: str, file_type: str, length_s: int, clips: Clips) -> bool:
    """Whether the answer is the library's."""
    if path == "job":
        return answer.status_code == 202
    if path == "inspect":
        return answer.status_code == 200 and answer.json()["cutoff_hz"] == clips.cutoffs[length_s]
    return answer.status_code == 200 and answer.content == clips.results[length_s, file_type]


def collect_jobs(url: str, clips: Clips, tally: Tally) -> None:
    """Wait for every accepted job and check its result."""
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=url, timeout=60) as http:
        for id, length_s in tally.jobs.items():
            try:
                while (job := http.get(f"/v1/jobs/{id}").json()).get("status") in ("queued", "running"):
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.05)
                result = http.get(f"/v1/jobs/{id}/result").content
            except (httpx.HTTPError, ValueError) as error:
                job, result = {"error": repr(error)}, b""
            if job.get("status") == "done" and result == clips.results[length_s, "wav"]:
                tally.jobs_right += 1
            else:
                tally.errors.append(f"job {id}: {job}")


def page(options: argparse.Namespace, tally: Tally, memory_mb: list[float], seconds: float) -> list[str]:
    """The report."""
    rows = []
    for kind in KINDS:
        times = sorted(tally.seconds[kind])
        if times:
            shown = [f"{np.percentile(times, share):.2f}" for share in (50, 95, 99)]
            rows.append([kind, str(len(times)), *shown, f"{times[-1]:.2f}"])
    third = max(1, len(memory_mb) // 3)
    answered = sum(map(len, tally.seconds.values()))
    return [
        "# The server under load",
        "",
        *provenance(options.seed, f"server on 2 cores with {options.workers} workers, clients beside it"),
        "",
        f"{options.clients} clients for {options.seconds:g} s, each with one request at a time, the next as "
        f"soon as it is answered; clips of "
        f"{', '.join(map(str, LENGTHS_S))} s at 8 kHz; queue {options.queue}.",
        "",
        f"- answered: {answered}, all of them compared with what the library makes of the same file",
        f"- refused with 429 and asked again: {tally.busy}",
        f"- wrong answers and other errors: {len(tally.errors)}",
        f"- jobs accepted: {len(tally.jobs)}, done with the right result: {tally.jobs_right}",
        f"- upscaled for waiting clients: {tally.audio_s:.0f} s of audio in {seconds:.0f} s, "
        f"{tally.audio_s / seconds:.1f} times real time",
        f"- memory of the server and its workers (PSS): at most {max(memory_mb[:third]):.0f} MB in the first "
        f"third of the time, {max(memory_mb[third : 2 * third] or memory_mb):.0f} MB in the second, "
        f"{max(memory_mb[-third:]):.0f} MB in the last",
        "",
        "Seconds from a request to its whole answer, the wait in the queue included:",
        "",
        *table(["request", "answered", "median", "95 %", "99 %", "longest"], rows),
    ]


def run(options: argparse.Namespace) -> int:
    """The whole measurement; the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips, tally = Clips(folder), Tally()
        server = Server(folder, options.workers, options.queue)
        try:
            started = time.monotonic()
            arguments: Any = (server.url, clips, tally, options.seed, started + options.seconds)
            threads = [
                threading.Thread(target=client, args=(number, *arguments))
                for number in range(options.clients)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                server.sample()
                time.sleep(0.5)
            seconds = time.monotonic() - started
            collect_jobs(server.url, clips, tally)
            server.sample()
        finally:
            code = server.stop()
        if code:
            tally.errors.append(f"the server ended with code {code}")
        if server.growth > MOST_GROWTH:
            tally.errors.append(f"memory grew to {server.growth:.2f} times what it was")
    write_page(options.output, page(options, tally, server.memory_mb, seconds))
    for text in tally.errors[:10]:
        print(text, file=sys.stderr)
    return 1 if tally.errors else 0


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "load.md")
    sys.exit(run(parser.parse_args()))


if __name__ == "__main__":
    main()
