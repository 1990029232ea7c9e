"""Memory does not grow with the length of a file. `benchmarks/speed.py --long` measures a whole hour."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

LIMIT_MB = 400.0  # 10^6 bytes
GROWTH = 1.10

# Runs a command and prints its peak memory in kB. In a small interpreter of its own, since Linux counts the
# memory that the parent had before exec.
LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def write_speech(path: Path, clip: Path, minutes: int) -> None:
    """A stereo file made of the clip over and over, the channels apart, written minute by minute."""
    audio, rate = soundfile.read(clip, dtype="int16")
    minute = np.stack([np.resize(np.roll(audio, shift), 60 * rate) for shift in (0, len(audio) // 3)], axis=1)
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16") as file:
        for _ in range(minutes):
            file.write(minute)


def peak_mb(*arguments: object) -> float:
    """Peak resident memory of the program with these arguments."""
    words = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, "-m", "hifispeech", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024 / 1e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_length(phone_clip: Path, tmp_path: Path) -> None:
    """Peak memory of `hifispeech upscale`: 20 minutes of stereo against 5."""
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    peaks = []
    for minutes in (5, 20):
        write_speech(source, phone_clip, minutes)
        peaks.append(peak_mb("upscale", source, "-o", target, "--force", "--threads", 1))
        assert soundfile.info(target).frames == 60 * minutes * 48000
    assert peaks[1] <= GROWTH * peaks[0], peaks
    assert max(peaks) <= LIMIT_MB, peaks
