"""Shards: damaged sets are refused, draws are pure, the usable band is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from hifispeech.datasets.shards import AUDIO_FILE, CLIPS_FILE, Clip, Shards


def test_damaged_sets_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prepare"):
        Shards(tmp_path, "train")
    with pytest.raises(ValueError, match=r"split='test'.*train, valid"):
        Shards(shards, "test")
    with pytest.raises(ValueError, match="bandwidth_hz >= 24001"):
        Shards(shards, "train", 24001.0)
    (tmp_path / CLIPS_FILE).write_text((shards / CLIPS_FILE).read_text())
    (tmp_path / AUDIO_FILE).write_bytes((shards / AUDIO_FILE).read_bytes()[:-100])
    with pytest.raises(ValueError, match="shorter"):
        Shards(tmp_path, "valid")
    (tmp_path / CLIPS_FILE).write_text(json.dumps([{"offset": 0}]))
    with pytest.raises(ValueError, match="damaged"):
        Shards(tmp_path, "train")


def test_draws_are_pure_and_of_one_speaker(shards: Path) -> None:
    data = Shards(shards, "train")
    for index in range(5):
        audio, bandwidth_hz = data.draw(1, index, 70000)  # longer than a clip: two are joined
        again, _ = data.draw(1, index, 70000)
        assert np.array_equal(audio, again) and audio.shape == (70000,)
        assert bandwidth_hz == 24000.0
    assert not np.array_equal(data.draw(1, 0, 1000)[0], data.draw(2, 0, 1000)[0])


@pytest.mark.parametrize(
    ("bandwidth_hz", "lossless", "usable_hz"),
    [
        (24000, True, 24000),
        (22000, True, 19300),
        (16000, True, 15200),
        (22000, False, 15400),
        (8000, False, 7600),
    ],
)
def test_usable_band(bandwidth_hz: float, lossless: bool, usable_hz: float) -> None:
    clip = Clip(0, 1, "train", "x", "s", "CC0", bandwidth_hz, lossless)
    assert clip.usable_hz == pytest.approx(usable_hz)
