"""The training loop: exact resume, limits, signals, divergence, averages, checkpoints. For both tasks."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor

from hifispeech.datasets.shards import Shards
from hifispeech.errors import HifispeechError, ModelError
from hifispeech.models.artefact import config_to_dict
from hifispeech.models.hifisr import HiFiSR, save_hifisr
from hifispeech.train.checkpoint import BEST, LAST, find_weights
from hifispeech.train.config import FastTrainConfig, HiFiSRTrainConfig, OptimiserConfig
from hifispeech.train.monitor import LOG_FILE, Monitor, spectrogram_picture
from hifispeech.train.tasks.fast import FastTask
from hifispeech.train.tasks.hifisr import ADVERSARY, HiFiSRTask
from hifispeech.train.trainer import DivergedError, Limits, Trainer, learning_rate

Config = FastTrainConfig | HiFiSRTrainConfig


def make(
    config: Config, shards: Path, folder: Path, fabric: Fabric, valid: bool = False, **options: Any
) -> Trainer:
    train, held = Shards(shards, "train"), Shards(shards, "valid") if valid else None
    if isinstance(config, FastTrainConfig):
        return Trainer(FastTask(config, train, held), folder, fabric, **options)
    return Trainer(HiFiSRTask(config, train, held), folder, fabric, **options)


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """All numbers of a trainer: weights, average, optimiser moments of each network."""
    found = {f"averaged.{k}": v for k, v in trainer.averaged.items()}
    for name, network in trainer.networks.items():
        found |= {f"{name}.{k}": v for k, v in network.plain.state_dict().items()}
        for i, state in network.optimiser.state_dict()["state"].items():
            found |= {f"{name}.{i}.{k}": v for k, v in state.items()}
    return found


def assert_same(a: Trainer, b: Trainer) -> None:
    ours, theirs = everything(a), everything(b)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.fixture(params=["fast", "hifisr"])
def config(
    request: pytest.FixtureRequest, fast_config: FastTrainConfig, gan_config: HiFiSRTrainConfig
) -> Config:
    return fast_config if request.param == "fast" else gan_config


def test_resume_is_exact(config: Config, shards: Path, tmp_path: Path, fabric: Fabric) -> None:
    """2 + resume + 2 steps are 4 steps bit for bit; dropout, discriminators and both optimisers included."""
    whole = make(config, shards, tmp_path / "whole", fabric)
    whole.fit(Limits(max_steps=4))
    make(config, shards, tmp_path / "parts", fabric).fit(Limits(max_steps=2))
    torch.manual_seed(99)
    rest = make(config, shards, tmp_path / "parts", fabric)
    rest.resume(tmp_path / "parts" / LAST)
    assert rest.step == 2
    rest.fit(Limits(max_steps=4))
    assert_same(whole, rest)


def test_worker_processes_change_nothing(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    trainers = [make(fast_config, shards, tmp_path / str(n), fabric, workers=n) for n in (0, 2)]
    for trainer in trainers:
        trainer.fit(Limits(max_steps=3))
    assert_same(*trainers)


def test_accumulation_equals_a_larger_batch(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    """Two batches of the same content: the mean gradient is that of one."""
    trainer = make(fast_config, shards, tmp_path, fabric)
    task = trainer.task
    assert isinstance(task, FastTask)
    batch = task.batch(0)
    gradients = []
    for group in ([batch], [batch, batch]):
        trainer.networks["model"].optimiser.step = lambda: None
        trainer.update("model", task.loss, group)
        gradients.append([p.grad.clone() for p in task.networks["model"].parameters() if p.grad is not None])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_learning_rate() -> None:
    config = OptimiserConfig(learning_rate=1.0, warm_up_steps=10, total_steps=110, final_share=0.1)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 60) == pytest.approx(0.55)
    assert learning_rate(config, 110) == learning_rate(config, 1000) == pytest.approx(0.1)
    assert learning_rate(config, 110, base=5.0) == pytest.approx(0.5)


def test_encoder_has_its_own_rate(gan_config: HiFiSRTrainConfig, shards: Path) -> None:
    groups = HiFiSRTask(gan_config, Shards(shards, "train"), None).optimiser("model").param_groups
    assert [group["lr"] for group in groups] == [1e-4, 5e-4]
    assert all(group["betas"] == (0.8, 0.99) for group in groups)


def test_average_follows_the_weights(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    """At step 0 a tenth of the start remains: decay (1 + 0) / (10 + 0)."""
    trainer = make(fast_config, shards, tmp_path, fabric)
    with torch.no_grad():
        for parameter in trainer.task.networks["model"].parameters():
            parameter.fill_(1.0)
        for value in trainer.averaged.values():
            value.fill_(0.0)
    trainer.average()
    assert all(torch.allclose(v, torch.tensor(0.9)) for v in trainer.averaged.values())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_divergence_names_the_step_and_keeps_the_checkpoint(
    where: str, fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    trainer = make(fast_config, shards, tmp_path, fabric)
    trainer.fit(Limits(max_steps=2))
    before = (tmp_path / LAST).read_bytes()
    weights = everything(trainer)
    task = trainer.task
    assert isinstance(task, FastTask)
    loss = task.loss

    def broken(*args: Any) -> Any:
        total, parts = loss(*args)
        if where == "loss":
            return total * math.nan, parts
        total.register_hook(lambda gradient: gradient * math.inf)
        return total, parts

    task.loss = broken  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="step 2"):
        trainer.fit(Limits(max_steps=4))
    assert (tmp_path / LAST).read_bytes() == before
    assert all(torch.equal(v, weights[k]) for k, v in everything(trainer).items())
    assert issubclass(DivergedError, HifispeechError)


def test_gradients_are_clipped(config: Config, shards: Path, tmp_path: Path, fabric: Fabric) -> None:
    """The norm before clipping is reported; what the optimiser sees is at most `clip_norm`."""
    config = replace(config, optimiser=replace(config.optimiser, clip_norm=1e-3))
    trainer = make(config, shards, tmp_path, fabric)
    parts = trainer.train_step([trainer.task.batch(0, 0, 1)])
    grads = [p.grad for p in trainer.task.networks["model"].parameters() if p.grad is not None]
    assert float(parts["gradient/model"]) > 1e-2
    assert float(torch.stack([g.norm() for g in grads]).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_mixed_precision_keeps_float32_weights(
    config: Config, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    trainer = make(replace(config, precision="bf16-mixed"), shards, tmp_path, fabric)
    exact = make(config, shards, tmp_path / "exact", fabric)
    batch = trainer.task.batch(0, 0, 1)
    low, high = (float(t.train_step([batch])["loss"]) for t in (trainer, exact))
    assert low != high and low == pytest.approx(high, rel=0.1)
    assert {v.dtype for v in everything(trainer).values() if v.is_floating_point()} == {torch.float32}


@pytest.mark.slow
def test_compiled_networks_train_the_same(
    config: Config, shards: Path, tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compile: true` compiles every network; checkpoints have the plain names and go on without it."""
    compiled: list[torch.nn.Module] = []

    def without_code_generation(network: torch.nn.Module, **again: Any) -> Any:
        if not again:  # Fabric compiles its wrapper again, with the options of the first time
            compiled.append(network)
        return compile_(network, backend="eager")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", without_code_generation)
    trainer = make(replace(config, compile=True), shards, tmp_path / "compiled", fabric)
    assert compiled == list(trainer.task.networks.values())
    trainer.fit(Limits(max_steps=2))
    plain = make(config, shards, tmp_path / "plain", fabric)
    plain.fit(Limits(max_steps=2))
    ours, theirs = everything(trainer), everything(plain)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)
    again = make(config, shards, tmp_path / "again", fabric)
    again.resume(tmp_path / "compiled" / LAST)
    assert again.step == 2


