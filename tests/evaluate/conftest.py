"""Tiny true recordings, and an external program to score."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hifispeech import write

TOOL = """
import os, sys, time
import numpy as np, soundfile
source, target, log, victim = sys.argv[1:5]
audio, rate = soundfile.read(source, always_2d=True)
with open(log + ".txt", "a") as file:  # a file that the command names is hashed
    file.write(f"{len(audio)}\\n")
if len(audio) == int(victim):  # end the process that scores this clip
    worker = open(f"/proc/{os.getppid()}/stat").read().rsplit(")", 1)[1].split()[1]
    os.kill(int(worker), 9)
    time.sleep(600)
soundfile.write(target, np.repeat(audio, 48000 // rate, axis=0), 48000)
"""


@pytest.fixture(scope="session")
def make_clips(synthetic_speech: Callable[..., np.ndarray]) -> Callable[..., list[Path]]:
    """`make_clips(folder, count, seconds=0.5)` writes count 48 kHz clips of slightly different length."""

    def make(folder: Path, count: int, seconds: float = 0.5) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"clip{i}.wav" for i in range(count)]
        for i, path in enumerate(paths):
            write(path, synthetic_speech(seconds + 0.01 * i, seed=i)[None], 48000)
        return paths

    return make


@pytest.fixture
def tool(tmp_path: Path) -> Callable[..., str]:
    """`tool(log, victim=-1)`: a cmd: system; logs calls in LOG.txt, kills its worker at victim samples."""
    script = tmp_path / "tool.py"
    script.write_text(TOOL)
    return lambda log, victim=-1: (
        f"tool=cmd:{shlex.quote(sys.executable)} {script} {{in}} {{out}} {log} {victim}"
    )
