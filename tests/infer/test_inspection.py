"""What `inspect` says of a file, and that its memory does not grow with the length."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import hifispeech
from hifispeech import detect_bandwidth
from hifispeech.audio.bandwidth.meter import BandwidthMeter
from hifispeech.audio.resample import resample

Speech = Callable[..., np.ndarray]


def test_bandwidth_is_that_of_the_detector(phone_clip: Path, speech_clip: Path) -> None:
    for path in (phone_clip, speech_clip):
        audio, rate = hifispeech.read(path)
        expected = detect_bandwidth(audio, rate)
        found = hifispeech.inspect(path)
        assert found.cutoff_hz == expected.cutoff_hz and found.is_full_band == expected.is_full_band
        assert found.duration_s == audio.shape[1] / rate and found.peak == np.abs(audio).max()


def test_no_meter_takes_more_than_a_span(
    tmp_path: Path, synthetic_speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter keeps 3 kB a second, so a long file gets one after the other; the answer is the same."""
    narrow = np.tile(resample(resample(synthetic_speech(4.0, seed=1), 48000, 8000), 8000, 16000), 4)
    soundfile.write(tmp_path / "long.wav", np.stack([narrow, 0 * narrow], axis=1), 16000)
    whole = hifispeech.inspect(tmp_path / "long.wav")
    pushed: dict[int, int] = {}
    push = BandwidthMeter.push

    def counted(meter: BandwidthMeter, block: np.ndarray) -> None:
        pushed[id(meter)] = pushed.get(id(meter), 0) + np.size(block)
        meters.append(meter)  # kept, so that no two have one id
        push(meter, block)

    meters: list[BandwidthMeter] = []
    monkeypatch.setattr(BandwidthMeter, "push", counted)
    monkeypatch.setattr("hifispeech.infer.edges.SPAN_S", 6)
    found = hifispeech.inspect(tmp_path / "long.wav")
    assert len(pushed) == 2 * 3 and max(pushed.values()) == 6 * 16000
    assert found.cutoff_hz == pytest.approx(whole.cutoff_hz, rel=0.05)
    assert found.channel_cutoffs_hz[1] == 0.0 and not found.is_silent and not found.is_full_band


def test_highest_edge_of_a_change_counts(tmp_path: Path, synthetic_speech: Speech) -> None:
    wide = synthetic_speech(8.0, seed=2)
    narrow = resample(resample(wide, 48000, 8000), 8000, 48000)
    soundfile.write(tmp_path / "call.wav", np.concatenate([narrow, wide]), 48000)
    found = hifispeech.inspect(tmp_path / "call.wav")
    assert found.cutoff_hz > 15000 and not found.is_full_band
