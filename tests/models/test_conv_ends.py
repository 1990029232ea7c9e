"""Every grouped convolution of the configurations comes back: float32 and bfloat16, forward and backward.

oneDNN has kernels that spin for ever on some processors, deaf to signals: each runs in a child process.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hifispeech.models.conv import Conv1d, plain_layers
from hifispeech.models.fast.model import FastModel
from hifispeech.models.hifisr import EncoderConfig, HiFiSR, HiFiSRConfig
from hifispeech.train.config import FastTrainConfig, HiFiSRTrainConfig, load
from hifispeech.train.losses.discriminators import Discriminators, small_discriminators

LIMIT_S = 100
CHILD = """
import json, sys
import torch
from hifispeech.models.conv import Conv1d
torch.set_num_threads(1)
shapes, low = json.loads(sys.argv[1]), sys.argv[2] == "bfloat16"
for shape in shapes:
    print(shape, flush=True)
    layer = Conv1d(**shape)
    for time in (33, 96):
        x = torch.randn(2, shape["in_channels"], time, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = layer(x)
        y.float().square().sum().backward()
        assert x.grad.isfinite().all() and y.dtype == (torch.bfloat16 if low else torch.float32)
print("done")
"""
Shape = dict[str, int]


def depthwise(channels: int, kernel: int) -> Shape:
    """As the encoder has them."""
    sizes = {"in_channels": channels, "out_channels": channels, "kernel_size": kernel, "groups": channels}
    return {**sizes, "stride": 1, "padding": kernel // 2, "dilation": 1}


def layer_of(shape: Shape) -> Conv1d:
    return Conv1d(**shape)  # type: ignore[arg-type]


def grouped_shapes(network: nn.Module) -> list[Shape]:
    names = ("kernel_size", "stride", "padding", "dilation")
    return [
        {
            "in_channels": layer.in_channels,
            "out_channels": layer.out_channels,
            "groups": layer.groups,
            **{name: getattr(layer, name)[0] for name in names},
        }
        for layer in network.modules()
        if isinstance(layer, nn.Conv1d) and layer.groups > 1
    ]


def networks(folder: Path, tiny: HiFiSRConfig) -> list[nn.Module]:
    """Those of the shipped configurations and of the tests."""
    small = EncoderConfig(depth=1, width=16, hidden=32, query_key=16, rotary=8, kernel=3, fsmn_width=8)
    made: dict[Callable[[Any], nn.Module], list[Any]] = {
        HiFiSR: [tiny, replace(tiny, encoder=small)],
        Discriminators: [small_discriminators()],
        FastModel: [],
    }
    for config in map(load, sorted(folder.glob("*.yaml"))):
        if isinstance(config, HiFiSRTrainConfig):
            made[HiFiSR].append(config.model)
            made[Discriminators].append(config.discriminators)
        elif isinstance(config, FastTrainConfig):
            made[FastModel].append(config.model)  # the offline model has PyTorch's own layers only
    found = []
    for make, configs in made.items():
        with torch.device("cpu" if make is FastModel else "meta"):  # FastModel computes its tables
            found += [make(config) for config in dict.fromkeys(configs)]
    return found


@pytest.fixture(scope="module")
def shapes(repo_dir: Path, tiny_config: HiFiSRConfig) -> list[Shape]:
    """Also what hung: `(channels, kernel)` of a depthwise layer."""
    found = [
        shape for network in networks(repo_dir / "configs", tiny_config) for shape in grouped_shapes(network)
    ]
    found += [depthwise(channels, kernel) for channels in (2, 8, 12, 16, 17) for kernel in (3, 15, 17, 39)]
    return [json.loads(text) for text in sorted({json.dumps(shape, sort_keys=True) for shape in found})]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_grouped_convolution_comes_back(shapes: list[Shape], precision: str) -> None:
    assert depthwise(16, 39) in shapes and depthwise(2048, 17) in shapes  # of a test, of the paper
    words = [sys.executable, "-c", CHILD, json.dumps(shapes), precision]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as hung:
        said = hung.stdout or b""
        said = said.decode() if isinstance(said, bytes) else said
        pytest.fail(f"does not come back within {LIMIT_S} s: {said.splitlines()[-1:]}")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    assert done.stdout.endswith("done\n")


@pytest.mark.parametrize(
    ("channels", "low", "innermost"), [(16, True, False), (17, True, True), (16, False, True)]
)
@torch.no_grad()
def test_few_channels_in_bfloat16_are_plain(
    channels: int, low: bool, innermost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any processor, and without running what may hang."""
    layer, x = layer_of(depthwise(channels, 17)), torch.randn(1, channels, 40)
    planes = []
    conv2d = lambda x, *_, **__: planes.append(x) or x  # noqa: E731
    monkeypatch.setattr(F, "conv2d", conv2d)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        layer(x)
    assert bool(planes) == innermost
    with plain_layers():
        layer(x)
    assert bool(planes) == innermost and len(planes) <= 1


def test_weights_of_low_precision_are_plain_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without autocast."""
    monkeypatch.setattr(F, "conv2d", None)
    x = torch.randn(1, 16, 40, dtype=torch.bfloat16)
    assert layer_of(depthwise(16, 17)).bfloat16()(x).dtype == torch.bfloat16
