"""Upscaling of arrays and files: detect the bandwidth, resample, generate what is missing, write.

A file's way is `infer.file`; an array's is `Resampler -> Generator`, block by block, so that a long one needs
no more memory than a long file.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hifispeech.audio.io.reader import check_loudest
from hifispeech.audio.resample import Resampler, check_rate
from hifispeech.errors import AudioError
from hifispeech.infer.edges import RATE, Track, edge_track, fixed_track, measure
from hifispeech.infer.file import FileReport, InputFile
from hifispeech.infer.load import frame_threads, make_generator, open_model
from hifispeech.weights.packaged import DEFAULT

Progress = Callable[[float, float | None], None]


class Upscaler:
    """Speech at any rate or bandwidth to full-band 48 kHz.

    Args:
        model: name of a packaged model, path of an exported `.onnx`, or of a `.safetensors` of the paper's
            model, which runs in PyTorch.
        device: "auto" (a GPU where ONNX Runtime, for `.safetensors` PyTorch, has one, else the CPU), "cpu",
            "cuda" (by ONNX Runtime, else by PyTorch) or, for `.safetensors`, "mps".
        threads: CPU threads to work with; None takes the cores there are (a packaged model at most four).

    Raises:
        ModelError: if the model is missing or damaged, or the device is not there.
        ImportError: if it needs PyTorch and that is not installed.
    """

    def __init__(
        self, model: str | Path = DEFAULT, device: str = "auto", *, threads: int | None = None
    ) -> None:
        # With a second thread, the model works on one chunk while the next is read, resampled and analysed.
        self.worker = ThreadPoolExecutor(1, "hifispeech") if frame_threads(threads) > 1 else None
        self.model = open_model(model, device, threads)

    def process(
        self, audio: npt.NDArray[np.floating], sample_rate: int, *, cutoff_hz: float | None = None
    ) -> npt.NDArray[np.float32]:
        """Upscale an array; see `hifispeech.upscale`.

        Shape: `[channels, time]` or `[time]` to the same with `round(time * 48000 / sample_rate)` samples.

        Raises:
            AudioError: for NaN or infinity, a wrong shape, or a rate or cutoff out of range.
        """
        sample_rate = check_rate(sample_rate)
        signal = check_audio(audio)
        if cutoff_hz is None:
            tracks = measure([signal], sample_rate, len(signal))
        else:
            tracks = [fixed_track(cutoff_hz, sample_rate)] * len(signal)
        blocks = self.run_blocks(split(signal, sample_rate), sample_rate, signal.shape[0], tracks)
        out = np.concatenate(list(blocks), axis=1)
        return out if np.ndim(audio) == 2 else out[0]

    def run_blocks(
        self,
        blocks: Sequence[npt.NDArray[np.float32]] | Iterator[npt.NDArray[np.float32]],
        sample_rate: int,
        channels: int,
        tracks: list[Track],
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Upscale blocks `[channels, time]` with known tracks, one a channel; yields blocks at 48 kHz."""
        resampler = Resampler(sample_rate, RATE, channels)
        edges = [edge_track(track, sample_rate) for track in tracks]
        if not any(edge.generates for edge in edges):
            for block in blocks:
                yield resampler.push(block)
            yield resampler.flush()
            return
        generators = [make_generator(self.model, edge, worker=self.worker) for edge in edges]
        for block in blocks:
            for part in split(resampler.push(block)):
                yield np.stack([generator.push(x) for generator, x in zip(generators, part, strict=True)])
        rest = resampler.flush()
        yield np.stack(
            [
                np.concatenate([generator.push(x), generator.flush()])
                for generator, x in zip(generators, rest, strict=True)
            ]
        )

    def process_file(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        force: bool = False,
        encoding: str | None = None,
        cutoff_hz: float | None = None,
        peak: str = "limit",
        on_progress: Progress | None = None,
    ) -> FileReport:
        """Upscale a file of any length in constant memory; the format follows the suffix of `output`.

        `on_progress(done_s, total_s)` is called as the work goes on; the total is None where the container
        does not tell it. Without `encoding` the output keeps the precision of the input where its format can.

        Raises:
            AudioError: if the input cannot be read or the output not be written; no partial output is left.
        """
        with InputFile(input) as file:
            check_rate(file.info.sample_rate)
            done = progress_by_half(on_progress, file.info.duration_s)
            writer = file.writer(Path(output), force=force, encoding=encoding, peak=peak)
            with writer:
                if cutoff_hz is None:
                    file.measure(lambda _, seconds: done(seconds, 0))
                else:
                    file.fix(cutoff_hz)
                stage = 1 if cutoff_hz is None else 2
                file.generate(self.run_blocks, writer, lambda: done(writer.frames / RATE, stage))
        return file.report(Path(output), writer)


def check_audio(audio: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Float32 `[channels, time]` of any accepted array.

    Raises:
        AudioError: for integers, NaN, infinity, samples beyond `io.LOUDEST`, no samples, or more than two
            dimensions.
    """
    array = np.asarray(audio)
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"audio is {array.dtype}; pass floating point samples in -1..1 (int16: divide by 32768)"
        )
    if array.ndim not in (1, 2) or array.shape[-1] == 0 or array.shape[0] == 0:
        raise AudioError(
            f"audio has shape {array.shape}; pass [channels, time] or [time] with at least one sample"
        )
    signal = np.atleast_2d(array).astype(np.float32, copy=False)
    wrong = int(np.size(signal) - np.count_nonzero(np.isfinite(signal)))
    if wrong:
        raise AudioError(f"audio holds {wrong} NaN or infinite samples; remove or replace them first")
    check_loudest(signal, "audio")
    return signal


def split(block: npt.NDArray[np.float32], samples: int = 4 * RATE) -> Iterator[npt.NDArray[np.float32]]:
    """Parts of at most `samples` samples, so that a long array needs no more memory than a long file."""
    for start in range(0, block.shape[1], samples):
        yield block[:, start : start + samples]


def progress_by_half(on_progress: Progress | None, total_s: float | None) -> Callable[[float, int], None]:
    """Report two passes as one: measuring (0) counts as a tenth of the work, generating (1) as the rest."""

    def done(seconds: float, stage: int) -> None:
        if on_progress is None:
            return
        offset, share = {0: (0.0, 0.1), 1: (0.1, 0.9), 2: (0.0, 1.0)}[stage]
        on_progress(offset * (total_s or 0.0) + share * seconds, total_s)

    return done
