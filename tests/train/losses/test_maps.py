"""Losses on maps of band powers, in closed form; discriminators that see only what exists."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from hifispeech.audio.bands import BANDS, CENTRES_HZ  # noqa: E402
from hifispeech.train.losses.maps import (  # noqa: E402
    FINE,
    RAYLEIGH,
    WIDE_IN_BANDS,
    WIDE_IN_TIME,
    MapDiscriminators,
    absolute,
    adversarial_loss,
    discriminator_loss,
    distance,
    feature_loss,
    floor_of,
    generated_mask,
    pooled,
    view,
)

FIRST, FRAMES = 50, 48


def maps(seed: int = 0) -> Tensor:
    return torch.randn(2, FRAMES, BANDS, generator=torch.Generator().manual_seed(seed)) - 2.0


def mask(usable_hz: float = 24000.0) -> Tensor:
    return generated_mask(torch.full((2, FRAMES), float(FIRST)), torch.full((2,), usable_hz))


def test_mask_is_between_cutoff_and_the_recordings_own_band() -> None:
    one = mask(15000.0)[0, 0]
    assert one[FIRST] == 1 and one[FIRST - 1] == 0
    assert CENTRES_HZ[one.nonzero().max()] <= 15000.0 < CENTRES_HZ[one.nonzero().max() + 1]


def test_a_constant_error_has_its_distance() -> None:
    truth = maps()
    whole = mask()
    assert float(distance(truth + 0.5, truth, whole)) == pytest.approx((0.25 + RAYLEIGH) ** 0.5, abs=1e-4)
    assert float(absolute(truth + 0.5, truth, whole)) == pytest.approx(0.5, abs=1e-4)
    assert float(pooled(truth + 0.5, truth, whole, 6, 4)) == pytest.approx(0.5, abs=1e-3)


def test_what_is_masked_does_not_count() -> None:
    truth = maps()
    other = torch.where(mask() > 0, truth, truth + 3.0)
    assert float(absolute(other, truth, mask())) == 0.0


def test_nothing_counts_below_what_is_audible() -> None:
    silent = torch.full((2, FRAMES, BANDS), -9.5)
    assert float(absolute(silent - 3.0, silent, mask())) == 0.0


def test_pooled_distance_forgives_scatter() -> None:
    """The level of a cell counts, not which of its values is high: noise of the right power is right."""
    generator = torch.Generator().manual_seed(1)
    truth, other = (
        torch.log10(torch.empty(2, FRAMES, BANDS).exponential_(generator=generator)) for _ in range(2)
    )
    assert float(pooled(other, truth, mask(), 6, 4)) < 0.4 * float(absolute(other, truth, mask()))


def test_floor_is_that_of_the_quiet_frames() -> None:
    logs = torch.full((1, 100, BANDS), -1.0)
    logs[:, 40:60] = -6.0
    logs[:, 90:] = -10.0  # digital silence has no floor
    floor = floor_of(logs, torch.ones_like(logs), 0.1)
    torch.testing.assert_close(floor, torch.full((1, 1, BANDS), -6.0))


def test_discriminators_do_not_see_what_does_not_exist() -> None:
    truth, estimate = maps(), maps(1)
    first, level = torch.full((2, FRAMES), float(FIRST)), torch.zeros(2, 1, 1)
    seen = view(estimate, truth, level, first, mask(15000.0))
    assert seen.shape == (2, 3, FRAMES, BANDS)
    assert not seen[:, 0][:, :, torch.from_numpy(CENTRES_HZ > 15000.0)].any()
    torch.testing.assert_close(seen[:, 0, :, :FIRST], truth[..., :FIRST] * 0.5)


def test_every_discriminator_reaches_the_generator() -> None:
    torch.manual_seed(0)
    network = MapDiscriminators((WIDE_IN_BANDS, WIDE_IN_TIME, FINE))
    x = torch.randn(1, 3, 32, BANDS, requires_grad=True)
    real, fake = network(torch.randn(1, 3, 32, BANDS)), network(x)
    for part in ([out] for out in fake):
        (gradient,) = torch.autograd.grad(adversarial_loss(part), x, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert feature_loss(real, real).item() == 0.0
    assert discriminator_loss(real, fake).item() > 0.0
