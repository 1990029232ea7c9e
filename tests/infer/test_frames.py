"""The generator: any partition gives the same numbers, silence stays, nothing below the edge changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hifispeech.audio.spectral import stft
from hifispeech.errors import ModelError
from hifispeech.infer.frames import EdgeTrack, Generator, silence_gate
from hifispeech.infer.onnx import FrameModel

EDGE = 170


@pytest.fixture(scope="module")
def model() -> FrameModel:
    return FrameModel("fast", threads=1)


def narrow_speech(synthetic_speech, seconds: float, seed: int = 0) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Synthetic speech without anything above bin EDGE + 8, 48 kHz. Shape: `[time]`."""
    audio = synthetic_speech(seconds, 48000, seed)
    spectrum = np.fft.rfft(audio)
    spectrum[int((EDGE + 8) * 48000 / 2048 * seconds) :] = 0
    return np.fft.irfft(spectrum, len(audio)).astype(np.float32)


def run_edges(model, audio: np.ndarray, edges: EdgeTrack) -> np.ndarray:  # type: ignore[no-untyped-def]
    generator = Generator(model, edges)
    return np.concatenate([generator.push(audio), generator.flush()])


def run(
    model: FrameModel,
    audio: np.ndarray,
    sizes: list[int],
    chunk_frames: int = 128,
    least_frames: int | None = None,
) -> np.ndarray:
    edges = EdgeTrack((0,), (EDGE,), (EDGE,))
    generator = Generator(model, edges, chunk_frames, least_frames=least_frames)
    parts, start, turn = [], 0, 0
    while start < len(audio):
        size = sizes[turn % len(sizes)]
        parts.append(generator.push(audio[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate([*parts, generator.flush()])


@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    chunk_frames=st.integers(1, 70),
    least_frames=st.sampled_from([None, 1]),
)
@settings(deadline=None, max_examples=12)
def test_partition_and_chunk_length_do_not_matter(  # type: ignore[no-untyped-def]
    model, synthetic_speech, sizes, chunk_frames, least_frames
) -> None:
    audio = narrow_speech(synthetic_speech, 0.7)
    whole = run(model, audio, [len(audio)])
    assert len(whole) == len(audio)
    assert np.abs(run(model, audio, sizes, chunk_frames, least_frames) - whole).max() <= 1e-5


@pytest.mark.parametrize("length", [1, 63, 64, 511, 512, 2048, 2049, 4801])
def test_length_is_kept(model: FrameModel, length: int) -> None:
    audio = np.random.default_rng(length).standard_normal(length).astype(np.float32) * 0.1
    assert run(model, audio, [100]).shape == (length,)


@pytest.mark.parametrize("gain", [1e-3, 0.1, 3.0])
def test_gain_in_is_gain_out(model: FrameModel, synthetic_speech, gain: float) -> None:  # type: ignore[no-untyped-def]
    audio = narrow_speech(synthetic_speech, 1.5)
    plain = run(model, audio, [len(audio)])
    scaled = run(model, audio * np.float32(gain), [len(audio)]) / gain
    error_db = 10 * np.log10(np.sum((scaled - plain) ** 2) / np.sum(plain**2))
    assert error_db < -60


def test_digital_silence_inside_a_signal_stays_silent(model: FrameModel, synthetic_speech) -> None:  # type: ignore[no-untyped-def]
    audio = narrow_speech(synthetic_speech, 2.0)
    audio[30000:60000] = 0
    out = run(model, audio, [len(audio)])
    assert np.abs(out[30300:59700]).max() == 0
    assert np.abs(out - audio)[:30000].max() > 1e-3


@pytest.mark.parametrize("frames", [40, 1000])
def test_leading_silence_only_delays(model: FrameModel, synthetic_speech, frames: int) -> None:  # type: ignore[no-untyped-def]
    """Digital silence does not move the model's memory: the gains after it are those of a fresh start."""
    audio = narrow_speech(synthetic_speech, 1.0)
    delay = 512 * frames
    plain = run(model, audio, [len(audio)])
    late = run(model, np.concatenate([np.zeros(delay, np.float32), audio]), [len(audio)])
    levels = [np.log10(np.mean(np.abs(stft(x[-len(audio) :]))[20:, EDGE + 4 :] ** 2)) for x in (plain, late)]
    assert abs(levels[0] - levels[1]) < 0.05


def test_silence_between_words_is_forgotten_however_long(model: FrameModel, synthetic_speech) -> None:  # type: ignore[no-untyped-def]
    audio = narrow_speech(synthetic_speech, 1.0)
    levels = []
    for pause in (512 * 20, 512 * 1000):
        out = run(model, np.concatenate([audio, np.zeros(pause, np.float32), audio]), [7000])
        levels.append(np.log10(np.mean(np.abs(stft(out[-len(audio) :]))[4:, EDGE + 4 :] ** 2)))
    assert abs(levels[0] - levels[1]) < 0.05


def test_band_below_the_edge_is_untouched(model: FrameModel, synthetic_speech) -> None:  # type: ignore[no-untyped-def]
    audio = narrow_speech(synthetic_speech, 1.5)
    out = run(model, audio, [len(audio)])
    # Without the frames that hold the signal's ends, where a mirrored high band is no high band any more.
    low = [stft(x)[2:-2, : int(0.9 * EDGE)] for x in (audio, out)]
    assert np.sum(np.abs(low[0] - low[1]) ** 2) < 1e-9 * np.sum(np.abs(low[0]) ** 2)
    high = np.mean(np.abs(stft(out)[:, EDGE + 20 :]) ** 2)
    assert high > 30 * np.mean(np.abs(stft(audio)[:, EDGE + 20 :]) ** 2)


def test_edge_track_switches_at_its_start() -> None:
    track = EdgeTrack((0, 1000, 5000), (85, 300, 1025), (90, 310, 1025))
    intact, crossover = track.at(np.array([-1536, 0, 999, 1000, 4999, 5000]))
    np.testing.assert_array_equal(intact, [85, 85, 85, 300, 300, 1025])
    np.testing.assert_array_equal(crossover, [90, 90, 90, 310, 310, 1025])
    assert track.generates
    assert not EdgeTrack().generates


class Fake:
    """A model that generates nothing, strictly from its cutoff on."""

    look_ahead, max_frames = 2, 128

    def initial_state(self) -> list[np.ndarray]:
        return []

    def feed(self, spectrum: np.ndarray, first_output: int, cutoff_bin: int) -> dict[str, np.ndarray]:
        time, bins = len(spectrum) - self.look_ahead, spectrum.shape[1]
        return {"shape": np.array([time, 2, bins - cutoff_bin])}

    def step(
        self, feed: dict[str, np.ndarray], state: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        return np.zeros(feed["shape"], np.float32), state


@pytest.mark.parametrize("edges", [(100, 300), (300, 100)])
def test_switch_uses_only_what_the_model_means(edges: tuple[int, int]) -> None:
    """The model's frames are late: after a switch, the first belong to the time before it."""
    tone = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(96000) / 48000).astype(np.float32)
    out = run_edges(Fake(), tone, EdgeTrack((0, 48000), edges, edges))
    assert np.abs(out - tone)[2048:-2048].max() < 1e-3


def test_gate_opens_around_signal_only() -> None:
    context = np.zeros(256 + 2048 + 256, np.float32)
    assert np.all(silence_gate(context, 2048) == 0)
    context[256 + 1024] = 0.1
    gate = silence_gate(context, 2048)
    assert gate is not None
    assert gate[1024] == 1 and gate[:512].max() == 0 and gate[1600:].max() == 0
    assert silence_gate(np.ones(256 + 512 + 256, np.float32), 512) is None


@given(st.lists(st.booleans(), min_size=10, max_size=30))
@settings(deadline=None)
def test_gate_is_open_within_three_cells_of_signal(heard: list[bool]) -> None:
    """At the middle of each cell of 64 samples, the gate says whether a cell up to three away has signal."""
    context = np.repeat(np.array(heard, np.float32), 64)
    gate = silence_gate(context, 64 * (len(heard) - 8))
    expected = [any(heard[max(0, i - 3) : i + 4]) for i in range(4, len(heard) - 4)]
    if gate is None:
        assert all(heard)
    else:
        middles = (gate[31::64] + gate[32::64]) / 2
        np.testing.assert_array_equal(middles > 0.75, expected)


def test_unknown_and_damaged_models_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ModelError, match="not found"):
        FrameModel("nonesuch")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="export it again"):
        FrameModel(broken)
