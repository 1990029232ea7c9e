"""Closed forms of the frame losses, and that a batch may be shared between processes."""

import math

import pytest
import torch
from torch import Tensor

from hifispeech.train.losses.frames import (
    FrameLossConfig,
    frame_losses,
    generated_mask,
    phase_distance,
    pooled_distance,
)

CONFIG = FrameLossConfig()


def frames(batch: int = 1, time: int = 12, bins: int = 96, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, 2, bins, generator=generator) + 3.0


def test_mask_is_the_band_between_cutoff_and_bandwidth() -> None:
    mask = generated_mask(torch.tensor([[3.0, 5.0]]), torch.tensor([6.0]), 8)
    assert mask.tolist() == [[[0, 0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1, 0]]]


def test_tenfold_amplitude_is_two_decades_of_power() -> None:
    target = frames()
    total, parts = frame_losses(10 * target, target, torch.ones(1, 12, 96), CONFIG)
    assert float(parts["lsd_high"]) == pytest.approx(math.sqrt(4.0 + 1e-4), rel=1e-4)
    assert float(parts["pool_1x12"]) == pytest.approx(2.0, rel=1e-5)
    assert float(total) == pytest.approx(6.0, rel=1e-3)


def test_equal_frames_cost_nothing_but_the_guard_of_the_root() -> None:
    target = frames()
    total, _ = frame_losses(target, target, torch.ones(1, 12, 96), CONFIG)
    assert float(total) == pytest.approx(0.01, rel=1e-4)


def test_masked_bins_do_not_count() -> None:
    target, mask = frames(), torch.ones(1, 12, 96)
    mask[..., 48:] = 0
    broken = target.clone()
    broken[..., 48:] = 1e3
    one, two = (frame_losses(x, target, mask, CONFIG)[0] for x in (target, broken))
    assert float(one) == pytest.approx(float(two))


def test_everything_masked_is_zero_with_a_gradient() -> None:
    generated = frames().requires_grad_()
    total, _ = frame_losses(generated, frames(seed=1), torch.zeros(1, 12, 96), CONFIG)
    total.backward()
    assert float(total.detach()) == 0.0
    assert generated.grad is not None and not generated.grad.any()


def test_pooling_ignores_the_scatter_of_single_bins() -> None:
    """Powers 1 and 3 alternating against 2 throughout: the cells agree, the bins do not."""
    estimate = torch.tensor([1.0, 3.0]).repeat(48).expand(1, 12, 96)
    distance = pooled_distance(estimate, torch.full((1, 12, 96), 2.0), torch.ones(1, 12, 96), (6, 24))
    assert float(distance) == pytest.approx(0.0, abs=1e-6)


def test_quantile_is_where_the_pooled_distance_is_least() -> None:
    """Over truths from 0 to 1 (log10), the best constant estimate lies at the quantile."""
    truth = 10 ** torch.linspace(0, 1, 101)[:, None, None].expand(-1, 6, 24)
    mask = torch.ones_like(truth)
    guesses = torch.linspace(0, 1, 101)
    for quantile in (0.5, 0.7):
        made = (truth * 0 + 10**g for g in guesses)
        costs = [pooled_distance(estimate, truth, mask, (6, 24), quantile) for estimate in made]
        assert float(guesses[int(torch.stack(costs).argmin())]) == pytest.approx(quantile, abs=0.011)


def test_silent_frames_have_finite_gradients() -> None:
    generated = torch.zeros(1, 12, 2, 96, requires_grad=True)
    frame_losses(generated, torch.zeros(1, 12, 2, 96), torch.ones(1, 12, 96), CONFIG)[0].backward()
    assert generated.grad is not None and bool(torch.isfinite(generated.grad).all())


def test_halves_with_shared_counts_make_the_whole() -> None:
    """Different numbers of counted frames in both halves: the mean of the shared losses is the whole's."""
    generated, target = frames(2), frames(2, seed=1)
    mask = torch.ones(2, 12, 96)
    mask[1, :9] = 0
    whole, _ = frame_losses(generated, target, mask, CONFIG)
    counts: list[list[Tensor]] = [[], []]

    def noted(half: int) -> Tensor:
        def note(count: Tensor) -> Tensor:
            counts[half].append(count)
            return count

        rows = slice(half, half + 1)
        return frame_losses(generated[rows], target[rows], mask[rows], CONFIG, note)[0]

    alone = [noted(0), noted(1)]
    means = [iter([(a + b) / 2 for a, b in zip(*counts, strict=True)]) for _ in range(2)]
    shared = [
        frame_losses(
            generated[i : i + 1],
            target[i : i + 1],
            mask[i : i + 1],
            CONFIG,
            lambda _, mean=means[i]: next(mean),
        )[0]
        for i in range(2)
    ]
    assert float(sum(shared)) / 2 == pytest.approx(float(whole), rel=1e-5)
    assert float(sum(alone)) / 2 != pytest.approx(float(whole), rel=1e-3)


def test_phase_distance_in_closed_form() -> None:
    """The same frames have none; all bins turned by half a circle have pi, and nothing between neighbours."""
    frames = torch.randn(2, 5, 2, 9)
    mask = torch.ones(2, 5, 9)
    assert float(phase_distance(frames, frames, mask)) == 0
    assert float(phase_distance(-frames, frames, mask)) == pytest.approx(torch.pi, abs=1e-5)
