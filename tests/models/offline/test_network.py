"""The offline network: what it may see, what it must not, and that the export is the same function."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from hifispeech.audio.bands import BANDS  # noqa: E402
from hifispeech.infer.load import open_model  # noqa: E402
from hifispeech.infer.offline import OfflineModel, levelled, noise_rows  # noqa: E402
from hifispeech.models.offline.config import OfflineConfig  # noqa: E402
from hifispeech.models.offline.export import export_onnx  # noqa: E402
from hifispeech.models.offline.network import OfflineNetwork, whole  # noqa: E402

TINY = OfflineConfig(channels=16, blocks=2, dilations=(1, 2), heads=2, noise=4)
FRAMES, FIRST = 96, 40


@pytest.fixture()
def network() -> OfflineNetwork:
    torch.manual_seed(0)
    network = OfflineNetwork(TINY).eval()
    torch.nn.init.normal_(network.embed_floor.weight, std=0.05)
    return network


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logs, first unknown band and noise of one recording."""
    generator = torch.Generator().manual_seed(seed)
    logs = torch.randn(1, FRAMES, BANDS, generator=generator) - 2.0
    return logs, torch.full((1, FRAMES), float(FIRST)), torch.randn(1, FRAMES, 4, generator=generator)


@torch.no_grad()
def test_what_lies_above_the_cutoff_is_not_seen(network: OfflineNetwork) -> None:
    logs, first, noise = inputs()
    other = logs.clone()
    other[..., FIRST:] = 3.0
    for a, b in zip(network(logs, first, noise), network(other, first, noise), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_gain_moves_the_envelope(network: OfflineNetwork) -> None:
    logs, first, noise = inputs()
    for a, b in zip(network(logs, first, noise), network(logs + 1.0, first, noise), strict=True):
        torch.testing.assert_close(a + 1.0, b, atol=1e-4, rtol=0)


@torch.no_grad()
def test_quiet_frames_do_not_move_the_level(network: OfflineNetwork) -> None:
    """A pause, whatever noise it holds, counts neither for the level nor for the pooled context."""
    logs, first, noise = inputs()
    pause = torch.full((1, 64, BANDS), -8.0) + 0.1 * torch.randn(1, 64, BANDS)
    longer = torch.cat([pause, logs], 1)
    more = torch.full((1, 64 + FRAMES), float(FIRST))
    _, _, level = network(logs, first, noise)
    _, _, other = network(longer, more, torch.zeros(1, 64 + FRAMES, 4))
    torch.testing.assert_close(level, other, atol=1e-4, rtol=0)


@torch.no_grad()
def test_noise_matters(network: OfflineNetwork) -> None:
    logs, first, noise = inputs()
    assert (network(logs, first, noise)[0] - network(logs, first, -noise)[0]).abs().max() > 1e-3


def test_powers_add() -> None:
    a, b = torch.tensor([-2.0]), torch.tensor([-2.0])
    torch.testing.assert_close(whole(a, b), torch.tensor([-2.0 + float(np.log10(2.0))]))
    torch.testing.assert_close(whole(torch.tensor([3.0]), torch.tensor([-9.0])), torch.tensor([3.0]))


@torch.no_grad()
@pytest.mark.parametrize("frames", [16, 61, 300])
def test_export_is_the_same_function(network: OfflineNetwork, tmp_path: Path, frames: int) -> None:
    path = export_onnx(network, tmp_path / "tiny.onnx", {"steps": 1})
    assert b"/torch/" not in path.read_bytes(), "the file says nothing of the machine that made it"
    model = open_model(path)
    assert isinstance(model, OfflineModel)
    logs = np.random.default_rng(0).normal(-2, 1, (frames, BANDS)).astype(np.float32)
    first = np.full(frames, FIRST)
    ours = model.envelope(logs, first, 7)
    moved, shift = levelled(logs, FIRST)
    noise = torch.from_numpy(noise_rows(4)[7 : 7 + frames])[None]
    speech, floor, _ = network(torch.from_numpy(moved)[None], torch.full((1, frames), float(FIRST)), noise)
    expected = whole(speech, floor)[0].numpy() - shift
    np.testing.assert_allclose(ours, expected, atol=0.02)  # weights in half precision