def test_max_minutes_stops_after_the_first_step(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    assert make(fast_config, shards, tmp_path, fabric).fit(Limits(max_minutes=0.0)) == 1
    assert (tmp_path / LAST).exists()


def test_failed_write_leaves_the_checkpoint(
    fast_config: FastTrainConfig,
    shards: Path,
    tmp_path: Path,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = make(fast_config, shards, tmp_path, fabric)
    trainer.save()
    before = (tmp_path / LAST).read_bytes()

    def full(state: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        trainer.save()
    assert (tmp_path / LAST).read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_validation_keeps_the_best(config: Config, shards: Path, tmp_path: Path, fabric: Fabric) -> None:
    """Curves, log, best weights; the weights in training are not touched by it."""
    config = replace(config, validate_every=2, checkpoint_every=2)
    seen: list[tuple[int, dict[str, float]]] = []
    monitor = Monitor(tmp_path, lambda step, values: seen.append((step, values)))
    trainer = make(config, shards, tmp_path, fabric, valid=True, monitor=monitor)
    trainer.fit(Limits(max_steps=2))
    monitor.close()
    scores = next(values for _, values in seen if "valid/p1_8k" in values)
    for rate in ("8k", "16k", "24k"):
        low, high, whole = (scores[f"valid/p1_{rate}{part}"] for part in ("_low", "_high", ""))
        assert low < whole < high
    assert [json.loads(line)["step"] for line in (tmp_path / LOG_FILE).read_text().splitlines()] == [2, 2]
    assert next((tmp_path / "tensorboard").glob("events*")).stat().st_size > 50_000  # audio and pictures
    best = find_weights(tmp_path / BEST)
    assert best.kind == config.task and best.card["steps"] == 2
    assert best.card["data"] == [{"source": "synthetic", "licence": "CC0", "speakers": 2, "hours": 0.0011}]
    assert all(torch.equal(v, trainer.averaged[k]) for k, v in best.tensors.items())
    unvalidated = make(config, shards, tmp_path / "other", fabric)
    unvalidated.fit(Limits(max_steps=2))
    assert_same(trainer, unvalidated)


def test_resume_refuses_another_model(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    make(fast_config, shards, tmp_path, fabric).save()
    other = replace(fast_config, model=replace(fast_config.model, channels=16))
    with pytest.raises(ModelError, match="channels"):
        make(other, shards, tmp_path, fabric).resume(tmp_path / LAST)
    (tmp_path / LAST).write_bytes(b"junk")
    with pytest.raises(ModelError, match="damaged"):
        make(fast_config, shards, tmp_path, fabric).resume(tmp_path / LAST)


def test_start_from_takes_the_averaged_weights(
    config: Config, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    first = make(config, shards, tmp_path / "first", fabric)
    first.fit(Limits(max_steps=1))
    second = make(config, shards, tmp_path / "second", fabric)
    second.start_from(find_weights(tmp_path / "first" / LAST))
    assert second.step == 0
    assert second.frozen_until == (2 if config.task == "hifisr" else 0)
    for name, value in second.task.networks["model"].state_dict().items():
        assert torch.equal(value, first.averaged[name]) and torch.equal(value, second.averaged[name])


def test_start_from_a_converted_model(
    gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    """`--init-from hifisr-paper.safetensors`: what `hifispeech convert` writes can be trained further."""
    network = HiFiSR(gan_config.model)
    save_hifisr(network, tmp_path / "paper.safetensors", notes={"source": "test"})
    trainer = make(gan_config, shards, tmp_path / "run", fabric)
    trainer.start_from(find_weights(tmp_path / "paper.safetensors"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, trainer.task.networks["model"].state_dict()[name])
    assert trainer.frozen_until == gan_config.discriminator_warm_up
    assert trainer.fit(Limits(max_steps=3)) == 3


def test_start_from_another_kind_is_refused(
    fast_config: FastTrainConfig, gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    make(fast_config, shards, tmp_path / "a", fabric).save()
    with pytest.raises(ModelError, match="'fast' model"):
        make(gan_config, shards, tmp_path / "b", fabric).start_from(find_weights(tmp_path / "a" / LAST))
    other = replace(fast_config, model=replace(fast_config.model, level_frames=100.0))  # the same shapes
    with pytest.raises(ModelError, match="level_frames"):
        make(other, shards, tmp_path / "c", fabric).start_from(find_weights(tmp_path / "a" / LAST))


def test_discriminators_restart_fresh(
    gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path, fabric: Fabric
) -> None:
    """A checkpoint moved without its discriminators: they warm up while the generator waits."""
    make(gan_config, shards, tmp_path, fabric).fit(Limits(max_steps=1))
    (side,) = tmp_path.glob("discriminators-*.pt")
    side.unlink()
    trainer = make(gan_config, shards, tmp_path, fabric)
    trainer.resume(tmp_path / LAST)
    assert trainer.frozen_until == 3
    start = {k: v.clone() for k, v in trainer.task.networks["model"].state_dict().items()}
    adversary = trainer.task.networks[ADVERSARY]
    first = [p.detach().clone() for p in adversary.parameters()]
    trainer.fit(Limits(max_steps=3))
    assert all(torch.equal(v, start[k]) for k, v in trainer.task.networks["model"].state_dict().items())
    assert any(not torch.equal(p, q) for p, q in zip(adversary.parameters(), first, strict=True))
    trainer.fit(Limits(max_steps=4))
    assert any(not torch.equal(v, start[k]) for k, v in trainer.task.networks["model"].state_dict().items())
    assert len(list(tmp_path.glob("discriminators-*.pt"))) == 1


def test_batch_must_divide_by_processes(
    fast_config: FastTrainConfig,
    shards: Path,
    tmp_path: Path,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fabric, "world_size", 3)
    with pytest.raises(ValueError, match="batch_size=2 does not divide by 3"):
        make(fast_config, shards, tmp_path, fabric)


def test_tensorboard_holds_curves_sound_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = Monitor(tmp_path)
    monitor.scalars(7, {"loss": 0.5, "valid/lsd": 0.9, "bad": math.nan})
    monitor.clips(7, {"anna/8k": np.sin(np.arange(48000) * 0.1).astype(np.float32)})
    monitor.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert set(tags["scalars"]) == {"train/loss", "valid/lsd"}
    assert tags["audio"] == tags["images"] == ["anna/8k"]
    assert board.Scalars("valid/lsd")[0].step == 7
    (sound,) = board.Audio("anna/8k")
    assert sound.sample_rate == 48000 and sound.length_frames == 48000


def test_spectrogram_picture() -> None:
    tone = np.sin(2 * np.pi * 6000 * np.arange(48000) / 48000)
    picture = spectrogram_picture(tone)
    assert picture.shape == (513, 94, 3) and picture.min() >= 0 and picture.max() <= 1
    row = picture.sum((1, 2)).argmax()
    assert 24000 * (1 - row / 512) == pytest.approx(6000, abs=60)


def start_command(
    config: FastTrainConfig, shards: Path, tmp_path: Path, *options: str
) -> subprocess.Popen[str]:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config_to_dict(config)))
    command = [sys.executable, "-m", "hifispeech", "train", str(path), "--data", str(shards)]
    command += ["-o", str(tmp_path / "run"), "--accelerator", "cpu", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_sigterm_leaves_a_checkpoint_and_exits_with_0(
    workers: str, fast_config: FastTrainConfig, shards: Path, tmp_path: Path
) -> None:
    config = replace(fast_config, optimiser=replace(fast_config.optimiser, total_steps=10_000_000))
    process = start_command(config, shards, tmp_path, "--workers", workers)
    log, deadline = tmp_path / "run" / LOG_FILE, time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert state["step"] >= 25
