"""The fast model in PyTorch with the signal processing around it, all on one device. See `upscaler`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hifispeech.audio.crossover import high_gain
from hifispeech.audio.excitation import noise_frames
from hifispeech.audio.spectral import HOP, N_FFT, hann
from hifispeech.errors import ModelError
from hifispeech.infer.batch.rows import OVERLAPS, Plan
from hifispeech.infer.frames import BINS, CELL, REACH_CELLS, SILENCE, SYNTHESIS_WINDOW
from hifispeech.infer.load import torch_device
from hifispeech.infer.pytorch import frame_weights

if TYPE_CHECKING:
    from hifispeech.models.fast.model import FastModel

Precision = Literal["fp32", "bf16"]
State = tuple[Tensor, ...]

# Running averages are products with a matrix of this size: longer chunks cost more, shorter ones start more.
CHUNK_FRAMES = 128


class BatchNetwork:
    """The fast model and the signal processing around it on a device: hops of samples in and out.

    Args:
        model: name of a packaged model or path of an `.onnx` file made by `hifispeech export`.
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda" or "mps".
        precision: "fp32", or "bf16" for the network's matrix products; spectra, levels and running averages
            are float32 in both.
        compiled: compile the network with `torch.compile`: the first chunks take a minute or two.

    Raises:
        ImportError: if PyTorch or onnx is not installed.
        ModelError: if the model is missing, damaged or no frame model, or the device is not there.
    """

    def __init__(
        self,
        model: str | Path = "fast",
        device: str = "auto",
        precision: Precision = "fp32",
        *,
        compiled: bool = False,
    ) -> None:
        if precision not in get_args(Precision):
            raise ModelError(f"precision={precision!r} is unknown; use {' or '.join(get_args(Precision))}")
        self.device, self.precision = torch.device(torch_device(device)), precision
        network, self.look_ahead = load_network(model)
        self.initial_state = network.initial_state
        network = network.eval().requires_grad_(False).to(self.device)
        self.network = torch.compile(network) if compiled else network
        self.noise = torch.from_numpy(noise_frames()).to(self.device)
        gains = np.stack([high_gain(edge) for edge in range(BINS + 1)])
        self.gains = torch.from_numpy(gains).to(self.device)
        self.window = torch.from_numpy(hann(N_FFT).copy()).to(self.device)
        self.synthesis_window = torch.from_numpy(SYNTHESIS_WINDOW).to(self.device)
        position = (torch.arange(CELL, device=self.device) - CELL // 2) / CELL  # from the centre of the cell
        self.slopes = torch.stack([(-position).clamp(min=0), 1 - position.abs(), position.clamp(min=0)])

    @torch.inference_mode()
    def run(self, hops: Tensor, plan: Tensor, state: State) -> tuple[Tensor, State]:
        """The generated band of a chunk, gated, and the model's state after it.

        Shape: hops `[rows, hops, HOP]`, plan `[4, rows, CHUNK_FRAMES]`; `[rows, hops, HOP]` back.
        """
        place, number, cutoff, crossover = Plan(*plan.long())
        time = place.shape[1]
        spectra = torch.fft.rfft(hops.flatten(1).unfold(1, N_FFT, HOP) * self.window)
        planes = torch.stack([spectra.real, spectra.imag], dim=2)
        rows = torch.arange(len(hops), device=self.device)[:, None]
        both = planes[rows, torch.cat([place, place + self.look_ahead], dim=1)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            generated, *after = self.network(both, self.noise[number], cutoff.float().repeat(1, 2), *state)
        added = (generated - both[:, :time]) * self.gains[crossover][:, :, None]
        added[:, :, 1, -1] = 0.0  # a real signal has no such part; not every FFT ignores it
        blocks = torch.fft.irfft(torch.complex(added[:, :, 0], added[:, :, 1]), n=N_FFT)
        parts = (blocks * self.synthesis_window).unflatten(-1, (OVERLAPS, HOP))
        band = torch.zeros_like(hops)
        for k in range(OVERLAPS):
            band.scatter_add_(1, (place + k)[:, :, None].expand(-1, -1, HOP), parts[:, :, k])
        return band * self.gate(hops), tuple(after)

    def gate(self, hops: Tensor) -> Tensor:
        """`silence_gate` of every hop; those at the ends of a run have nothing to gate. Shape: kept."""
        cells = hops.unflatten(-1, (-1, CELL)).abs().amax(-1).flatten(1)
        sounding = F.pad((cells > SILENCE).float(), (REACH_CELLS, REACH_CELLS))[:, None]
        opened = F.max_pool1d(sounding, 2 * REACH_CELLS - 1, stride=1)[:, 0]  # a cell more on either side
        return torch.matmul(opened.unfold(1, 3, 1), self.slopes).view_as(hops)


def load_network(model: str | Path) -> tuple["FastModel", int]:
    """The network of an exported frame model, made for chunks of `CHUNK_FRAMES`, and its look-ahead.

    A step of it may hear any frame beside the one it puts out: to the network, "look-ahead" is how far the
    frames it hears lie behind those it puts out, and it is given the two side by side. So steps need not be
    neighbours in time, and silence can be left out.

    Raises:
        ImportError: if onnx or another package of the extra is not installed.
        ModelError: if the model is missing, damaged or no frame model.
    """
    config, weights = frame_weights(model)
    from hifispeech.models.artefact import load_strict
    from hifispeech.models.fast.model import FastModel

    network = FastModel(replace(config, look_ahead=CHUNK_FRAMES))
    load_strict(network, weights.tensors, str(model))
    return network, config.look_ahead
