"""Losses of the fast model, on its own STFT frames and only where the target has signal.

`d = log10 |Y|^2 - log10 |T|^2` at three resolutions. The finest is the log-spectral distance itself (protocol
P1); pooled powers over bins and frames judge the envelope without the Rayleigh scatter of single bins.

All are means over what counts. Where several processes share a batch, `shared` turns their counts into the
mean count, so that the mean of their losses (and gradients) is the loss of the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hifispeech.models.fast.model import power_of

POWER_FLOOR = 1e-8

Shared = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FrameLossConfig:
    """Weights of the log-spectral distance and of the pooled log-power distances (`(frames, bins)` each).

    `quantile` is what the pooled distances aim at where the power cannot be known: 0.5 is the median of what
    is plausible, more makes uncertain sounds louder. `phase` weighs the phase distances, for a model that
    predicts phases.
    """

    lsd: float = 1.0
    pools: tuple[tuple[int, int], ...] = ((1, 12), (6, 24))
    pool_weight: float = 1.0
    quantile: float = 0.5
    phase: float = 0.0


def generated_mask(cutoff_bin: Tensor, bandwidth_bin: Tensor, bins: int) -> Tensor:
    """1 where the model generates and the target has signal.

    Shape: cutoff_bin `[batch, time]`, bandwidth_bin `[batch]` to `[batch, time, bins]`.
    """
    index = torch.arange(bins, device=cutoff_bin.device)
    inside = (index >= cutoff_bin[..., None]) & (index <= bandwidth_bin[:, None, None])
    return inside.to(torch.float32)


def alone(count: Tensor) -> Tensor:
    """The count of a process that has the whole batch: its own."""
    return count


def frame_losses(
    generated: Tensor, target: Tensor, mask: Tensor, config: FrameLossConfig, shared: Shared = alone
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss and its parts.

    Shape: generated and target `[batch, time, 2, bins]`, mask `[batch, time, bins]` (see `generated_mask`).
    """
    estimate, truth = power_of(generated), power_of(target)
    difference = (torch.log10(estimate + POWER_FLOOR) - torch.log10(truth + POWER_FLOOR)) * mask
    count = mask.sum(-1)
    per_frame = torch.sqrt((difference * difference).sum(-1) / count.clamp(min=1.0) + 1e-4)
    valid = (count >= 8).to(per_frame.dtype)
    lsd = (per_frame * valid).sum() / shared(valid.sum()).clamp(min=1.0)
    parts = {"lsd_high": lsd}
    total = config.lsd * lsd
    for frames, bins in config.pools:
        distance = pooled_distance(estimate, truth, mask, (frames, bins), config.quantile, shared)
        parts[f"pool_{frames}x{bins}"] = distance
        total = total + config.pool_weight * distance
    if config.phase:
        parts["phase"] = phase_distance(generated, target, mask, shared)
        total = total + config.phase * parts["phase"]
    return total, parts


def phase_distance(generated: Tensor, target: Tensor, mask: Tensor, shared: Shared = alone) -> Tensor:
    """Anti-wrapped distances of phase, group delay and instantaneous frequency, summed (AP-BWE, eq. 9 to 11).

    Shape: generated and target `[batch, time, 2, bins]`, mask `[batch, time, bins]`.
    """

    def angle(x: Tensor) -> Tensor:
        power = power_of(x).detach()
        counts = (mask > 0) & (power > 1e-16)  # atan2 has no gradient at zero, and a wild one near it
        unit = x * torch.rsqrt(power.clamp(min=1e-16))[:, :, None]
        return torch.atan2(torch.where(counts, unit[:, :, 1], 0.0), torch.where(counts, unit[:, :, 0], 1.0))

    error = (angle(generated) - angle(target)) * mask
    total = error.new_zeros(())
    for difference in (error, error.diff(dim=2), error.diff(dim=1)):
        wrapped = (difference - 2 * torch.pi * torch.round(difference / (2 * torch.pi))).abs()
        total = total + wrapped.sum() / shared(mask.sum()).clamp(min=1.0)
    return total


def pooled_distance(
    estimate: Tensor,
    truth: Tensor,
    mask: Tensor,
    cell: tuple[int, int],
    quantile: float = 0.5,
    shared: Shared = alone,
) -> Tensor:
    """Mean absolute log10 ratio of powers pooled over cells of `(frames, bins)`, estimates below the truth
    weighted by `2 * quantile`, those above by the rest to 2.

    Cells that are masked by half or more are left out. Shape: `[batch, time, bins]` each.
    """
    frames, bins = cell

    def pool(x: Tensor) -> Tensor:
        x = x[:, : x.shape[1] // frames * frames, : x.shape[2] // bins * bins]
        return x.unflatten(2, (-1, bins)).mean(3).unflatten(1, (-1, frames)).mean(2)

    share = pool(mask)
    whole = (share > 0.5).to(share.dtype)
    share = share.clamp(min=1e-6)
    log_estimate = torch.log10(pool(estimate * mask) / share + POWER_FLOOR)
    log_truth = torch.log10(pool(truth * mask) / share + POWER_FLOOR)
    over = log_estimate - log_truth
    distance = torch.maximum(2.0 * (1.0 - quantile) * over, -2.0 * quantile * over)
    return (distance * whole).sum() / shared(whole.sum()).clamp(min=1.0)
