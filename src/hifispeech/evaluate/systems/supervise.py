"""Runs one program and ends everything it started, also when the process that wanted it is killed.

    python -I -S supervise.py RESULT PROGRAM [ARGUMENT ...]

Started by `command.run`, never imported: it needs the standard library only, so that it is small and the peak
memory it reports is the program's own. Its standard input is a pipe that nothing is written to; when that
closes, the program is killed. Writes JSON to RESULT: `code`, `seconds`, `peak_memory_mb` or `error`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time


def main() -> None:
    result, *words = sys.argv[1:]
    started = time.perf_counter()
    answer: dict[str, object]
    try:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        answer = {"error": error.strerror or "unknown error"}
    else:
        threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
        code = child.wait()
        seconds = time.perf_counter() - started
        answer = {"code": code, "seconds": seconds, "peak_memory_mb": _peak_memory_mb()}
        _kill_group(child)
    with open(result, "w", encoding="utf-8") as file:
        json.dump(answer, file)


def _end_with_parent(child: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held at the end of the program
        pass
    _kill_group(child)
    os._exit(1)


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


def _peak_memory_mb() -> "float | None":
    """Of the largest process among the program and what it waited for."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit_bytes / 1e6


if __name__ == "__main__":
    main()
