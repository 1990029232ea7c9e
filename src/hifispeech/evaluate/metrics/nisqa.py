"""NISQA: predicted quality of speech at 48 kHz without a reference, in five dimensions.

The network is that of torchmetrics; the weights, which are for non-commercial use, are never downloaded: the
caller names the file.
"""

import hashlib
import os
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hifispeech.audio.resample import resample
from hifispeech.errors import AudioError, ModelError
from hifispeech.evaluate.metrics.pairs import Array, check_audible, check_pair

NISQA_RATE = 48000
DIMENSIONS = ("nisqa", "nisqa_noisiness", "nisqa_discontinuity", "nisqa_coloration", "nisqa_loudness")
VARIABLE = "HIFISPEECH_NISQA_WEIGHTS"
USUAL_PLACE = Path("~/.torchmetrics/NISQA/nisqa.tar")
SOURCE = "https://github.com/gabrielmittag/NISQA/raw/refs/heads/master/weights/nisqa.tar"
SHA256 = "7ec4cf937514dd3f8860b21e66fabd8ca87a168572675ef8d979c4c4ad2e805c"


def nisqa(
    reference: Array, estimate: Array, sample_rate: int = 48000, *, weights: Path | None = None
) -> dict[str, float]:
    """NISQA v2 of the estimate: opinion score, noisiness, discontinuity, coloration, loudness, 1 to 5 each.

    The higher, the better, in all five. The reference is checked to fit and not used. Studio speech gets 4.5
    to 4.8. Clips of 0.2 to 50 seconds.

    Blind to: whether it is the same voice or the same words: clean speech of anybody scores well. Trained on
    telephony, so a missing top octave costs little. Other rates are resampled to 48 kHz.

    Args:
        weights: the checkpoint `nisqa.tar`; see `find_weights`.

    Raises:
        AudioError: if the pair cannot be compared, the estimate is silent or the clip too short or too long.
        ModelError: without the weights, or with others.
        ImportError: without torchmetrics or librosa.
    """
    _, est = check_pair(reference, estimate, sample_rate)
    check_audible(est, "NISQA")
    module, network, args = _network(find_weights(weights))
    import torch

    audio = est.astype(np.float32)
    audio = audio if sample_rate == NISQA_RATE else resample(audio, sample_rate, NISQA_RATE)
    try:
        mel = module._get_librosa_melspec(audio, NISQA_RATE, args)
        segments, count = module._segment_specs(torch.from_numpy(mel), args)
    except RuntimeError as error:
        raise AudioError(
            f"NISQA cannot score {audio.shape[1] / NISQA_RATE:.2f} s of audio ({error}); pass 0.2 to 50 s"
        ) from error
    with torch.no_grad():
        scores = network(segments, count.expand(len(audio))).numpy().mean(axis=0)
    return {name: float(score) for name, score in zip(DIMENSIONS, scores, strict=True)}


def find_weights(path: Path | None = None) -> Path:
    """The weights: `path`, else the file in HIFISPEECH_NISQA_WEIGHTS, else ~/.torchmetrics/NISQA/nisqa.tar.

    Raises:
        ModelError: there is none, or it is another file than the public NISQA v2 checkpoint.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else USUAL_PLACE.expanduser())
    if not named.is_file():
        raise ModelError(
            f"{named}: no NISQA weights there; get them from {SOURCE} (CC BY-NC-SA 4.0) and pass "
            f"--nisqa-weights FILE, or set {VARIABLE}, or put them into {USUAL_PLACE}"
        )
    if _sha256(named) != SHA256:
        raise ModelError(
            f"{named}: is not the public NISQA v2 checkpoint nisqa.tar (SHA-256 {SHA256[:12]}...), whose "
            f"numbers can be compared; get it from {SOURCE}"
        )
    return named


def require() -> ModuleType:
    """The module of torchmetrics that holds the network.

    Raises:
        ImportError: if torchmetrics, librosa or requests, which that module needs, is missing.
    """
    for name in ("librosa", "requests", "torchmetrics"):  # the last imports the others
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(f'{name} is not installed; run: pip install "hifispeech[nisqa]"') from error
    return import_module("torchmetrics.functional.audio.nisqa")


@lru_cache(maxsize=2)
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _network(weights: Path) -> tuple[ModuleType, Any, dict[str, Any]]:
    """Loaded once a process: torchmetrics' own loader downloads what it does not find."""
    module = require()
    import torch

    checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
    network = module._NISQADIM(checkpoint["args"])
    network.load_state_dict(checkpoint["model_state_dict"], strict=True)
    return module, network.eval(), checkpoint["args"]
