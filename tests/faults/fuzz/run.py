"""Feeds damaged files to hifispeech and counts what breaks: crashes, hangs, memory, wrong results.

    python tests/faults/fuzz/run.py --count 5000 --out docs/benchmarks/fuzzing.md
    python tests/faults/fuzz/run.py --containers mp3 --first 1234 --count 1 --targets io --keep /tmp/found

Cases run in child processes, so that a decoder that crashes is seen and the rest goes on. A case is known by
target, container, seed and number; `--keep` saves the files of those that fail. Exit code 1 if any does.
"""

import argparse
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seeds import CONTAINERS, make_seeds

HANG_CPU_S = float(os.environ.get("HIFISPEECH_FUZZ_HANG_S", "10"))  # the tests of this program wait less
HANG_WALL_S = 120.0  # no CPU time used, no answer: a deadlock, also on a busy machine
MOST_MEMORY = 1 << 30
HERE = Path(__file__).parent


@dataclass
class Tally:
    """What came of the cases of one container and target."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)  # case, what, details
    slowest_s: float = 0.0
    peak: int = 0


def main() -> int:
    args = parse_args()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None, prefix="fuzz-") as name:
        folder = Path(name)
        for container in CONTAINERS:
            make_seeds(folder / "seeds" / container, container)
        (folder / "work-broken").mkdir()
        failed = 0
        rows = ["| container | through | cases | read | refused | failed | slowest, CPU s | peak MB |"]
        rows.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        print(*rows, sep="\n", flush=True)
        for container in args.containers:
            for target in args.targets:
                count = args.count if target == "io" else max(1, round(args.count * args.share))
                tally = fuzz(target, container, folder, args, count)
                failed += len(tally.failures)
                rows.append(_row(container, target, count, tally))
                print(rows[-1], flush=True)
                for case, what, details in tally.failures:
                    print(f"{target} {container} case {case}: {what}\n{details}", file=sys.stderr, flush=True)
        if args.keep is not None:
            shutil.copytree(folder / "work-broken", args.keep, dirs_exist_ok=True)
    if args.out is not None:
        _write_page(args.out, args.seed, rows)
    return 1 if failed else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=5000, help="cases of each container through io")
    parser.add_argument("--share", type=float, default=0.02, help="of them, through CLI and HTTP each")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--containers", nargs="+", choices=CONTAINERS, default=list(CONTAINERS))
    parser.add_argument("--targets", nargs="+", choices=("io", "cli", "http"), default=["io", "cli", "http"])
    parser.add_argument("--keep", type=Path, help="folder for the files of failed cases")
    parser.add_argument("--out", type=Path, help="page of the docs to write")
    return parser.parse_args()


def fuzz(target: str, container: str, folder: Path, args: argparse.Namespace, count: int) -> Tally:
    """All cases of a container and target; a child that dies is replaced after the case it died at."""
    tally, first, last = Tally(), args.first, args.first + count
    while first < last:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        words = [target, container, folder / "seeds", work, args.seed, first, last]
        with tempfile.TemporaryFile("w+", errors="replace") as errors:  # a pipe would fill up unread
            with subprocess.Popen(
                [sys.executable, HERE / "child.py", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
                text=True,
            ) as process:
                at, what = _watch(process, tally, first - 1)
            errors.seek(0)
            stderr = errors.read()
        if what is None and process.returncode:
            what = f"the process died with code {process.returncode}"
        if what is not None:
            tally.failures.append((at, what, stderr[-3000:]))
            for file in work.glob("case.*"):
                shutil.copy(file, folder / "work-broken" / f"{target}-{container}-{at}{file.suffix}")
        first = at + 1 if what is not None else last
    return tally


def _watch(process: subprocess.Popen[str], tally: Tally, at: int) -> tuple[int, str | None]:
    """Follow a child; returns the last case it began and why it had to be killed, if so."""
    started = _cpu_s(process.pid)
    wall = time.monotonic()
    for line in _lines(process):
        if line is not None:
            message = json.loads(line)
            if "outcome" not in message:
                at, started, wall = message["case"], _cpu_s(process.pid), time.monotonic()
                continue
            used_s = _cpu_s(process.pid) - started
            tally.slowest_s, tally.peak = max(tally.slowest_s, used_s), max(tally.peak, message["peak"])
            outcome = message["outcome"]
            tally.outcomes[outcome.split(":")[0]] += 1
            if message["peak"] > MOST_MEMORY:
                outcome = f"broken: {message['peak'] >> 20} MB"
            if outcome.startswith("broken"):
                tally.failures.append((at, outcome, message["details"]))
        elif _cpu_s(process.pid) - started > HANG_CPU_S or time.monotonic() - wall > HANG_WALL_S:
            process.kill()
            return at, f"hangs: {time.monotonic() - wall:.0f} s"
    return at, None


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Lines of the child's output; None when there is none for a second."""
    assert process.stdout is not None
    descriptor, buffer = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(1.0):
                yield None
                continue
            part = os.read(descriptor, 65536)
            if not part:
                return
            *whole, buffer = (buffer + part).split(b"\n")
            yield from (line.decode() for line in whole)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _write_page(page: Path, seed: int, rows: list[str]) -> None:
    sys.path.append(str(HERE.parents[2] / "benchmarks"))
    from common import report  # pyright: ignore[reportMissingImports]

    text = f"""\
Files of 0.3 s in {sum(map(len, CONTAINERS.values()))} flavours of {len(CONTAINERS)} groups of containers,
damaged by seeded mutations and given to `hifispeech.audio.io`, the command line and the HTTP API. *Read*:
finite samples of the shape claimed; *refused*: one clear error. *Failed* would be a crash, a hang of over
10 s of CPU time, over 1 GB of memory, another exception or a wrong result. Memory is that of the process
that decodes; behind HTTP that is a worker with a limit of its own, and the column shows the server."""
    report.write_page(page, ["# Fuzzing", "", *report.provenance(seed=seed), "", text, "", *rows])


def _row(container: str, target: str, count: int, tally: Tally) -> str:
    cells = [container, target, count, tally.outcomes["read"], tally.outcomes["refused"], len(tally.failures)]
    return f"| {' | '.join(map(str, cells))} | {tally.slowest_s:.2f} | {tally.peak >> 20} |"


if __name__ == "__main__":
    sys.exit(main())
