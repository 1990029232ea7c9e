"""Simulation on band powers: pure, and the same microphone for input and target."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hifispeech.audio.bands import BANDS  # noqa: E402
from hifispeech.train.simulate_powers import PowerSimulationConfig, PowerSimulator  # noqa: E402

OFF = PowerSimulationConfig(
    denoise=0.0, equalise=0.0, floor=0.0, pause=0.0, soft_talker=0.0, input_noise=0.0, coding_noise=0.0,
    telephone=0.0, switch=0.0,
)  # fmt: skip


def logs(count: int = 4, frames: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(-2, 0.5, (count, frames, BANDS)).astype(np.float32)


def simulate(config: PowerSimulationConfig, seed: int = 1):
    return PowerSimulator(config)(logs(), np.full(4, 20000.0), np.random.default_rng(seed))


def test_batches_are_pure() -> None:
    a, b = simulate(PowerSimulationConfig()), simulate(PowerSimulationConfig())
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y)


def test_nothing_but_a_gain_when_all_is_off() -> None:
    batch = simulate(OFF)
    moved = batch.target - torch.from_numpy(logs())
    assert moved.std(dim=(1, 2)).max() < 1e-4
    torch.testing.assert_close(batch.seen, batch.target)


def test_the_microphone_is_heard_in_input_and_target() -> None:
    batch = simulate(replace(OFF, equalise=1.0))
    torch.testing.assert_close(batch.seen, batch.target)
    assert (batch.target - torch.from_numpy(logs())).std(dim=1).max() < 1e-4, "constant in time"


def test_coding_noise_is_heard_in_the_input_only() -> None:
    quiet, noisy = simulate(OFF), simulate(replace(OFF, coding_noise=1.0))
    torch.testing.assert_close(quiet.target, noisy.target)
    assert (noisy.seen >= noisy.target - 1e-4).all() and (noisy.seen - noisy.target).max() > 1e-3


def test_a_digital_pause_is_silent() -> None:
    batch = simulate(replace(OFF, pause=1.0, digital_pause=1.0, floor=1.0))
    assert ((batch.target == -10.0).all(-1)).any(1).all()


def test_cutoffs_are_in_range_and_constant() -> None:
    batch = simulate(OFF)
    assert (batch.first_band == batch.first_band[:, :1]).all()
    assert float(batch.first_band.min()) >= 10 and float(batch.first_band.max()) < BANDS
