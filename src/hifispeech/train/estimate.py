"""What a training run will need, before it is started: memory and hours on one device, on eight, on nodes.

One step of the task runs on PyTorch's fake tensors, which have shapes and no data. That counts the operations
of all matrix products and convolutions, forward and backward, and the bytes autograd keeps; both are exact.
What a device makes of them is a rate: measured here (`measured_device`), or from the table below a share of
the peak its maker states.
"""

import math
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hifispeech.train.config import (
    FastGanTrainConfig,
    FastTrainConfig,
    HiFiSRTrainConfig,
    OfflineAdversarialConfig,
    OfflineTrainConfig,
    TrainConfig,
)
from hifispeech.train.task import LossFunction, Parts, Task

# Of a peak, what a training step of small and large layers reaches. A guess until measured on the device.
SHARE_OF_PEAK = 0.3
# Besides what is counted: workspaces, fragmentation, buffers of the optimiser.
MEMORY_FACTOR = 1.15


@dataclass(frozen=True)
class Device:
    """A processor: operations per second in float32 and bfloat16 (what a step reaches, not the peak), memory,
    what the framework itself takes of it, and the link to others of the same node and of other nodes.
    """

    name: str
    float32: float
    bfloat16: float
    memory_gb: float
    base_gb: float = 1.0
    link_gb_s: float = 25.0
    network_gb_s: float = 10.0


def _gpu(name: str, tflops_32: float, tflops_16: float, memory_gb: float, link_gb_s: float) -> Device:
    return Device(
        name, tflops_32 * 1e12 * SHARE_OF_PEAK, tflops_16 * 1e12 * SHARE_OF_PEAK, memory_gb, 1.0, link_gb_s
    )


# Dense peaks of the data sheets: float32 without tensor cores, bfloat16 with them; links in one direction.
DEVICES = {
    device.name: device
    for device in (
        _gpu("rtx4090", 82.6, 165.0, 24.0, 25.0),
        _gpu("a100", 19.5, 312.0, 80.0, 300.0),
        _gpu("a800", 19.5, 312.0, 80.0, 200.0),
        _gpu("h100", 67.0, 989.0, 80.0, 450.0),
        _gpu("h200", 67.0, 989.0, 141.0, 450.0),
    )
}


@dataclass(frozen=True)
class Work:
    """One step of one process: floating point operations, bytes of the states (weights, gradients, optimiser,
    average), most bytes autograd keeps at one time, and bytes of gradients to be exchanged.
    """

    operations: int
    state_bytes: int
    kept_bytes: int
    gradient_bytes: int


@dataclass(frozen=True)
class Estimate:
    """A whole run: memory per device, seconds per step, hours for all steps, and whether it fits."""

    memory_gb: float
    step_s: float
    hours: float
    fits: bool


