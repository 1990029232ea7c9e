"""The default model: recurrences in closed form, exact state, equivariance, silence, size; gradients reach
everything.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hifispeech.models.fast.config import FastConfig
from hifispeech.models.fast.model import FastModel, power_of, triangles
from hifispeech.models.layers import Averager, decay_of

TINY = FastConfig(channels=16, blocks=2, memory_every=2, analysis_bands=24, gain_bands=12)


def tiny_model(excitation: str = "mixed") -> FastModel:
    torch.manual_seed(0)
    config = FastConfig(
        channels=16,
        blocks=2,
        analysis_bands=24,
        gain_bands=12,
        excitation=excitation,  # type: ignore[arg-type]
    )
    return FastModel(config).eval()


LATE = TINY.look_ahead


def frames(time: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Spectrum and cutoff of `time` frames and the look-ahead after them, and noise."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.randn(batch, time + LATE, 2, 1025, generator=generator)
    noise = torch.randn(1, time, 2, 1025, generator=generator) * 0.7
    return spectrum, noise, torch.full((batch, time + LATE), 170.0)


def test_averager_is_the_recursion() -> None:
    values, state = torch.randn(2, 9, 3, 4), torch.randn(2, 3, 4)
    decay = torch.tensor([0.0001, 0.5, 0.99])
    found, last = Averager.make(decay.log(), 9)(values, state)
    y = state
    for t in range(9):
        y = decay[:, None] * y + (1 - decay[:, None]) * values[:, t]
        torch.testing.assert_close(found[:, t], y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, y, atol=1e-5, rtol=1e-5)


def test_time_constant_is_where_the_response_falls_to_1_over_e() -> None:
    assert decay_of(20.0) ** 20 == pytest.approx(1 / 2.718281828, rel=1e-6)


def test_triangles_interpolate() -> None:
    table = triangles(FastConfig(), 96)
    torch.testing.assert_close(table.sum(0), torch.ones(1025))
    assert (table >= 0).all()


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(deadline=None, max_examples=20)
def test_chunks_with_state_equal_the_whole(sizes: list[int]) -> None:
    model = tiny_model()
    spectrum, noise, cutoff = frames(sum(sizes), batch=2)
    with torch.no_grad():
        whole = model(spectrum, noise, cutoff, *model.initial_state(2))
        state, parts, start = model.initial_state(2), [], 0
        for size in sizes:
            part, heard = slice(start, start + size), slice(start, start + size + LATE)
            generated, *state = model(spectrum[:, heard], noise[:, part], cutoff[:, heard], *state)
            parts.append(generated)
            start += size
    torch.testing.assert_close(torch.cat(parts, 1), whole[0], atol=1e-4, rtol=1e-4)
    for mine, theirs in zip(state, whole[1:], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gain", [1e-3, 0.1, 1.0])
def test_gain_equivariance(gain: float) -> None:
    model = tiny_model()
    spectrum, noise, cutoff = frames(30)
    with torch.no_grad():
        plain = model(spectrum, noise, cutoff, *model.initial_state())[0]
        scaled = model(spectrum * gain, noise, cutoff, *model.initial_state())[0]
    error = (scaled / gain - plain).square().sum() / plain.square().sum()
    assert 10 * torch.log10(error + 1e-30) < -60


def test_silence_gives_silence() -> None:
    model = tiny_model()
    spectrum, noise, cutoff = frames(20)
    with torch.no_grad():
        generated, *_ = model(torch.zeros_like(spectrum), noise, cutoff, *model.initial_state())
    assert torch.isfinite(generated).all()
    assert generated.abs().max() < 1e-6


def test_offset_and_hum_are_not_heard() -> None:
    """A constant and 60 Hz hum in the input do not change what is generated."""
    model = tiny_model()
    spectrum, noise, cutoff = frames(20)
    disturbed = spectrum.clone()
    disturbed[..., :5] += 1000.0
    with torch.no_grad():
        a, b = (model(x, noise, cutoff, *model.initial_state())[0] for x in (spectrum, disturbed))
    torch.testing.assert_close(a[..., 170:], b[..., 170:], rtol=1e-3, atol=1e-4)


def test_look_ahead_is_as_stated() -> None:
    """Output frame t depends on input frames up to t + `look_ahead`."""
    model = tiny_model()
    spectrum, noise, cutoff = frames(24)
    changed = spectrum.clone()
    changed[:, 12:] *= 3.0
    with torch.no_grad():
        a = model(spectrum, noise, cutoff, *model.initial_state())[0]
        b = model(changed, noise, cutoff, *model.initial_state())[0]
    assert (a - b)[:, : 12 - LATE].abs().max() == 0
    assert (a - b)[:, 12 - LATE].abs().max() > 0
    assert LATE <= 4


@pytest.mark.parametrize("cutoff_bin", [60, 170, 1000])
def test_bins_that_do_not_matter_can_be_left_out(cutoff_bin: int) -> None:
    """With one cutoff, the bins near and below it in, and those above it out, are enough."""
    model = tiny_model()
    spectrum, noise, _ = frames(8)
    cutoff = torch.full((1, 1), float(cutoff_bin))
    low = min(cutoff_bin + model.config.pass_bins, 1025)
    with torch.no_grad():
        whole, *state = model(spectrum, noise, cutoff.expand(1, 8 + LATE), *model.initial_state())
        part, *own = model(spectrum[..., :low], noise[..., cutoff_bin:], cutoff, *model.initial_state())
    torch.testing.assert_close(part, whole[..., cutoff_bin:], atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(own, state, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_lies_above_the_cutoff_does_not_reach_the_features() -> None:
    model = tiny_model()
    spectrum, noise, cutoff = frames(10)
    changed = spectrum.clone()
    changed[..., 170 + 40 :] = 0.0
    with torch.no_grad():
        a, b = (model(x, noise, cutoff, *model.initial_state())[0] for x in (spectrum, changed))
    torch.testing.assert_close(a[..., 300:], b[..., 300:])


def test_size() -> None:
    parameters = sum(p.numel() for p in FastModel().parameters())
    assert parameters <= 6_000_000


@pytest.mark.parametrize("excitation", ["mixed", "predicted"])
def test_gradients_reach_every_parameter(excitation: str) -> None:
    model = tiny_model(excitation)
    spectrum, noise, cutoff = frames(12)
    generated = model(spectrum, noise, cutoff, *model.initial_state())[0]
    (power_of(generated).clamp(min=1e-8).log().mean() + generated.sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
