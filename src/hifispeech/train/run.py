"""One training run from files: configuration, data set, devices and starting point put together."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from hifispeech.datasets.shards import Shards, read_clips
from hifispeech.errors import HifispeechError
from hifispeech.models.artefact import config_to_dict
from hifispeech.train.checkpoint import LAST, find_weights
from hifispeech.train.config import (
    FastGanTrainConfig,
    FastTrainConfig,
    OfflineAdversarialConfig,
    OfflineTrainConfig,
    TrainConfig,
    load,
    parse,
)
from hifispeech.train.monitor import Monitor
from hifispeech.train.task import Task
from hifispeech.train.trainer import Limits, Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """Where to train: Lightning's name of the accelerator, processes per node, nodes, loader processes."""

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 0


@dataclass(frozen=True)
class Outcome:
    """Step reached and best validation score; `is_first` in one of several processes."""

    step: int
    best: float
    is_first: bool


def run(
    config_path: Path,
    data: Path,
    folder: Path,
    machine: Machine,
    *,
    changes: Sequence[str] = (),
    resume: bool = False,
    init_from: str | None = None,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_report: Callable[[int, dict[str, float]], None] | None = None,
) -> Outcome:
    """Train in `folder`, from scratch, from weights or from the folder's last checkpoint.

    Raises:
        ValueError: configuration, data or options do not fit; the message says what.
        HifispeechError: the folder holds a run already, or training diverged.
    """
    config = with_changes(load(config_path), changes)
    last = folder / LAST
    if last.exists() and not resume:
        raise HifispeechError(f"{folder} holds a run; pass --resume to go on with it, or another folder")
    weights = find_weights(init_from) if init_from and not last.exists() else None
    fabric = make_fabric(machine)
    task = make_task(config, data)
    monitor = Monitor(folder, on_report) if fabric.is_global_zero else Monitor(None)
    try:
        trainer = Trainer(
            task,
            folder,
            fabric,
            monitor=monitor,
            workers=machine.workers,
            on_step=on_step if fabric.is_global_zero else None,
        )
        if last.exists():
            trainer.resume(last)
        elif weights is not None:
            trainer.start_from(weights)
        step = trainer.fit(Limits(max_steps, max_minutes))
    finally:
        monitor.close()
    return Outcome(step, trainer.best, fabric.is_global_zero)


def make_fabric(machine: Machine) -> Fabric:
    """Fabric on the machine, launched. Precision stays with the trainer, see `Trainer.autocast`."""
    alone = machine.devices * machine.nodes == 1
    fabric = Fabric(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="auto" if alone else "ddp",
    )
    fabric.launch()
    return fabric


def make_task(config: TrainConfig, data: Path) -> Task:
    """The task of the configuration on a prepared data set; no split `valid` means no validation."""
    least_hz = 0.0 if isinstance(config, FastTrainConfig) else config.min_bandwidth_hz
    train = Shards(data, "train", least_hz)
    has_valid = any(c.split == "valid" and c.bandwidth_hz >= least_hz for c in read_clips(data))
    valid = Shards(data, "valid", least_hz) if has_valid else None
    if valid is None:
        log.warning("%s has no usable clip in split 'valid': no validation, no best checkpoint", data)
    if isinstance(config, OfflineTrainConfig):
        return _offline_task(config, data, has_valid)
    if isinstance(config, FastGanTrainConfig):
        from hifispeech.train.tasks.fast_gan import FastGanTask

        return FastGanTask(config, train, valid)
    if isinstance(config, FastTrainConfig):
        from hifispeech.train.tasks.fast import FastTask

        return FastTask(config, train, valid)
    from hifispeech.train.tasks.hifisr import HiFiSRTask

    return HiFiSRTask(config, train, valid)


def _offline_task(config: OfflineTrainConfig, data: Path, has_valid: bool) -> Task:
    from hifispeech.datasets.band_powers import BandPowers
    from hifispeech.train.tasks.offline import OfflineAdversarialTask, OfflineTask

    train = BandPowers(
        data,
        "train",
        config.min_bandwidth_hz,
        source_fractions=dict(config.source_fractions),
        full_band_weight=config.full_band_weight,
    )
    valid = BandPowers(data, "valid", config.min_bandwidth_hz) if has_valid else None
    if isinstance(config, OfflineAdversarialConfig):
        return OfflineAdversarialTask(config, train, valid)
    return OfflineTask(config, train, valid)


def with_changes(config: TrainConfig, changes: Sequence[str]) -> TrainConfig:
    """The configuration with `key.inner=value` changes applied; values are YAML.

    Raises:
        ValueError: a change without `=`, an unknown key or a value of the wrong type.
    """
    import yaml

    values: dict[str, Any] = config_to_dict(config)
    for change in changes:
        key, equals, text = change.partition("=")
        *outer, name = key.split(".")
        inner: Any = values
        for part in outer:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not equals or not isinstance(inner, dict) or name not in inner:
            raise ValueError(f"--set {change}: pass key=value with a key of the configuration")
        inner[name] = yaml.safe_load(text)
    return parse(values)
