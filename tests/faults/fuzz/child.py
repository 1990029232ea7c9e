"""Runs fuzz cases, one after the other, and says after each what came of it; started by `run.py`.

    python child.py TARGET CONTAINER SEEDS_FOLDER WORK_FOLDER SEED FIRST LAST

A line of JSON before a case (its number) and one after it. The process may die at a case: the parent sees it.
"""

import json
import logging
import resource
import shutil
import sys
import traceback
import zlib
from pathlib import Path

import numpy as np
from mutate import mutate
from targets import TARGETS

MEMORY_LIMIT = 4 << 30  # beyond what was there at the start; a backstop, the promise is checked by the parent


def main() -> None:
    target, container, seeds, work, seed, first, last = sys.argv[1:]
    logging.disable(logging.CRITICAL if target != "cli" else logging.NOTSET)
    files = sorted(Path(seeds).glob("*/*"))
    contents = {file: file.read_bytes() for file in files}
    own = [file for file in files if file.parent.name == container]
    check = TARGETS[target]
    whole = _copied(own[0], contents[own[0]], Path(work))
    check(whole)  # imports, caches
    whole.unlink()
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + MEMORY_LIMIT, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(int(first), int(last)):
        rng = np.random.default_rng([int(seed), zlib.crc32(container.encode()), number])
        file = own[int(rng.integers(len(own)))]
        path = _copied(file, mutate(contents[file], list(contents.values()), rng), Path(work))
        Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM again
        _say(case=number)
        try:
            outcome, details = check(path), ""
        except Exception as error:
            outcome, details = f"broken: {error!r}"[:500], traceback.format_exc()
            shutil.copy(path, f"{work}-broken/{target}-{container}-{number}{path.suffix}")
        _say(case=number, outcome=outcome, details=details, peak=_memory("VmHWM"))
        path.unlink()


def _copied(file: Path, content: bytes, work: Path) -> Path:
    path = work / f"case{file.suffix}"
    path.write_bytes(content)
    return path


def _memory(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _say(**values: object) -> None:
    sys.__stdout__.write(json.dumps(values) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
