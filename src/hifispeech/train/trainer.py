"""The training loop on Lightning Fabric: time-boxed, exactly resumable, safe to interrupt."""

import contextlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hifispeech.errors import HifispeechError, ModelError
from hifispeech.models.artefact import Weights, config_to_dict, load_strict, save_artefact
from hifispeech.train.checkpoint import BEST, LAST, read_state, remove_side_files, side_file, write_state
from hifispeech.train.config import GanOptimiserConfig, OptimiserConfig
from hifispeech.train.loader import Share, batches
from hifispeech.train.monitor import Monitor
from hifispeech.train.task import LossFunction, Parts, Task

log = logging.getLogger(__name__)

REPORT_EVERY = 25
KEPT = "model"  # the network that is averaged, validated and exported


@dataclass(frozen=True)
class Limits:
    """When to stop: whichever comes first. None is no limit (of steps: the schedule's end)."""

    max_steps: int | None = None
    max_minutes: float | None = None


class DivergedError(HifispeechError, RuntimeError):
    """The loss or the gradient is not finite; the last checkpoint is intact."""


def learning_rate(
    config: OptimiserConfig | GanOptimiserConfig, step: int, base: float | None = None
) -> float:
    """Linear warm-up, then half a cosine down to `final_share` of the rate `base` (default: the config's)."""
    base = config.learning_rate if base is None else base
    if step < config.warm_up_steps:
        return base * (step + 1) / config.warm_up_steps
    progress = min(1.0, (step - config.warm_up_steps) / max(1, config.total_steps - config.warm_up_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return base * (config.final_share + (1 - config.final_share) * cosine)


@dataclass
class _Network:
    """A network as the task made it, as it is called in training, and its optimiser with its peak rates."""

    plain: nn.Module
    wrapped: Any
    optimiser: Any
    rates: list[float]


class Trainer:
    """`setup -> fit -> validate -> save` for one task in one folder.

    Args:
        workers: processes that make batches ahead of time; 0 makes them in the loop.
        on_step: called with (step, end) after each step, for a progress bar.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        fabric: Fabric,
        *,
        monitor: Monitor | None = None,
        workers: int = 0,
        on_step: Callable[[int, int], None] | None = None,
    ) -> None:
        self.task, self.folder, self.fabric = task, folder, fabric
        self.monitor = monitor or Monitor(None)
        self.workers, self.on_step = workers, on_step
        config = task.config
        if config.batch_size % fabric.world_size:
            raise ValueError(
                f"batch_size={config.batch_size} does not divide by {fabric.world_size} processes; change it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.networks: dict[str, _Network] = {}
        for name, network in task.networks.items():
            optimiser = task.optimiser(name)
            rates = [group["lr"] for group in optimiser.param_groups]
            module = torch.compile(network) if config.compile else network
            wrapped, optimiser = fabric.setup(module, optimiser)  # type: ignore[arg-type]
            self.networks[name] = _Network(network, wrapped, optimiser, rates)
        self.averaged = _copy(task.networks[KEPT])
        self.step, self.best, self.frozen_until = 0, math.inf, 0
        self.stop_asked = False

    # --- the loop

    def fit(self, limits: Limits) -> int:
        """Train to a limit, a SIGTERM or a SIGINT, and write a checkpoint. Returns the step reached.

        Raises:
            DivergedError: naming the step; checkpoints on disk are left as they were.
        """
        config = self.task.config
        end = limits.max_steps if limits.max_steps is not None else config.optimiser.total_steps
        started = time.monotonic()
        first_step, reported = self.step, (self.step, started)
        with self._signals_noted(), contextlib.closing(self._batches(end)) as source:
            while self.step < end and not self._should_stop(limits, started, first_step):
                try:
                    group = [next(source) for _ in range(config.accumulate)]
                except RuntimeError:
                    if self.stop_asked:  # the loader's processes got the signal too
                        break
                    raise
                parts = self.train_step(group)
                self.step += 1
                if self.on_step:
                    self.on_step(self.step, end)
                if self.step % REPORT_EVERY == 0 or self.step == end:
                    now = time.monotonic()
                    speed = (self.step - reported[0]) / max(now - reported[1], 1e-9)
                    self._report(parts, speed)
                    reported = (self.step, now)
                if self.step % config.validate_every == 0:
                    self.validate()
                if self.step % config.checkpoint_every == 0:
                    self.save()
        self.save()
        return self.step

    def _batches(self, end: int) -> Generator[Any, None, None]:
        accumulate = self.task.config.accumulate
        share = Share(self.fabric.global_rank, self.fabric.world_size)
        on_gpu = self.fabric.device.type == "cuda"
        return batches(self.task, self.step * accumulate, end * accumulate, share, self.workers, on_gpu)

    def _should_stop(self, limits: Limits, started: float, first_step: int) -> bool:
        """Whether any process was asked to stop or is out of time; all get the same answer."""
        late = limits.max_minutes is not None and time.monotonic() - started > 60 * limits.max_minutes
        wanted = self.stop_asked or (late and self.step > first_step)
        if self.fabric.world_size == 1:
            return wanted
        votes = self.fabric.all_reduce(
            torch.tensor(float(wanted), device=self.fabric.device), reduce_op="sum"
        )
        return float(votes) > 0  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the run after the current step; a second SIGINT interrupts it."""

        def note(number: int, frame: object) -> None:
            if self.stop_asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop_asked = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _report(self, parts: Parts, steps_per_s: float) -> None:
        """Log a step's losses (the mean over processes) and the speed."""
        values = {name: float(self.mean_of(value)) for name, value in parts.items()}
        values["learning_rate"] = self.networks[KEPT].optimiser.param_groups[0]["lr"]
        if self.fabric.is_global_zero:
            self.monitor.scalars(self.step, {**values, "steps_per_s": steps_per_s})

    # --- one step

    def train_step(self, group: Sequence[Any]) -> Parts:
        """One step of the task over `accumulate` batches, then the average."""
        config = self.task.config
        # Dropout depends on the step alone, so a resumed run needs no generator states.
        torch.manual_seed(
            config.seed * 1_000_003 + self.step * self.fabric.world_size + self.fabric.global_rank
        )
        for network in self.networks.values():
            for options, rate in zip(network.optimiser.param_groups, network.rates, strict=True):
                options["lr"] = learning_rate(config.optimiser, self.step, rate)
        parts = self.task.train_step(self, [self.fabric.to_device(batch) for batch in group])
        self.average()
        return parts

    def module(self, name: str) -> nn.Module:
        """A network as it is to be called in training."""
        return self.networks[name].wrapped

    def update(self, name: str, loss: LossFunction, batches: Sequence[Any]) -> Parts:
        """One optimiser step of a network; returns the mean loss and its parts.

        Raises:
            DivergedError: before anything is changed, if the loss or the gradient is not finite.
        """
        network = self.networks[name]
        network.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            more = i + 1 < len(batches)
            with self.fabric.no_backward_sync(network.wrapped, enabled=more):
                with self.autocast():
                    total, parts = loss(network.wrapped, batch)
                self.fabric.backward(total / len(batches))
            for key, value in {"loss": total, **parts}.items():
                sums[key] = sums.get(key, 0.0) + value.detach() / len(batches)
        norm = self.fabric.clip_gradients(
            network.wrapped,
            network.optimiser,
            max_norm=self.task.config.optimiser.clip_norm,
            error_if_nonfinite=False,
        )
        assert norm is not None
        # One look at the device for both; the mean over processes makes all of them stop.
        health = self.mean_of(torch.stack([sums["loss"].float(), norm.detach().float()]))
        if not bool(torch.isfinite(health).all()):
            value, size = health.tolist()
            raise DivergedError(
                f"{name}: the loss is {value:g} and the gradient {size:g} at step {self.step}; "
                f"the checkpoint before it is kept; resume with a lower learning rate"
            )
        network.optimiser.step()
        return {**sums, f"gradient/{name}": norm.detach()}

    def shared(self, count: Tensor) -> Tensor:
        """Mean of a count over the processes of a batch."""
        return self.mean_of(count.detach())

    def mean_of(self, value: Tensor) -> Tensor:
        """Mean over processes."""
        if self.fabric.world_size == 1:
            return value
        return self.fabric.all_reduce(value.clone(), reduce_op="mean")  # type: ignore[return-value]

    def autocast(self) -> torch.autocast:
        """Mixed precision of the forward pass. Not Fabric's: that rounds the inputs, log-spectra, as well."""
        low = self.task.config.precision == "bf16-mixed"
        return torch.autocast(self.fabric.device.type, dtype=torch.bfloat16, enabled=low)

    @torch.no_grad()
    def average(self) -> None:
        """Exponential moving average of the weights, with a short memory at the start."""
        decay = min(self.task.config.ema_decay, (1 + self.step) / (10 + self.step))
        own = self.task.networks[KEPT].state_dict()
        floats = [name for name, value in self.averaged.items() if value.is_floating_point()]
        blend = get_ema_multi_avg_fn(decay)
        blend([self.averaged[n] for n in floats], [own[n].float() for n in floats], self.step)  # type: ignore[arg-type]
        for name in self.averaged.keys() - set(floats):
            self.averaged[name].copy_(own[name])

    # --- validation

    def validate(self) -> None:
        """Validate the averaged weights on one process; they are kept as `best` where they are."""
        score = math.inf
        if self.fabric.is_global_zero:
            network = self.task.networks[KEPT]
            own = _copy(network)
            network.load_state_dict(self.averaged)
            network.eval()
            try:
                found = self.task.validate(network)
            finally:
                network.train()
                network.load_state_dict(own)
            if found is not None:
                score = found.score
                self.monitor.scalars(self.step, {f"valid/{k}": v for k, v in found.scores.items()})
                self.monitor.clips(self.step, found.clips)
        score = float(self.fabric.broadcast(score))
        if score < self.best:
            self.best = score
            self._save_best()

    # --- checkpoints

    def start_from(self, weights: Weights) -> None:
        """Begin a new run with the given weights; discriminators train alone for their warm-up.

        Raises:
            ModelError: if they are of another kind of model, or do not fit the configuration.
        """
        config = self.task.config
        if weights.kind != config.kind:
            raise ModelError(f"the weights are of a {weights.kind!r} model, the config is of {config.kind!r}")
        own = config_to_dict(config.model)
        if other := [key for key in own if weights.config.get(key) != own[key]]:
            raise ModelError(
                f"the weights are of a model with {other[0]}={weights.config.get(other[0])}, the config has "
                f"{own[other[0]]}; set model.{other[0]} in the config"
            )
        load_strict(self.task.networks[KEPT], weights.tensors, "--init-from")
        self.averaged = _copy(self.task.networks[KEPT])
        if len(self.networks) > 1:  # new discriminators would spoil a trained generator
            self.frozen_until = config.discriminator_warm_up

    def save(self) -> None:
        """Write `last.pt` and the other networks beside it; a crash leaves the previous ones whole."""
        if self.fabric.is_global_zero:
            sides = {name: side_file(self.folder, name, self.step) for name in self.networks if name != KEPT}
            for name, path in sides.items():
                write_state(path, self._network_state(name))
            state = {
                **self._network_state(KEPT),
                "format": 1,
                "step": self.step,
                "best": self.best,
                "frozen_until": self.frozen_until,
                "averaged": self.averaged,
                "sides": {name: path.name for name, path in sides.items()},
                "config": json.dumps(config_to_dict(self.task.config)),
                "card": json.dumps(self.card()),
            }
            write_state(self.folder / LAST, state)
            remove_side_files(self.folder, {path.name for path in sides.values()})
        self.fabric.barrier()

    def card(self) -> dict[str, Any]:
        """What an exported model says of its training: steps, best score so far, data, configuration."""
        score = {"valid_score": round(self.best, 5)} if math.isfinite(self.best) else {}
        return {"steps": self.step, **score, **self.task.card(), "config": config_to_dict(self.task.config)}

    def _network_state(self, name: str) -> dict[str, Any]:
        network = self.networks[name]
        return {"model": network.plain.state_dict(), "optimiser": network.optimiser.state_dict()}

    def _save_best(self) -> None:
        if self.fabric.is_global_zero:
            config = self.task.config
            notes = {"card": json.dumps(self.card())}
            save_artefact(
                self.folder / BEST, config.kind, config.model, self.averaged, notes=notes, force=True
            )
        self.fabric.barrier()

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint: weights, average, optimisers and step.

        Networks whose file is missing start anew; the kept one waits for `discriminator_warm_up` steps.

        Raises:
            ModelError: if it is damaged or of a model of other sizes.
        """
        state = read_state(path)
        self._check_config(state, path)
        load_strict(self.task.networks[KEPT], state["model"], str(path))
        self.averaged = {k: v.to(self.averaged[k].device) for k, v in state["averaged"].items()}
        self.networks[KEPT].optimiser.load_state_dict(state["optimiser"])
        self.step, self.best = state["step"], state["best"]
        self.frozen_until = state.get("frozen_until", 0)
        for name in self.networks.keys() - {KEPT}:
            side = path.parent / state.get("sides", {}).get(name, f"{name}.pt")
            if side.is_file():
                other = read_state(side)
                load_strict(self.task.networks[name], other["model"], str(side))
                self.networks[name].optimiser.load_state_dict(other["optimiser"])
            else:
                self.frozen_until = self.step + self.task.config.discriminator_warm_up
                log.warning("%s is missing: new %s train alone to step %d", side, name, self.frozen_until)
        log.info("resumed %s at step %d", path, self.step)

    def _check_config(self, state: dict[str, Any], path: Path) -> None:
        if "config" not in state:  # written before configurations were stored; the strict load decides
            return
        stored, own = json.loads(state["config"]), config_to_dict(self.task.config)
        for key in ("task", "model", "seed"):
            if stored[key] != own[key]:
                raise ModelError(f"{path} was trained with {key}={stored[key]}, the config says {own[key]}")


def _copy(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network, floats as float32."""
    state = network.state_dict()
    return {k: v.detach().float().clone() if v.is_floating_point() else v.clone() for k, v in state.items()}
