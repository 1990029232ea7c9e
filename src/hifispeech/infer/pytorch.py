"""A frame model in PyTorch, where `FrameModel` runs it in ONNX Runtime: for GPUs that only PyTorch finds.

Needs the extra `train`; PyTorch is imported inside the functions.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from hifispeech.audio.spectral import HOP, N_FFT
from hifispeech.errors import ModelError
from hifispeech.infer.onnx import Feed, FrameModel, State
from hifispeech.weights.packaged import read_model

if TYPE_CHECKING:
    from hifispeech.models.artefact import Weights
    from hifispeech.models.fast.config import FastConfig

MAX_FRAMES = 128


class TorchFrameModel(FrameModel):
    """The numbers of `FrameModel`, apart from rounding, by PyTorch.

    Args:
        model: name of a packaged model or path of an `.onnx` file made by `hifispeech export`.
        device: "cpu", "cuda" or "mps", which is there.

    Raises:
        ImportError: if PyTorch or onnx is not installed.
        ModelError: if the model is missing, damaged or no frame model.
    """

    def __init__(self, model: str | Path = "fast", device: str = "cpu") -> None:
        config, weights = frame_weights(model)
        import torch

        from hifispeech.models.artefact import load_strict
        from hifispeech.models.fast.model import FastModel

        network = FastModel(config)
        load_strict(network, weights.tensors, str(model))
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.config = cast(dict[str, int], weights.config)
        self.look_ahead, self.max_frames = config.look_ahead, MAX_FRAMES

    def initial_state(self) -> State:
        """The state before the first frame: zeros."""
        return [part.numpy() for part in self.network.initial_state()]

    def step(self, feed: Feed, state: State) -> tuple[npt.NDArray[np.float32], State]:
        """Run the network. Returns the generated planes `[time, 2, bins - cutoff_bin]` and the new state."""
        import torch

        inputs = (feed["spectrum"], feed["noise"], feed["cutoff_bin"], *state)
        with torch.inference_mode():
            outputs = self.network(*(torch.from_numpy(part).to(self.device) for part in inputs))
            generated, *after = (part.cpu().numpy() for part in outputs)
        return generated[0], after


def frame_weights(model: str | Path) -> "tuple[FastConfig, Weights]":
    """Sizes and weights of a packaged or exported frame model.

    Raises:
        ImportError: if PyTorch, onnx or another package of the extra is not installed.
        ModelError: if the model is missing, damaged or no frame model.
    """
    content = read_model(model)
    try:
        from hifispeech.models.artefact import config_from_dict
        from hifispeech.models.fast.config import FastConfig
        from hifispeech.models.fast.recover import recover

        weights = recover(content, str(model))
    except ModuleNotFoundError as error:
        raise ImportError(
            f'a frame model in PyTorch needs {error.name}; install it with: pip install "hifispeech[train]"'
        ) from error
    config = config_from_dict(FastConfig, weights.config)
    if (config.n_fft, config.hop) != (N_FFT, HOP):
        raise ModelError(f"{model} uses n_fft/hop {config.n_fft}/{config.hop}; {N_FFT}/{HOP} is read")
    return config, weights
