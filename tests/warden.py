"""Ends a test process that overstays, and what it leaves behind: a program that `conftest.py` starts.

    python warden.py PID MARK

`pytest-timeout` ends a process from a thread in it, which a kernel that holds the interpreter's lock
prevents, and leaves its children running. This process reads lines from its standard input: the seconds that
PID may take from then on (0: as long as it likes). When they are over, PID gets SIGABRT, which makes pytest
dump its stacks, then SIGKILL. When PID is gone, for whatever reason, all processes that have
`HIFISPEECH_TEST_RUN=MARK` in their environment, and their descendants, are killed: children, servers, Ray, in
whatever session they are.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

VARIABLE = "HIFISPEECH_TEST_RUN"
PROC = Path("/proc")


def main() -> None:
    pid, mark = int(sys.argv[1]), sys.argv[2]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends after what it watches
    if not watch():
        say(f"{pid} overstayed and did not end itself: ended")
        for number in (signal.SIGABRT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(2)
    time.sleep(1)  # for helpers that end with it, such as the resource tracker of multiprocessing
    for _ in range(5):  # killing may race with starting
        left = leftovers(mark)
        if not left:
            break
        for child, words in left.items():
            say(f"ended what was left behind: {child} {words}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.2)


def watch() -> bool:
    """True when the other end has closed the pipe, False when its time is over."""
    until = None
    while True:
        wait = None if until is None else max(0.0, until - time.monotonic())
        if not select.select([0], [], [], wait)[0]:
            return False
        said = os.read(0, 4096)
        if not said:
            return True
        seconds = float(said.split()[-1])
        until = time.monotonic() + seconds if seconds else None


def leftovers(mark: str) -> dict[int, str]:
    """Command lines by process id: those with the mark and their descendants, not this process."""
    marked, parents = set(), {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or not ours
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state == "Z" or int(folder.name) == os.getpid():
                continue
            parents[int(folder.name)] = int(parent)
            if f"{VARIABLE}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                marked.add(int(folder.name))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in marked} - marked
        marked, grown = marked | more, bool(more)
    return {pid: command(pid) for pid in sorted(marked)}


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""


def say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"warden: {text}\n".encode())


if __name__ == "__main__":
    main()
