"""The adversarial steps as the trainer runs them, and the release's mistakes that concern training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from hifispeech.audio.spectral import stft
from hifispeech.datasets.shards import Shards
from hifispeech.models.artefact import config_to_dict
from hifispeech.models.hifisr import HiFiSR
from hifispeech.train.checkpoint import LAST, find_weights
from hifispeech.train.config import FastGanTrainConfig, FastTrainConfig, HiFiSRTrainConfig, parse
from hifispeech.train.tasks.fast import FastTask
from hifispeech.train.tasks.fast_gan import FastGanTask
from hifispeech.train.tasks.hifisr import ADVERSARY, HiFiSRTask
from hifispeech.train.trainer import Limits, Trainer


@pytest.fixture
def trainer(gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric) -> Trainer:
    return make(gan_config, shards, tmp_path, fabric)


def make(config: HiFiSRTrainConfig, shards: Path, folder: Path, fabric: Fabric) -> Trainer:
    return Trainer(HiFiSRTask(config, Shards(shards, "train"), None), folder, fabric)


def copies(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def changed(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


def one_step(trainer: Trainer, count: int = 1) -> dict[str, float]:
    group = [trainer.task.batch(i, 0, 1) for i in range(count)]
    parts = trainer.train_step(group)
    trainer.step += 1
    return {name: float(value) for name, value in parts.items()}


def test_every_configured_discriminator_is_in_the_generators_loss(trainer: Trainer) -> None:
    """Mistake 1 of the release: its multi-band discriminator is trained and never heard."""
    parts = one_step(trainer)
    for name in ("mpd", "msd", "mbd"):
        for kind in ("discriminator", "adversarial", "feature"):
            assert parts[f"{kind}/{name}"] > 0
    assert {"mel", "loss", "discriminator/loss", "gradient/model", f"gradient/{ADVERSARY}"} <= parts.keys()


def test_target_and_prediction_reach_the_loss_in_full_band(trainer: Trainer) -> None:
    """Mistake 2: a target mel that stops at 8 kHz. A high tone in either signal costs the same."""
    task = trainer.task
    assert isinstance(task, HiFiSRTask)
    time = np.arange(24000) / 48000
    high = torch.from_numpy(0.1 * np.sin(2 * np.pi * 15000 * time)).float()[None, None]
    silence = torch.zeros_like(high)
    costs = [float(task.criterion(None, *pair)[0]) for pair in ((high, silence), (silence, high))]
    assert costs[0] == pytest.approx(costs[1]) and costs[0] > 0.1


def test_generator_step_leaves_no_gradient_in_the_discriminators(trainer: Trainer) -> None:
    """Mistake 3: after the whole step the discriminators hold the gradients of their own step."""
    seen: dict[str, list[torch.Tensor]] = {}
    update = trainer.update
    adversary, model = trainer.task.networks[ADVERSARY], trainer.task.networks["model"]

    def watched(name: str, *arguments: Any) -> Any:
        before = copies(model) if name == ADVERSARY else copies(adversary)
        result = update(name, *arguments)
        if name == ADVERSARY:
            assert not changed(model, before)
            seen["own"] = [p.grad.clone() for p in adversary.parameters() if p.grad is not None]
        else:
            assert not changed(adversary, before)
        return result

    trainer.update = watched  # type: ignore[method-assign]
    one_step(trainer)
    after = [p.grad for p in adversary.parameters() if p.grad is not None]
    assert len(after) == len(seen["own"]) == len(list(adversary.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(after, seen["own"], strict=True))
    assert all(p.requires_grad for p in adversary.parameters()) and adversary.training


def test_adversary_joins_later(
    gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    trainer = make(replace(gan_config, adversarial_from=1), shards, tmp_path, fabric)
    first, second = one_step(trainer), one_step(trainer)
    assert "adversarial/mpd" not in first and "mel" in first
    assert "adversarial/mpd" in second


def test_no_adversarial_loss_no_discriminators(
    gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    loss = replace(gan_config.loss, adversarial=0.0, feature=0.0)
    trainer = make(replace(gan_config, loss=loss), shards, tmp_path, fabric)
    assert set(trainer.networks) == {"model"}
    assert set(one_step(trainer)) == {"loss", "mel", "gradient/model"}


def test_accumulated_steps_run(trainer: Trainer) -> None:
    before = copies(trainer.task.networks["model"])
    assert one_step(trainer, count=2)["adversarial/mbd"] > 0
    assert changed(trainer.task.networks["model"], before)


def test_pairs_are_aligned_and_lack_the_upper_band(gan_config: HiFiSRTrainConfig, shards: Path) -> None:
    config = replace(gan_config, segment_samples=24576)
    task = HiFiSRTask(
        replace(config, low_rate=replace(config.low_rate, max_rate=16000)), Shards(shards, "train"), None
    )
    for item in range(4):
        low, target = task.pair(item)
        assert low.shape == target.shape == (24576,) and low.dtype == np.float32
        powers = [np.abs(stft(x)[2:-2]) ** 2 for x in (low, target)]
        assert powers[0][:, 400:].sum() < 1e-3 * powers[1][:, 400:].sum()
        product = np.fft.rfft(low, 65536) * np.conj(np.fft.rfft(target, 65536))
        lag = int(np.argmax(np.fft.irfft(product)))
        assert min(lag, 65536 - lag) <= 12  # a quarter of a millisecond
        assert np.array_equal(task.pair(item)[0], low)


def test_shares_of_a_batch_are_the_batch(gan_config: HiFiSRTrainConfig, shards: Path) -> None:
    task = HiFiSRTask(gan_config, Shards(shards, "train"), None)
    whole, halves = task.batch(3), [task.batch(3, rank, 2) for rank in (0, 1)]
    assert torch.equal(whole.low, torch.cat([half.low for half in halves]))
    assert torch.equal(whole.target, torch.cat([half.target for half in halves]))


def test_validation_keeps_the_low_band(gan_config: HiFiSRTrainConfig, shards: Path) -> None:
    data = Shards(shards, "valid")
    audio = data.read(data.clips[0])
    upscaled = HiFiSRTask.upscale(HiFiSR(gan_config.model).eval().requires_grad_(False), audio, 16000)
    assert upscaled.shape == audio.shape
    kept, truth = stft(upscaled)[4:-4, :300], stft(audio)[4:-4, :300]
    assert np.abs(kept - truth).max() < 1e-2 * np.abs(truth).max()


def test_adversarial_run_of_the_default_model(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    """Starts from a plain run, waits for its discriminators, resumes exactly, exports as a frame model."""
    plain = Trainer(FastTask(fast_config, Shards(shards, "train"), None), tmp_path / "plain", fabric)
    plain.fit(Limits(max_steps=1))
    values = {**config_to_dict(fast_config), "task": "fast_gan", "segment_frames": 24, "wave_frames": 12}
    values |= {"discriminators": {"mpd": None, "msd": None, "mbd": {"windows": [256], "channels": 2}}}
    config = parse({**values, "discriminator_warm_up": 1})
    assert isinstance(config, FastGanTrainConfig)

    def start(folder: str) -> Trainer:
        return Trainer(FastGanTask(config, Shards(shards, "train"), None), tmp_path / folder, fabric)

    whole, parts = start("whole"), start("parts")
    for trainer, steps in ((whole, 3), (parts, 2)):
        trainer.start_from(find_weights(tmp_path / "plain" / LAST))
        trainer.fit(Limits(max_steps=steps))
    rest = start("parts")
    rest.resume(tmp_path / "parts" / LAST)
    rest.fit(Limits(max_steps=3))
    for name, network in whole.networks.items():
        ours, theirs = network.plain.state_dict(), rest.networks[name].plain.state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert find_weights(tmp_path / "whole" / LAST).kind == "fast"
