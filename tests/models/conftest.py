"""Fixtures around the public release's layout: keys and shapes, test vectors, state dicts filled by rule."""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hifispeech.models.hifisr import DecoderConfig, EncoderConfig, HiFiSR, HiFiSRConfig, hifisr_paper
from hifispeech.models.hifisr.convert import load_clearvoice, our_names
from hifispeech.models.hifisr.encoder import Rotary, SinusoidalPosition

RELEASE = Path(__file__).resolve().parents[1] / "data" / "release"
Shapes = dict[str, dict[str, tuple[int, ...]]]
StateDicts = dict[str, dict[str, Tensor]]


def rule_value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value that the vectors' README prescribes for `key`."""
    numel = int(np.prod(shape))
    noise = (
        np.random.RandomState(zlib.crc32(key.encode()))
        .standard_normal(numel)
        .astype("float32")
        .reshape(shape)
    )
    if len(shape) >= 2 and numel > max(shape) and not key.endswith("weight_g"):
        return noise / np.float32(np.sqrt(numel // shape[0]))
    if key.endswith("weight_g"):
        return np.float32(0.8) * (1 + np.float32(0.1) * noise)
    if key.endswith(("bias", "beta")):
        return np.float32(0.05) * noise
    return 1 + np.float32(0.1) * noise


def fill_by_rule(shapes: Shapes, config: HiFiSRConfig) -> StateDicts:
    """State dicts of `shapes` filled by rule; the constant tables keep the network's own values."""
    constants = {
        "inv_freq": SinusoidalPosition(config.encoder.width).frequencies,
        "freqs": Rotary(config.encoder.rotary).frequencies,
    }
    filled: StateDicts = {}
    for part, keys in shapes.items():
        filled[part] = {}
        for key, shape in keys.items():
            constant = constants.get(key.rsplit(".", 1)[-1])
            filled[part][key] = torch.from_numpy(rule_value(key, shape)) if constant is None else constant
    return filled


@pytest.fixture(scope="session")
def release_shapes() -> Shapes:
    """Every key and shape of the release: `mossformer` and `generator`."""
    content = json.loads((RELEASE / "state_dict.json").read_text())
    return {part: {key: tuple(shape) for key, shape in keys.items()} for part, keys in content.items()}


@pytest.fixture(scope="session")
def release_vectors() -> dict[str, np.ndarray]:
    """Outputs of the release's network for weights filled by rule."""
    with np.load(RELEASE / "vectors.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def tiny_config() -> HiFiSRConfig:
    """The whole structure at a size where everything takes milliseconds."""
    return HiFiSRConfig(
        encoder=EncoderConfig(depth=2, width=32, hidden=64, query_key=16, group=16, rotary=8, fsmn_width=16),
        decoder=DecoderConfig(
            width=32, rates=(16, 16), rate_kernels=(32, 32), block_kernels=(3, 5), block_dilations=(1, 3)
        ),
    )


@pytest.fixture(scope="session")
def _tiny_filled(release_shapes: Shapes, tiny_config: HiFiSRConfig) -> StateDicts:
    own = HiFiSR(tiny_config).state_dict()
    blocks = len(tiny_config.decoder.rates) * len(tiny_config.decoder.block_kernels)
    shapes: Shapes = {}
    for part, keys in release_shapes.items():
        wanted = [key for key in keys if not (m := re.match(r"resblocks\.(\d+)", key)) or int(m[1]) < blocks]
        names = our_names(wanted, tiny_config)
        # Where the release has more axes than we do, they are of size 1 and last.
        shapes[part] = {
            key: (*own[name].shape, *[1] * (len(keys[key]) - own[name].ndim))
            for key, name in names.items()
            if name in own
        }
    return fill_by_rule(shapes, tiny_config)


@pytest.fixture
def tiny_release(_tiny_filled: StateDicts) -> StateDicts:
    """State dicts in the release's layout with the sizes of `tiny_config`; yours to change."""
    return {part: dict(keys) for part, keys in _tiny_filled.items()}


@pytest.fixture
def tiny_model(tiny_release: StateDicts, tiny_config: HiFiSRConfig) -> HiFiSR:
    """A tiny model whose every weight is far from its initial value."""
    return load_clearvoice(tiny_release["mossformer"], tiny_release["generator"], tiny_config)


@pytest.fixture(scope="session")
def paper_model(release_shapes: Shapes) -> HiFiSR:
    """The full-size model filled by rule (some seconds)."""
    config = hifisr_paper()
    filled = fill_by_rule(release_shapes, config)
    return load_clearvoice(filled["mossformer"], filled["generator"], config)


@pytest.fixture
def write_release(tmp_path: Path) -> Callable[[StateDicts], Path]:
    """Writes state dicts the way the release is downloaded and returns the folder."""

    def write(states: StateDicts, folder: Path = tmp_path / "MossFormer2_SR_48K") -> Path:
        folder.mkdir(exist_ok=True)
        torch.save({"mossformer": states["mossformer"]}, folder / "m_best.pt")
        torch.save({"generator": states["generator"]}, folder / "g_best.pt")
        (folder / "last_best_checkpoint").write_text("m_best.pt\ng_best.pt\n")
        return folder

    return write