def estimate(config: TrainConfig, device: Device, devices: int = 1, nodes: int = 1) -> Estimate:
    """The run of a configuration on `nodes` machines of `devices` devices.

    Raises:
        ValueError: if the batch does not divide by the processes.
    """
    world = devices * nodes
    if config.batch_size % world:
        raise ValueError(f"batch_size={config.batch_size} does not divide by {world} processes; change it")
    work = count(replace(config, batch_size=config.batch_size // world))
    rate = device.bfloat16 if config.precision == "bf16-mixed" else device.float32
    exchanged = 2 * work.gradient_bytes * (world - 1) / world
    link = device.network_gb_s if nodes > 1 else device.link_gb_s
    step_s = work.operations / rate + exchanged / (link * 1e9)
    memory_gb = (work.state_bytes + work.kept_bytes) * MEMORY_FACTOR / 1e9 + device.base_gb
    hours = step_s * config.optimiser.total_steps / 3600
    return Estimate(memory_gb, step_s, hours, memory_gb < device.memory_gb)


def count(config: TrainConfig) -> Work:
    """What one step with the whole `batch_size` of a configuration takes on one process."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        task = make_task(config)
        step = _Step(config, task)
        batches = [fake_batch(config)] * config.accumulate
        with operations() as counter, step.kept.watched():
            task.train_step(step, batches)
    sizes = {name: sum(p.numel() for p in n.parameters()) for name, n in task.networks.items()}
    # Weights, gradients and AdamW's two moments, all float32; the average of the kept network.
    states = 16 * sum(sizes.values()) + 4 * sizes["model"]
    return Work(counter.get_total_flops(), states, step.kept.peak, 4 * sum(sizes.values()))


def operations() -> FlopCounterMode:
    """A context that counts the operations run in it, as `get_total_flops()`."""
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )


def _convolution_backward(
    gradient: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """Operations of a convolution's gradients, from the shapes: each costs what the convolution did.

    PyTorch's own rule forgets the groups: the weights of a depthwise convolution of 2048 channels would cost
    2048 times too much, half as much again as the whole step of the paper's model.
    """
    places = math.prod((x if transposed else gradient)[2:])
    return 2 * x[0] * places * math.prod(weight) * (bool(wanted[0]) + bool(wanted[1]))


def make_task(config: TrainConfig) -> Task:
    """The task of a configuration without data: nothing but its networks and its step are used here."""
    nothing = cast(Any, None)
    if isinstance(config, OfflineTrainConfig):
        from hifispeech.train.tasks.offline import OfflineAdversarialTask, OfflineTask

        if isinstance(config, OfflineAdversarialConfig):
            return OfflineAdversarialTask(config, nothing, None)
        return OfflineTask(config, nothing, None)
    if isinstance(config, FastGanTrainConfig):
        from hifispeech.train.tasks.fast_gan import FastGanTask

        return FastGanTask(config, nothing, None)
    if isinstance(config, FastTrainConfig):
        from hifispeech.train.tasks.fast import FastTask

        return FastTask(config, nothing, None)
    from hifispeech.train.tasks.hifisr import HiFiSRTask

    return HiFiSRTask(config, nothing, None)


def fake_batch(config: TrainConfig) -> Any:
    """A batch of the shapes the task makes."""
    batch = config.batch_size
    if isinstance(config, HiFiSRTrainConfig):
        from hifispeech.train.tasks.hifisr import WaveBatch

        return WaveBatch(*(torch.zeros(batch, 1, config.segment_samples) for _ in range(2)))
    if isinstance(config, OfflineTrainConfig):
        from hifispeech.audio.bands import BANDS
        from hifispeech.train.simulate_powers import PowerBatch

        maps = torch.full((batch, config.segment_frames, BANDS), -3.0)
        first = torch.full((batch, config.segment_frames), 40.0)
        return PowerBatch(maps, maps.clone(), first, torch.full((batch,), 20000.0))
    from hifispeech.train.simulate import Batch

    frames = torch.zeros(batch, config.segment_frames, 2, config.model.bins)
    cutoff = torch.full((batch, config.segment_frames), 300.0)
    return Batch(frames, frames.clone(), frames.clone(), cutoff, torch.full((batch,), 1000.0))


class _Kept:
    """Bytes of the tensors autograd keeps for the backward pass, each storage once; parameters not."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.owned = {_storage(p) for network in networks for p in network.parameters()}
        self.uses: Counter[int] = Counter()
        self.now = self.peak = 0

    def watched(self) -> Any:
        """The context in which operations are counted."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda held: held.tensor)

    def _pack(self, tensor: Tensor) -> "_Held":
        key, size = _storage(tensor), tensor.untyped_storage().nbytes()
        held = _Held(tensor)
        if key not in self.owned:
            if not self.uses[key]:
                self.now += size
                self.peak = max(self.peak, self.now)
            self.uses[key] += 1
            weakref.finalize(held, self._free, key, size)
        return held

    def _free(self, key: int, size: int) -> None:
        self.uses[key] -= 1
        if not self.uses[key]:
            self.now -= size


class _Held:
    """A tensor autograd keeps; its end is the end of the keeping."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Step:
    """Stands for the trainer during one step (`task.Updates`): backward passes, but no optimiser."""

    frozen_until = 0
    step = 10**9  # discriminators that join later have joined

    def __init__(self, config: TrainConfig, task: Task) -> None:
        self.config, self.task = config, task
        self.kept = _Kept(list(task.networks.values()))

    def shared(self, value: Tensor) -> Tensor:
        return value

    def module(self, name: str) -> nn.Module:
        return self.task.networks[name]

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16-mixed")

    def update(self, name: str, loss: LossFunction, batches: Sequence[Any]) -> Parts:
        result: Parts = {}
        for batch in batches:
            with self.autocast():
                total, parts = loss(self.module(name), batch)
            total.backward()
            result = {"loss": total.detach(), **parts}
        return result


def device_of(name: str) -> Device:
    """A device of the table, or "here": the GPU, else the CPU, of this machine, measured.

    Raises:
        ValueError: for another name.
    """
    if name == "here":
        return measured_device(name, "cuda" if torch.cuda.is_available() else "cpu")
    if name not in DEVICES:
        raise ValueError(f"device={name!r} is unknown; use here or one of {', '.join(DEVICES)}")
    return DEVICES[name]


def measured_device(name: str, device: str = "cpu", repeats: int = 3) -> Device:
    """The device found here: rates of a convolution's step of the kind the networks are made of."""
    rates = {dtype: _rate(device, dtype, repeats) for dtype in (torch.float32, torch.bfloat16)}
    if device == "cuda":
        memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
    else:
        import os

        memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Device(name, rates[torch.float32], rates[torch.bfloat16], memory_gb, 0.5)


def _rate(device: str, dtype: torch.dtype, repeats: int) -> float:
    """Operations per second, forward and backward, of the middle layers of the decoder and a product."""
    channels, kernel, samples = 128, 7, 8192 if device == "cpu" else 131_072
    x = torch.randn(1, channels, samples, device=device, dtype=dtype, requires_grad=True)
    w = torch.randn(channels, channels, kernel, device=device, dtype=dtype, requires_grad=True)
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        F.conv1d(x, w, padding=kernel // 2).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return 3 * 2 * channels * channels * kernel * samples / min(taken[1:])
