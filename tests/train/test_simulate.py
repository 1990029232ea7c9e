"""The simulation: pure, divisible among processes, and each stage does what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hifispeech.models.fast.model import power_of
from hifispeech.train.simulate import Batch, RowDraws, SimulateConfig, Simulator, noise_table, planes

PLAIN = SimulateConfig(denoise=0.0, equalise=0.0, floor=0.0, input_noise=0.0, switch=0.0, codec=0.0)
SAMPLES = 512 * 23


def audio(batch: int = 4) -> np.ndarray:
    return (np.random.default_rng(5).standard_normal((batch, SAMPLES)) * 0.05).astype(np.float32)


def simulate(config: SimulateConfig, x: np.ndarray, seed: int = 1, **options: int) -> Batch:
    return Simulator(config)(x, np.full(len(x), 24000.0), np.random.default_rng(seed), **options)


def test_same_seed_same_batch() -> None:
    for one, two in zip(
        simulate(SimulateConfig(), audio()), simulate(SimulateConfig(), audio()), strict=True
    ):
        assert torch.equal(one, two)


@pytest.mark.parametrize("codec", [0.0, 0.5])
def test_parts_of_a_batch_are_the_batch(codec: float) -> None:
    """Two processes with half a batch each see what one process with all of it sees."""
    config = replace(SimulateConfig(), codec=codec)
    whole = simulate(config, audio())
    halves = [simulate(config, audio()[i : i + 2], total=4, first=i) for i in (0, 2)]
    for name, value in whole._asdict().items():
        joined = torch.cat([getattr(half, name) for half in halves])
        torch.testing.assert_close(joined, value, rtol=1e-5, atol=1e-7, msg=name)


def test_input_is_the_target_below_the_cutoff_and_empty_far_above() -> None:
    batch = simulate(replace(PLAIN, cutoff_low=1.0, cutoff_high=1.0), audio(12))
    low, target = power_of(batch.spectrum), power_of(batch.target)
    for i in range(12):
        edge = int(batch.cutoff_bin[i, 0])
        ratio = low[i, :, :edge].sum() / target[i, :, :edge].sum()
        assert 0.7 < float(ratio) <= 1.0001
    above = low[0, :, min(1024, int(batch.cutoff_bin[0, 0] * 2.5)) :]
    assert float(above.sum()) < 0.01 * float(target[0].sum())


def test_levels_are_those_of_the_config() -> None:
    config = replace(PLAIN, level_low_db=-30.0, level_high_db=-30.0)
    power = power_of(simulate(config, audio()).target)
    rms_db = 10 * torch.log10(power[:, 4:-4].mean((1, 2)) / 768.0)  # window energy 768 = 3/8 of 2048
    assert torch.allclose(rms_db, torch.tensor(-30.0), atol=0.3)


def test_switched_filters_change_the_cutoff_once() -> None:
    cutoff = simulate(replace(PLAIN, switch=1.0), audio(6)).cutoff_bin
    changes = (cutoff.diff(dim=1) != 0).sum(1)
    assert int(changes.max()) == 1 and int(changes.sum()) >= 4


def test_bandwidth_is_told_in_bins() -> None:
    config, x = PLAIN, audio(2)
    batch = Simulator(config)(x, np.array([12000.0, 24000.0]), np.random.default_rng(0))
    assert batch.bandwidth_bin.tolist() == pytest.approx([512.0, 23900 / 48000 * 2048])


def test_added_floor_reaches_input_and_target_alike() -> None:
    config = replace(PLAIN, floor=1.0, floor_low=-5.0, floor_high=-5.0, floor_tilt_db=0.0)
    quiet = replace(config, level_low_db=-200.0, level_high_db=-200.0)
    target = power_of(simulate(quiet, audio()).target)
    assert torch.log10(target.mean((1, 2))).tolist() == pytest.approx([-5.0] * 4, abs=0.1)


def test_noise_table_has_unit_power() -> None:
    assert float(power_of(planes(noise_table(400, 1025, 2048, 512, seed=1))).mean()) == pytest.approx(
        1.0, abs=0.01
    )


def test_row_draws_are_rows_of_the_whole() -> None:
    def draw(rows: slice) -> list[np.ndarray]:
        draws = RowDraws(np.random.default_rng(3), 6, rows)
        return [
            draws.uniform(1.0, 2.0, 3),
            draws.normal(2.0),
            draws.chance(0.5),
            draws.integers(9),
            draws.signs(1, 1),
        ]

    for all_rows, some in zip(draw(slice(0, 6)), draw(slice(2, 4)), strict=True):
        assert np.array_equal(all_rows[2:4], some)
