"""How the offline model learns: exact resume, isolated steps, and cached band powers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hifispeech.audio.bands import BANDS, recording_band_powers  # noqa: E402
from hifispeech.datasets.band_powers import BandPowers, cache_band_powers  # noqa: E402
from hifispeech.datasets.shards import CLIPS_FILE, Shards  # noqa: E402
from hifispeech.models.offline.config import OfflineConfig  # noqa: E402
from hifispeech.train.config import OfflineAdversarialConfig, OfflineTrainConfig, OptimiserConfig  # noqa: E402
from hifispeech.train.run import Machine, make_fabric, make_task  # noqa: E402
from hifispeech.train.trainer import Limits, Trainer  # noqa: E402

TINY = OfflineConfig(channels=16, blocks=2, dilations=(1, 2), heads=2, noise=4)
OPTIMISER = OptimiserConfig(learning_rate=1e-3, warm_up_steps=1, total_steps=6)
REGRESSION = OfflineTrainConfig(
    model=TINY, batch_size=2, segment_frames=64, precision="32-true", optimiser=OPTIMISER
)
ADVERSARIAL = OfflineAdversarialConfig(
    model=TINY,
    batch_size=2,
    segment_frames=64,
    precision="32-true",
    optimiser=OPTIMISER,
    discriminator_warm_up=2,
)


def trained(
    config: OfflineTrainConfig, data: Path, folder: Path, steps: int, resume: bool = False
) -> Trainer:
    trainer = Trainer(make_task(config, data), folder, make_fabric(Machine(accelerator="cpu")))
    if resume:
        trainer.resume(folder / "last.pt")
    trainer.fit(Limits(max_steps=steps))
    return trainer


def weights(trainer: Trainer) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in trainer.task.networks["model"].parameters()]).numpy()


def test_cached_powers_are_those_of_the_audio(shards: Path) -> None:
    powers = BandPowers(shards, "train")
    recordings = Shards(shards, "train")
    for clip, start in zip(recordings.clips, powers.starts, strict=True):
        own = recording_band_powers(recordings.read(clip)).clip(-10.0)
        np.testing.assert_allclose(powers.powers[start : start + len(own)], own, atol=0.01)


def test_an_incomplete_cache_is_made_anew(shards: Path) -> None:
    path = cache_band_powers(shards)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert cache_band_powers(shards).read_bytes() == whole
    assert not list(shards.glob(".*")), "nothing half-written is left"


def test_draws_are_pure_and_of_one_speaker(shards: Path) -> None:
    powers = BandPowers(shards, "train")
    first, hertz = powers.draw(1, 5, 300)
    again, _ = powers.draw(1, 5, 300)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (300, BANDS) and hertz == 24000.0


def test_a_source_gets_no_more_than_its_fraction(shards: Path, tmp_path: Path) -> None:
    clips = json.loads((shards / CLIPS_FILE).read_text())
    folder = tmp_path / "set"
    shutil.copytree(shards, folder)
    for clip in clips:
        clip["source"] = f"of {clip['speaker']}"
    (folder / CLIPS_FILE).write_text(json.dumps(clips))
    powers = BandPowers(folder, "train", source_fractions={"of a": 0.1})
    np.testing.assert_allclose(powers.weights, [0.1, 0.9])
    assert BandPowers(shards, "train", source_fractions={"synthetic": 0.1}).weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("config", [REGRESSION, ADVERSARIAL], ids=["regression", "adversarial"])
def test_resume_goes_on_exactly(shards: Path, tmp_path: Path, config: OfflineTrainConfig) -> None:
    whole = weights(trained(config, shards, tmp_path / "whole", 6))
    trained(config, shards, tmp_path / "parts", 3)
    np.testing.assert_array_equal(weights(trained(config, shards, tmp_path / "parts", 6, resume=True)), whole)


def test_regression_learns(shards: Path, tmp_path: Path) -> None:
    config = OfflineTrainConfig(
        model=TINY,
        batch_size=2,
        segment_frames=64,
        precision="32-true",
        optimiser=OptimiserConfig(learning_rate=3e-3, warm_up_steps=5, total_steps=60),
    )
    task = make_task(config, shards)
    batch = task.batch(1000, 0, 1)
    before = float(task.loss(task.networks["model"], batch)[0].detach())  # type: ignore[attr-defined]
    trainer = Trainer(task, tmp_path, make_fabric(Machine(accelerator="cpu")))
    trainer.fit(Limits(max_steps=60))
    after = float(task.loss(task.networks["model"], batch)[0].detach())  # type: ignore[attr-defined]
    assert after < 0.8 * before


def test_steps_are_isolated(shards: Path, tmp_path: Path) -> None:
    """The generator's step leaves no gradient in the discriminators; warm-up leaves the generator alone."""
    task = make_task(ADVERSARIAL, shards)
    trainer = Trainer(task, tmp_path, make_fabric(Machine(accelerator="cpu")))
    trainer.frozen_until = 1
    before = weights(trainer)
    trainer.train_step([task.batch(0, 0, 1)])
    np.testing.assert_array_equal(weights(trainer), before)
    trainer.frozen_until, trainer.step = 0, 1
    adversary = task.networks["discriminators"]
    held = [p.detach().clone() for p in adversary.parameters()]
    trainer.train_step([task.batch(1, 0, 1)])
    assert np.abs(weights(trainer) - before).max() > 0
    assert any(not torch.equal(a, b) for a, b in zip(held, adversary.parameters(), strict=True))
    steps = [p.grad.clone() for p in adversary.parameters() if p.grad is not None]
    assert steps, "the discriminators' own step"


def test_validation_judges_held_out_speakers(shards: Path) -> None:
    task = make_task(REGRESSION, shards)
    found = task.validate(task.networks["model"])
    assert found is not None and np.isfinite(found.score)
    assert {"distance_3.7k", "contrast_3.7k", "floor_3.7k"} <= set(found.scores)
