"""The offline model keeps the promises: windows nobody hears, exact length, gain, silence, context."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hifispeech import Upscaler
from hifispeech.audio.bands import BANDS
from hifispeech.audio.io.reader import read
from hifispeech.audio.spectral import HOP, N_FFT, stft
from hifispeech.errors import ModelError
from hifispeech.infer import load, offline
from hifispeech.infer.frames import BINS, EdgeTrack
from hifispeech.infer.load import open_model
from hifispeech.infer.offline import OVERLAP, STEP, WINDOW, OfflineModel, OfflineProcessor

EDGE = 150  # 3.5 kHz
EDGES = EdgeTrack((0,), (EDGE,), (EDGE + 4,))
RATE = 48000
PHONE = Path(__file__).resolve().parents[2] / "examples" / "phone_8k.wav"


class FlatModel(OfflineModel):
    """A model without memory: the band above continues at the level of the loudest known band."""

    def __init__(self) -> None:
        self.starts: list[tuple[int, int]] = []

    def envelope(self, logs: np.ndarray, first: np.ndarray, start: int) -> np.ndarray:
        self.starts.append((start, len(logs)))
        known = np.where(np.arange(BANDS) < first[:, None], logs, -20.0)
        return np.repeat(known.max(1, keepdims=True) - 2.0, BANDS, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def packaged() -> OfflineModel:
    model = open_model("offline")
    assert isinstance(model, OfflineModel)
    return model


def narrow(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise bursts below 3.4 kHz, `[time]` at 48 kHz."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[int(3400 / RATE * count) :] = 0
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * np.arange(count) / RATE)
    return (0.1 * np.fft.irfft(spectrum, count) * swell).astype(np.float32)


def run(
    model: OfflineModel, audio: np.ndarray, block: int | None = None, edges: EdgeTrack = EDGES
) -> np.ndarray:
    processor = OfflineProcessor(model, edges)
    step = block or max(1, len(audio))
    parts = [processor.push(audio[i : i + step]) for i in range(0, len(audio), step)]
    return np.concatenate([*parts, processor.flush()])


@given(samples=st.integers(0, 9000), block=st.integers(1, 5000))
@settings(max_examples=30, deadline=None)
def test_length_is_exact_whatever_the_blocks(samples: int, block: int) -> None:
    audio = narrow(0.2)[:samples]
    out = run(FlatModel(), audio, block)
    assert len(out) == samples
    np.testing.assert_array_equal(out, run(FlatModel(), audio))


def test_windows_are_on_a_grid_and_not_heard() -> None:
    """A model without memory must give the same in windows as at once."""
    audio = narrow((2 * WINDOW + 300) * HOP / RATE)
    model = FlatModel()
    out = run(model, audio, 100_000)
    assert [start for start, _ in model.starts][:2] == [0, STEP]
    assert all(length <= WINDOW for _, length in model.starts)
    middle = slice((STEP + OVERLAP // 2 - 60) * HOP, (STEP + OVERLAP // 2 + 60) * HOP)
    assert np.isfinite(out).all() and len(out) == len(audio)
    added = out[middle] - audio[middle]
    # The level of the added band is that of the flat envelope across the seam.
    cells = np.square(added).reshape(-1, 60 * HOP // 10).mean(1)
    assert cells.max() < 30 * np.median(cells)


def test_a_short_last_window_has_context() -> None:
    model = FlatModel()
    run(model, narrow((WINDOW + OVERLAP) * HOP / RATE))
    assert model.starts[-1][1] == WINDOW, "it is seen together with what went before"


def test_memory_is_that_of_a_window() -> None:
    processor = OfflineProcessor(FlatModel(), EDGES)
    block = narrow(1.0)
    held = []
    for _ in range(140):
        processor.push(block)
        held.append(len(processor.waiting) + processor.logs.size)
    assert max(held[90:]) <= 1.1 * max(held[:90])


def test_input_is_kept_below_the_edge(packaged: OfflineModel) -> None:
    audio = narrow(3.0)
    before, after = (stft(x.astype(np.float64))[:, : EDGE - 8] for x in (audio, run(packaged, audio)))
    assert np.square(np.abs(after - before)).sum() < 1e-7 * np.square(np.abs(before)).sum()


def test_a_band_is_added(packaged: OfflineModel) -> None:
    audio = narrow(3.0)
    added = np.square(np.abs(stft(run(packaged, audio))[:, EDGE + 20 :])).sum()
    assert added > 1e-6 * np.square(np.abs(stft(audio))).sum()


@pytest.mark.parametrize("gain", [10.0, 0.1, 0.01])
def test_gain_in_is_gain_out(packaged: OfflineModel, gain: float) -> None:
    audio = narrow(3.0)
    plain, scaled = run(packaged, audio), run(packaged, np.float32(gain) * audio) / gain
    assert np.abs(plain - scaled).max() < 1e-3 * np.abs(plain).max()


def test_silence_stays_silent(packaged: OfflineModel) -> None:
    assert not run(packaged, np.zeros(3 * RATE, np.float32)).any()
    audio = np.concatenate([narrow(1.0), np.zeros(2 * RATE, np.float32), narrow(1.0)])
    out = run(packaged, audio)
    assert not out[RATE + 4 * N_FFT : 3 * RATE - 4 * N_FFT].any()


def test_full_band_passes_through(packaged: OfflineModel) -> None:
    audio = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    np.testing.assert_array_equal(run(packaged, audio, edges=EdgeTrack((0,), (BINS,), (BINS,))), audio)


@pytest.mark.parametrize("samples", [0, 1, 2, 100, 4799, HOP, N_FFT])
def test_short_clips(packaged: OfflineModel, samples: int) -> None:
    out = run(packaged, narrow(0.2)[:samples])
    assert len(out) == samples and np.isfinite(out).all()


def test_a_change_of_the_edge_is_followed() -> None:
    edges = EdgeTrack((0, RATE), (BINS, EDGE), (BINS, EDGE + 4))
    audio = narrow(2.0)
    out = run(FlatModel(), audio, edges=edges)
    assert np.abs(out[: RATE - N_FFT] - audio[: RATE - N_FFT]).max() < 1e-6
    assert np.abs(out[RATE + N_FFT :] - audio[RATE + N_FFT :]).max() > 1e-4


def test_levelled_looks_at_the_known_bands_only() -> None:
    logs = np.full((20, BANDS), -3.0, np.float32)
    other = logs.copy()
    other[:, 60:] = 5.0
    assert offline.levelled(logs, 40)[1] == offline.levelled(other, 40)[1]


def test_threads_do_not_change_a_bit() -> None:
    audio = narrow(4.0)
    first, *others = (Upscaler(threads=threads).process(audio, RATE) for threads in (1, 2, 4))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_pytorch_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "has_onnx_cuda", lambda: False)
    monkeypatch.setattr(load, "has_torch_cuda", lambda: True)
    with pytest.raises(ModelError, match="'offline' runs on a GPU in ONNX Runtime only"):
        open_model("offline", "cuda")


def test_it_is_the_default() -> None:
    assert isinstance(Upscaler().model, OfflineModel)


def third_octaves(audio: np.ndarray, lowest_hz: float = 4500.0) -> np.ndarray:
    """Level of each third-octave band from `lowest_hz` up, in dB. Shape: `[time]` to `[bands]`."""
    power, hertz = np.square(np.abs(np.fft.rfft(audio))), np.fft.rfftfreq(len(audio), 1 / RATE)
    centres = lowest_hz * 2 ** (np.arange(7) / 3)
    edges = [(c / 2 ** (1 / 6), c * 2 ** (1 / 6)) for c in centres]
    return np.array([10 * np.log10(power[(hertz >= a) & (hertz < b)].sum() + 1e-12) for a, b in edges])


def noise(seconds: float, level_db: float, seed: int = 0) -> np.ndarray:
    """White noise at 8 kHz. Shape: `[time]`."""
    count = int(seconds * 8000)
    return (10 ** (level_db / 20) * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


BEFORE = {
    "16-bit dither, 2 s": noise(2, -98),
    "16-bit dither, 60 s": noise(60, -98),
    "idle mu-law, 30 s": np.round(noise(30, -72) * 4096) / np.float32(4096),
    "room noise, 10 s": noise(10, -60),
    "room noise, 60 s": noise(60, -60),
    "digital silence, 10 s": np.zeros(80_000, np.float32),
    "digital silence, 60 s": np.zeros(480_000, np.float32),
}


@pytest.fixture(scope="module")
def phrase() -> np.ndarray:
    audio, rate = read(PHONE)
    assert rate == 8000
    return audio[0]


@pytest.mark.parametrize("name", [*BEFORE, "talker 30 dB softer"])
def test_a_phrase_gets_the_same_band_whatever_stood_before(
    packaged: OfflineModel, phrase: np.ndarray, name: str
) -> None:
    """Within 2 dB in every third of an octave above the cutoff; see guarantees.md."""
    before = BEFORE.get(name, np.tile(phrase[::-1], 4) * np.float32(10 ** (-30 / 20)))
    upscaler = Upscaler()
    alone = upscaler.process(phrase, 8000, cutoff_hz=3400.0)
    after = upscaler.process(np.concatenate([before, phrase]), 8000, cutoff_hz=3400.0)[-len(alone) :]
    assert np.abs(third_octaves(after) - third_octaves(alone)).max() < 2.0
