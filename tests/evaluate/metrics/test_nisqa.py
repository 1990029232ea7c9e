"""NISQA: equal to torchmetrics, and loud about weights that are missing or wrong. Needs the weights."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hifispeech import read
from hifispeech.errors import AudioError, ModelError
from hifispeech.evaluate import metrics
from hifispeech.evaluate.metrics import nisqa as module
from hifispeech.evaluate.metrics.nisqa import find_weights, nisqa


def noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 48000))


@pytest.fixture
def weights() -> Path:
    for package in ("torchmetrics", "librosa"):
        pytest.importorskip(package)
    try:
        return find_weights()
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable, and a home without weights."""
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_missing_and_wrong_weights_are_told(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no NISQA weights there; get them from https.*--nisqa-weights"):
        nisqa(noise(1), noise(1))
    assert "nisqa" not in metrics.all_metrics()
    other = nothing_set / "other.tar"
    other.write_bytes(b"weights")
    monkeypatch.setenv(module.VARIABLE, str(other))
    with pytest.raises(ModelError, match="is not the public NISQA v2 checkpoint"):
        find_weights()
    with pytest.raises(ModelError, match=r"gone\.tar: no NISQA weights"):
        metrics.all_metrics(nothing_set / "gone.tar")


@pytest.mark.parametrize("package", ["torchmetrics", "librosa"])
def test_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf'{package} is not installed; run: pip install "hifispeech\[nisqa\]"'
    ):
        module.require()


def test_scores_equal_those_of_torchmetrics(weights: Path, repo_dir: Path, nothing_set: Path) -> None:
    """Its own function, with the weights in the place it reads them from, so that it downloads nothing."""
    import torch

    peer = pytest.importorskip("torchmetrics.functional.audio.nisqa")
    place = nothing_set / ".torchmetrics" / "NISQA" / "nisqa.tar"
    place.parent.mkdir(parents=True)
    place.write_bytes(weights.read_bytes())
    clip, _ = read(repo_dir / "tests" / "data" / "speech_nl_48k.flac")
    expected = peer.non_intrusive_speech_quality_assessment(torch.from_numpy(clip[0]), 48000)
    found = nisqa(clip, clip)
    assert list(found) == list(module.DIMENSIONS)
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_noise_is_heard_in_the_right_dimension(weights: Path, repo_dir: Path) -> None:
    clip, _ = read(repo_dir / "tests" / "data" / "speech_nl_48k.flac")
    hiss = (0.02 * np.random.default_rng(0).standard_normal(clip.shape)).astype(np.float32)
    clean, noisy = (metrics.measure(clip, x, ["nisqa"], nisqa_weights=weights) for x in (clip, clip + hiss))
    assert clean["nisqa"] > 3.5 and noisy["nisqa"] < clean["nisqa"] - 0.5
    drops = {name: clean[name] - noisy[name] for name in clean}
    assert drops["nisqa_noisiness"] > drops["nisqa_discontinuity"]
    stereo = np.concatenate([clip, clip + hiss])
    both = metrics.measure(stereo, stereo, ["nisqa"], nisqa_weights=weights)
    assert both["nisqa"] == pytest.approx((clean["nisqa"] + noisy["nisqa"]) / 2, abs=1e-4)


def test_clips_that_cannot_be_scored(weights: Path) -> None:
    with pytest.raises(AudioError, match="silence; NISQA is undefined"):
        nisqa(noise(1), 0 * noise(1))
    with pytest.raises(AudioError, match=r"NISQA cannot score 0\.05 s"):
        nisqa(noise(0.05), noise(0.05))
    with pytest.raises(AudioError, match=r"NISQA cannot score 60\.00 s"):
        nisqa(noise(60), noise(60))
