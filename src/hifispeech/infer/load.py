"""Which model runs and how: in ONNX Runtime, or in PyTorch (waveform models; on GPUs frame models, too)."""

import os
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import onnxruntime

from hifispeech.errors import ModelError
from hifispeech.infer.frames import CHUNK_FRAMES, EdgeTrack, Generator
from hifispeech.infer.offline import OfflineModel, OfflineProcessor
from hifispeech.infer.onnx import FrameModel, open_session
from hifispeech.infer.pytorch import TorchFrameModel
from hifispeech.infer.windows import Samples, WaveformGenerator
from hifispeech.weights.packaged import DEFAULT, KIND_KEY, OFFLINE_KIND, STREAMING

MOST_THREADS = 4  # more do not make so small a network as a frame model faster
WAVEFORM_KIND = "hifisr"
CUDA = "CUDAExecutionProvider"


class OnnxWaveform:
    """A waveform model exported by `hifispeech export`, in ONNX Runtime: no PyTorch."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def run(self, audio: Samples) -> Samples:
        """Shape: `[time]`, whole hops, kept."""
        (wideband,) = self.session.run(None, {"audio": audio[None, None]})
        return np.asarray(wideband)[0, 0]


class TorchWaveform:
    """A waveform model of a `.safetensors` file in PyTorch, weight norm folded.

    Args:
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda" or "mps".
        threads: threads of PyTorch, for the whole process; None leaves the choice to it.

    Raises:
        ImportError: if PyTorch is not installed.
        ModelError: if the file is missing, damaged or no waveform model, or the device is not there.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        try:
            import torch

            from hifispeech.models.hifisr import load_hifisr
            from hifispeech.models.hifisr.fast_conv import speed_up
        except ModuleNotFoundError as error:
            raise ImportError(
                f'{path} needs {error.name}; install it with: pip install "hifispeech[train]", '
                "or export the model to .onnx with `hifispeech export`, which runs without"
            ) from error
        from hifispeech.models.artefact import read_kind

        if (kind := read_kind(path)) != WAVEFORM_KIND:
            raise ModelError(
                f"{path} holds a {kind!r} model, which runs as .onnx; use: hifispeech export {path} -o X.onnx"
            )
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = torch.device(torch_device(device))
        network = load_hifisr(path).fold()
        self.network = speed_up(network) if self.device.type == "cpu" else network.to(self.device)

    def run(self, audio: Samples) -> Samples:
        """Shape: `[time]`, whole hops, kept."""
        import torch

        with torch.inference_mode():
            signal = torch.from_numpy(audio).to(self.device)[None, None]
            return self.network(signal)[0, 0].float().cpu().numpy()


Model = FrameModel | OfflineModel | OnnxWaveform | TorchWaveform


def open_model(model: str | Path = DEFAULT, device: str = "auto", threads: int | None = None) -> Model:
    """The model of a packaged name, of an exported `.onnx`, or of the `.safetensors` of a waveform model.

    On "cuda", an `.onnx` runs in ONNX Runtime if that has CUDA, and else, if it is a frame model, in PyTorch
    if that has.

    Raises:
        ModelError: if it is missing or damaged, or the device is not there.
        ImportError: if it needs PyTorch and that is not installed.
    """
    if Path(model).suffix == ".safetensors":
        return TorchWaveform(Path(model), device, threads)
    if device == "cuda" and not has_onnx_cuda():
        return _open_in_torch(model)
    # Beside a frame model, a thread of its own does the signal processing (see `Generator`).
    inner_threads = max(1, frame_threads(threads) - 1)
    session = open_session(model, device, inner_threads)
    if device == "cuda" and CUDA not in session.get_providers():  # its libraries could not be loaded
        return _open_in_torch(model)
    kind = session.get_modelmeta().custom_metadata_map.get(KIND_KEY)
    if kind == WAVEFORM_KIND:
        return OnnxWaveform(open_session(model, device, threads))
    if kind == OFFLINE_KIND:
        # Always one thread: sums that threads share out differ in their last bits, and so would the files.
        return OfflineModel(session if inner_threads == 1 else open_session(model, device, 1), model)
    return FrameModel(model, device, threads, session=session)


def has_onnx_cuda() -> bool:
    """Whether this ONNX Runtime was built for CUDA."""
    return CUDA in onnxruntime.get_available_providers()


def has_torch_cuda() -> bool:
    """Whether PyTorch is installed and finds a GPU."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


def _open_in_torch(model: str | Path) -> TorchFrameModel:
    """A frame model on the GPU that ONNX Runtime does not find."""
    if not has_torch_cuda():
        found = (
            "onnxruntime-gpu finds no GPU or not its CUDA libraries"
            if has_onnx_cuda()
            else ("this ONNX Runtime has no CUDA; pip install onnxruntime-gpu in its place")
        )
        raise ModelError(
            f"device='cuda' is not available: {found}, and there is no PyTorch that finds a GPU "
            "(pip install \"hifispeech[train]\"); or use device='cpu'"
        )
    kind = open_session(model, "cpu", 1).get_modelmeta().custom_metadata_map.get(KIND_KEY)
    if kind is not None:
        raise ModelError(
            f"model {str(model)!r} runs on a GPU in ONNX Runtime only; pip install onnxruntime-gpu in place "
            f"of onnxruntime, or use model={STREAMING!r}, or device='cpu'"
        )
    return TorchFrameModel(model, "cuda")


def frame_threads(threads: int | None) -> int:
    """CPU threads for a frame model and what goes on beside it: as asked, or the cores, up to
    `MOST_THREADS`.
    """
    return threads if threads is not None else min(os.cpu_count() or 1, MOST_THREADS)


def make_generator(
    model: Model, edges: EdgeTrack, chunk_frames: int = CHUNK_FRAMES, worker: Executor | None = None
) -> Generator | OfflineProcessor | WaveformGenerator:
    """The generator of one channel; `chunk_frames` and `worker` are for frame models, see `Generator`."""
    if isinstance(model, OfflineModel):
        return OfflineProcessor(model, edges, worker)
    if isinstance(model, FrameModel):
        return Generator(model, edges, chunk_frames, worker)
    return WaveformGenerator(model, edges)


def torch_device(device: str) -> str:
    """PyTorch's name of "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda" or "mps".

    Raises:
        ModelError: for another name, or where there is no such device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if device not in there:
        raise ModelError(f"device={device!r} is unknown; use auto, {', '.join(there)}")
    if not there[device]:
        raise ModelError(f"device={device!r} is not available to PyTorch here; use device='cpu'")
    return device
