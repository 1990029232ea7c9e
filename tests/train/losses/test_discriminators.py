"""The three discriminators: sizes, equivalences, and what their verdict must not depend on."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hifispeech.models.hifisr import count_parameters
from hifispeech.train.losses.discriminators import (
    BandDiscriminator,
    Discriminators,
    DiscriminatorsConfig,
    Judgement,
    MBDConfig,
    MPDConfig,
    MSDConfig,
    PeriodDiscriminator,
    small_discriminators,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture(scope="module")
def small() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(small_discriminators())


def test_parameter_counts() -> None:
    with torch.device("meta"):
        parts = Discriminators().parts
    counts = {name: count_parameters(part) for name, part in parts.items()}
    assert counts == {"mpd": 41_105_770, "msd": 29_618_821, "mbd": 1_413_990}
    assert {name: round(n / 1e6, 1) for name, n in counts.items()} == {"mpd": 41.1, "msd": 29.6, "mbd": 1.4}


@pytest.mark.parametrize("samples", [8192, 5003])
@torch.no_grad()
def test_one_output_type(small: Discriminators, samples: int) -> None:
    verdicts = small(noise(2, 1, samples))
    assert list(verdicts) == ["mpd", "msd", "mbd"]
    for name, parts in [("mpd", 5), ("msd", 3), ("mbd", 3)]:
        judged = verdicts[name]
        assert isinstance(judged, Judgement)
        assert len(judged.logits) == len(judged.features) == parts
        assert all(x.ndim == 2 and x.shape[0] == 2 for x in judged.logits)
        assert all(x.shape[0] == 2 and x.ndim >= 3 for layers in judged.features for x in layers)


def test_each_can_be_switched_off() -> None:
    small = small_discriminators()
    only = Discriminators(DiscriminatorsConfig(mpd=None, msd=None, mbd=small.mbd))
    assert list(only(noise(1, 1, 4096))) == ["mbd"]
    with pytest.raises(ValueError, match="all null"):
        Discriminators(DiscriminatorsConfig(None, None, None))


def test_layers_of_msd_must_agree() -> None:
    with pytest.raises(ValueError, match="one entry per layer"):
        MSDConfig(channels=(8, 8))


@torch.no_grad()
def test_batch_equals_single(small: Discriminators) -> None:
    small.eval()
    audio = noise(2, 1, 5003)
    joint, alone = small(audio), small(audio[1:])
    small.train()
    for name, judged in alone.items():
        for x, y in zip(judged.logits, joint[name].logits, strict=True):
            torch.testing.assert_close(x, y[1:], atol=1e-5, rtol=1e-4)
        for mine, theirs in zip(judged.features, joint[name].features, strict=True):
            for x, y in zip(mine, theirs, strict=True):
                torch.testing.assert_close(x, y[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("samples", [1000, 1001])
@torch.no_grad()
def test_period_rows_equal_two_dimensional_convolutions(samples: int) -> None:
    """HiFi-GAN's own form: `[batch, 1, time / period, period]` and kernels of (5, 1)."""
    part, audio = PeriodDiscriminator(7, MPDConfig(channels=(4, 8, 8))), noise(2, 1, samples)
    logits, features = part(audio)
    x = F.pad(audio, (0, -samples % 7), mode="reflect").reshape(2, 1, -1, 7)
    for i, layer in enumerate(part.layers):
        assert isinstance(layer, nn.Conv1d)
        x = F.conv2d(x, layer.weight[..., None], layer.bias, stride=(1 if i == 2 else 3, 1), padding=(2, 0))
        x = F.leaky_relu(x, 0.1)
        assert features[i].numel() == x.numel()
        torch.testing.assert_close(features[i].abs().mean(), x.abs().mean())
    assert isinstance(part.last, nn.Conv1d)
    x = F.conv2d(x, part.last.weight[..., None], part.last.bias, padding=(1, 0))
    torch.testing.assert_close(logits.reshape(2, 7, -1), x[:, 0].transpose(1, 2))


def test_bands_cover_every_bin_once() -> None:
    for window in MBDConfig().windows:
        bands = BandDiscriminator(window, MBDConfig(channels=4)).bands
        bins = [i for low, high in bands for i in range(low, high)]
        assert len(bands) == 5 and bins == list(range(window // 2 + 1))


@torch.no_grad()
def test_mbd_ignores_level_and_dc() -> None:
    part, audio = BandDiscriminator(512, MBDConfig(channels=4)), noise(1, 1, 4096)
    torch.testing.assert_close(part(3 * audio + 0.1)[0], part(audio)[0], atol=1e-4, rtol=1e-4)
    planes = part.spectrum(audio)
    assert planes.shape == (1, 2, 1 + 4096 // 128, 257)
    levelled = audio - audio.mean()
    expected = torch.stft(
        (0.8 * levelled / levelled.abs().max())[0],
        512,
        128,
        window=torch.hann_window(512),
        return_complex=True,
    )
    torch.testing.assert_close(planes[:, 0], expected.real.transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_silence_is_judged_without_nan(small: Discriminators) -> None:
    audio = torch.zeros(1, 1, 4096, requires_grad=True)
    torch.stack([x.sum() for judged in small(audio).values() for x in judged.logits]).sum().backward()
    assert audio.grad is not None and torch.isfinite(audio.grad).all()
    small.zero_grad(set_to_none=True)
