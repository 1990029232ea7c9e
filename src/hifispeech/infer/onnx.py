"""ONNX Runtime backend of the frame models."""

import json
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state  # pyright: ignore[reportAttributeAccessIssue]

from hifispeech.audio.excitation import noise_frames
from hifispeech.audio.spectral import HOP, N_FFT
from hifispeech.errors import ModelError
from hifispeech.weights.packaged import FORMAT, read_model

LOAD_ERRORS = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)

State = list[npt.NDArray[np.float32]]
Feed = dict[str, npt.NDArray[np.float32]]


def planes(spectrum: npt.NDArray[np.complexfloating]) -> npt.NDArray[np.float32]:
    """Real and imaginary parts as planes. Shape: complex `[time, bins]` to `[time, 2, bins]`."""
    return np.stack([spectrum.real, spectrum.imag], axis=1).astype(np.float32, copy=False)


def complex_of(parts: npt.NDArray[np.float32]) -> npt.NDArray[np.complex64]:
    """Inverse of `planes`. Shape: `[time, 2, bins]` to complex `[time, bins]`."""
    out = np.empty((parts.shape[0], parts.shape[2]), np.complex64)
    out.real, out.imag = parts[:, 0], parts[:, 1]
    return out


def rows(table: npt.NDArray[np.float32], first: int, count: int) -> npt.NDArray[np.float32]:
    """Rows from `first` on of a table that repeats. Shape: `[period, ...]` to `[count, ...]`."""
    first %= len(table)
    if first + count <= len(table):
        return table[first : first + count]
    return table[(first + np.arange(count)) % len(table)]


def execution_providers(device: str) -> list[str]:
    """ONNX Runtime providers of "auto" (CUDA where this ONNX Runtime has it, else the CPU), "cpu" or "cuda".

    Raises:
        ModelError: for another name, or where there is no CUDA.
    """
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"device={device!r} is unknown; use auto, cpu or cuda")
    if device == "cuda" and not cuda:
        raise ModelError("device='cuda' is not available; pip install onnxruntime-gpu, or use device='cpu'")
    return (
        ["CUDAExecutionProvider", "CPUExecutionProvider"]
        if cuda and device != "cpu"
        else ["CPUExecutionProvider"]
    )


def open_session(
    model: str | Path, device: str = "auto", threads: int | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on a packaged model or an `.onnx` file; arguments as those of `FrameModel`.

    Raises:
        ModelError: if the file is missing or damaged, or the device is not there.
    """
    providers = execution_providers(device)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # lengths vary: plans for each would hold 50 MB and save no time
    if threads is not None:
        options.intra_op_num_threads = threads
    content = read_model(model)
    try:
        # Sum and normalisation in one operator take longer than one after the other (ONNX Runtime 1.31, CPU).
        return onnxruntime.InferenceSession(
            content, options, providers=providers, disabled_optimizers=["SkipLayerNormFusion"]
        )
    except (ValueError, *LOAD_ERRORS) as error:
        raise ModelError(f"{model} is not a hifispeech model or is damaged; export it again") from error


class FrameModel:
    """A frame model in ONNX Runtime: spectrum frames in, generated frames out, all memory in state tensors.

    Args:
        model: name of a packaged model or path of an `.onnx` file made by `hifispeech export`.
        device: "auto", "cpu" or "cuda"; see `execution_providers`.
        threads: threads of ONNX Runtime; None leaves the choice to it.
        session: the model's session, if it is open already.

    Raises:
        ModelError: if the file is missing, damaged, or not a frame model of this version.
    """

    def __init__(
        self,
        model: str | Path = "fast",
        device: str = "auto",
        threads: int | None = None,
        *,
        session: onnxruntime.InferenceSession | None = None,
    ) -> None:
        self.session = session or open_session(model, device, threads)
        try:
            meta = self.session.get_modelmeta().custom_metadata_map
            own = json.loads(meta["hifispeech"])
            self.config: dict[str, int] = own["model"]
            self.max_frames = int(own["max_frames"]) if own["format"] == FORMAT else 0
        except (KeyError, ValueError) as error:
            raise ModelError(f"{model} is not a hifispeech frame model; export it again") from error
        if not self.max_frames:
            raise ModelError(f"{model} was made for another version of hifispeech; export it again")
        if (self.config["n_fft"], self.config["hop"]) != (N_FFT, HOP):
            raise ModelError(
                f"{model} uses n_fft/hop {self.config['n_fft']}/{self.config['hop']}; {N_FFT}/{HOP} is read"
            )
        self.look_ahead = self.config["look_ahead"]
        self.state_inputs = [node for node in self.session.get_inputs() if node.name.startswith("state_")]

    def initial_state(self) -> State:
        """The state before the first frame: zeros."""
        return [np.zeros([int(size) for size in node.shape], np.float32) for node in self.state_inputs]

    def run(
        self,
        spectrum: npt.NDArray[np.complex64],
        first_output: int,
        cutoff_bin: int,
        state: State,
    ) -> tuple[npt.NDArray[np.complex64], State]:
        """Generate the band above the cutoff for all frames but the last `look_ahead`.

        Shape:
            spectrum `[time + look_ahead, bins]`, where `time` is at most `max_frames`; the first bin to
            generate is `cutoff_bin`, for all frames; `first_output` is the absolute number of the first frame
            (it picks the noise). Returns `[time, bins - cutoff_bin]` (one bin at least) and the state after
            the last frame: the next call begins `time` frames later.
        """
        generated, after = self.step(self.feed(spectrum, first_output, cutoff_bin), state)
        return complex_of(generated), after

    def feed(self, spectrum: npt.NDArray[np.complex64], first_output: int, cutoff_bin: int) -> Feed:
        """The graph's inputs but the state, as in `run`: what can be prepared while the model still works."""
        time, bins = len(spectrum) - self.look_ahead, spectrum.shape[1]
        cutoff_bin = min(cutoff_bin, bins - 1)  # full band: the model listens on
        low = min(cutoff_bin + self.config["pass_bins"], bins)
        return {
            "spectrum": planes(spectrum[:, :low])[None],
            "noise": np.ascontiguousarray(rows(noise_frames(), first_output, time)[None, :, :, cutoff_bin:]),
            "cutoff_bin": np.full((1, 1), cutoff_bin, np.float32),
        }

    def step(self, feed: Feed, state: State) -> tuple[npt.NDArray[np.float32], State]:
        """Run the graph. Returns the generated planes `[time, 2, bins - cutoff_bin]` and the new state."""
        memory = {node.name: array for node, array in zip(self.state_inputs, state, strict=True)}
        generated, *after = cast(State, self.session.run(None, feed | memory))
        return generated[0], after
