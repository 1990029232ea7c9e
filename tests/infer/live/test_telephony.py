"""The telephony example: packets get lost, late and out of order; nothing crashes, nothing shifts."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

import hifispeech


@pytest.fixture(scope="module")
def telephony(repo_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("telephony", repo_dir / "examples" / "telephony.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def audio(phone_clip: Path) -> np.ndarray:
    """Two seconds of a call at 8 kHz `[time]`."""
    return hifispeech.read(phone_clip)[0][0, :16000]


@pytest.fixture(scope="module")
def clean(telephony: ModuleType, audio: np.ndarray) -> np.ndarray:
    """The same call over a perfect line, as the library upscales it."""
    coded = np.concatenate(
        [telephony.PcmDecoder("mulaw").push(data)[0] for data in telephony.packets(audio, "mulaw")]
    )
    stream = telephony.Stream(8000, 1)
    return np.concatenate([stream.push(coded), stream.flush()])


def low_band(signal: np.ndarray) -> np.ndarray:
    """Below 3 kHz, where nothing is generated."""
    spectrum = np.fft.rfft(signal)
    spectrum[int(3000 * len(signal) / 48000) :] = 0
    return np.fft.irfft(spectrum, len(signal))


def test_late_and_unordered_packets_do_no_harm(
    telephony: ModuleType, audio: np.ndarray, clean: np.ndarray
) -> None:
    """Within the 40 ms of the receiver, order does not matter at all."""
    receiver = telephony.Receiver()
    sent = list(telephony.packets(audio, "mulaw"))
    heard = []
    for first in range(0, len(sent), 2):
        for number in (first + 1, first):  # every pair is swapped
            receiver.receive(number, sent[number])
            heard.append(receiver.tick())
    heard.append(receiver.finish())
    assert receiver.lost == 0
    np.testing.assert_allclose(np.concatenate(heard), clean, atol=1e-4)


@pytest.mark.parametrize("lost", [[20], [20, 21, 22, 23, 24, 25], [0, 1, 2], [97, 98, 99], list(range(100))])
def test_a_loss_does_not_shift_time(
    telephony: ModuleType, audio: np.ndarray, clean: np.ndarray, lost: list[int]
) -> None:
    """The length is exact, and away from the gap the call is what it would have been."""
    receiver = telephony.Receiver()
    heard = []
    for number, payload in enumerate(telephony.packets(audio, "mulaw")):
        if number not in lost:
            receiver.receive(number, payload)
        heard.append(receiver.tick())
    heard.append(receiver.finish())
    out = np.concatenate(heard)
    assert len(out) == len(clean) == 6 * len(audio) and receiver.lost == len(lost)
    assert np.isfinite(out).all() and np.abs(out).max() <= 1.2 * np.abs(clean).max()
    away = np.ones(len(out), bool)
    away[max(0, 960 * lost[0] - 2400) : 960 * (lost[-1] + 1) + 2400] = False
    error = (low_band(out) - low_band(clean))[away]
    assert np.sum(error**2) <= 1e-3 * np.sum(low_band(clean) ** 2)


def test_a_gap_is_filled_without_a_jump_and_fades(telephony: ModuleType, audio: np.ndarray) -> None:
    """No step larger than speech has; silence after 60 ms."""
    receiver = telephony.Receiver()
    tone = 0.5 * np.sin(2 * np.pi * 210 * np.arange(40 * 160) / 8000)
    sent = list(telephony.packets(tone, "mulaw"))
    for number in [*range(10), *range(20, 40)]:
        receiver.receive(number, sent[number])
    filled = np.concatenate([receiver._next() for _ in range(40)])
    assert np.abs(np.diff(filled)).max() <= 2 * np.abs(np.diff(tone)).max()
    assert not filled[13 * 160 : 20 * 160].any()
    np.testing.assert_array_equal(
        filled[20 * 160 + 40 :], np.concatenate([receiver.decoder.push(data)[0] for data in sent[20:]])[40:]
    )


def test_nonsense_is_ignored(telephony: ModuleType) -> None:
    receiver = telephony.Receiver()
    for number, payload in ((-5, bytes(160)), (0, b""), (1, bytes(7)), (2, bytes(999))):
        receiver.receive(number, payload)
    for _ in range(5):
        receiver.tick()
    receiver.receive(0, bytes(160))  # far too late
    assert not receiver.waiting


def test_the_program_runs(repo_dir: Path, phone_clip: Path, tmp_path: Path) -> None:
    words = [sys.executable, repo_dir / "examples" / "telephony.py", phone_clip, tmp_path / "out.wav"]
    done = subprocess.run([*words, "--loss", "0.1"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "packets of 219 were filled in" in done.stdout
    assert soundfile.info(tmp_path / "out.wav").frames == 6 * soundfile.info(phone_clip).frames
