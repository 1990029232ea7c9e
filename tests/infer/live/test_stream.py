"""Live streams: any partition gives the same numbers, on time, in constant memory; the band is followed."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hifispeech
from hifispeech.audio.bandwidth.meter import Bandwidth
from hifispeech.audio.excitation import noise_frames
from hifispeech.audio.resample import Resampler, output_length, resample
from hifispeech.audio.resample_fir import FirStream
from hifispeech.audio.spectral import HOP, stft
from hifispeech.errors import AudioError, ModelError
from hifispeech.infer.edges import fixed_track
from hifispeech.infer.frames import Generator
from hifispeech.infer.live.follower import BandwidthFollower, edge_of
from hifispeech.infer.live.stream import Stream
from hifispeech.infer.live.switching import SwitchingGenerator
from hifispeech.infer.onnx import FrameModel

RATE = 48000
SAME = 1e-4
GOAL_MS = 80.0
RATES = (2000, 8000, 11025, 16000, 44100, 48000, 96000)


@lru_cache(maxsize=1)
def model() -> FrameModel:
    return FrameModel("fast", "cpu", threads=1)


def low_passed(audio: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """`[time]` at 48 kHz without anything above the cutoff."""
    spectrum = np.fft.rfft(audio)
    spectrum[int(cutoff_hz * len(audio) / RATE) :] = 0
    return np.fft.irfft(spectrum, len(audio)).astype(np.float32)


def noisy(audio: np.ndarray) -> np.ndarray:
    """With the rounding noise of 16 bits, as recordings have it above their band."""
    rng = np.random.default_rng(0)
    return (audio + (rng.random(audio.shape) - rng.random(audio.shape)) / 32768).astype(np.float32)


def blocks(audio: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """`[channels, time]` cut into blocks of these sizes, over and over."""
    start, turn = 0, 0
    while start < audio.shape[1]:
        size = sizes[turn % len(sizes)]
        yield audio[:, start : start + size]
        start, turn = start + size, turn + 1


def streamed(audio: np.ndarray, sizes: list[int], rate: int, **options: Any) -> np.ndarray:
    """What a `Stream` makes of `[channels, time]` in blocks of these sizes."""
    stream = Stream(rate, len(audio), model(), **options)
    return np.concatenate([*(stream.push(block) for block in blocks(audio, sizes)), stream.flush()], axis=1)


def decisions(audio: np.ndarray, rate: int) -> list[tuple[int, Bandwidth]]:
    """(input sample, band) of all decisions about `[time]`, from one pass over the whole; the first at 0."""
    follower = BandwidthFollower(rate)
    found = [(0, follower.bandwidth)]
    for start in range(0, len(audio), follower.until_decision):
        part = audio[start : start + follower.until_decision]
        if follower.push(part):
            found.append((start + len(part), follower.bandwidth))
    return found


class Signals:
    """The signals of these tests, each made once."""

    def __init__(self, speech: Callable[..., np.ndarray]) -> None:
        self.speech = speech
        self.switching = lru_cache(maxsize=8)(self._switching)
        self.live = lru_cache(maxsize=8)(self._live)
        self.whole = lru_cache(maxsize=32)(self._whole)

    def _switching(self, seconds: float, change_s: float, before_hz: float, after_hz: float) -> np.ndarray:
        """Synthetic speech `[time]` at 48 kHz whose band changes at `change_s`."""
        audio = self.speech(seconds, RATE, seed=5)
        parts = [audio if hz >= RATE / 2 else low_passed(audio, hz) for hz in (before_hz, after_hz)]
        at = round(change_s * RATE)
        return noisy(np.concatenate([parts[0][:at], parts[1][at:]]))

    def _live(self, rate: int) -> np.ndarray:
        """`[3, time]` of 2.6 s: narrowband; wideband after 1.2 s; with digital silence inside."""
        pausing = noisy(low_passed(self.speech(2.6, RATE, seed=6), 3400))
        pausing[40000:70000] = 0
        signal = np.stack([self.switching(2.6, 9, 3400, 3400), self.switching(2.6, 1.2, 3400, 7000), pausing])
        return signal if rate == RATE else resample(signal, RATE, rate)

    def _whole(self, rate: int, channel: int, cutoff_hz: float | None) -> np.ndarray:
        """A channel of `live` made as a whole: resampled, then generated from one decision to the next."""
        audio = self.live(rate)[channel]
        wide = resample(audio, rate, RATE, low_latency=True)
        if cutoff_hz is not None:
            generator = Generator(model(), edge_of(fixed_track(cutoff_hz, rate)[0][1], rate))
            return np.concatenate([generator.push(wide), generator.flush()])
        bands, known = decisions(audio, rate), Resampler(rate, RATE, 1, low_latency=True)
        generator = SwitchingGenerator(model(), edge_of(bands[0][1], rate))
        out, sent, before = [], 0, 0
        for at, band in bands[1:]:
            ready = sent + known.push(audio[None, before:at]).shape[1]
            out.append(generator.push(wide[sent:ready]))
            generator.switch(edge_of(band, rate))
            sent, before = ready, at
        return np.concatenate([*out, generator.push(wide[sent:]), generator.flush()])


@pytest.fixture(scope="module")
def signals(synthetic_speech: Callable[..., np.ndarray]) -> Signals:
    return Signals(synthetic_speech)


@given(
    sizes=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 9000)), min_size=1, max_size=6).filter(any),
    rate=st.sampled_from((8000, 44100, 48000)),
    channels=st.sampled_from(([0], [1], [2, 1])),
    cutoff_hz=st.sampled_from((None, 3400.0)),
)
@settings(deadline=None, max_examples=7)
def test_any_partition_equals_the_whole(
    signals: Signals, sizes: list[int], rate: int, channels: list[int], cutoff_hz: float | None
) -> None:
    """Bandwidth given or followed, with changes of it and silence inside."""
    out = streamed(signals.live(rate)[channels], sizes, rate, cutoff_hz=cutoff_hz)
    wanted = np.stack([signals.whole(rate, channel, cutoff_hz) for channel in channels])
    assert out.shape == wanted.shape
    assert np.abs(out - wanted).max() <= SAME


def test_the_bandwidth_changes_inside_the_signal_of_the_partition_test(signals: Signals) -> None:
    """Else that test would say nothing about decisions."""
    changes = [len(decisions(channel, RATE)) for channel in signals.live(RATE)]
    assert changes[1] >= 3 and min(changes) >= 2


def test_single_samples_equal_the_whole(signals: Signals) -> None:
    audio = signals.live(8000)[:1, :7000]
    assert np.abs(streamed(audio, [1], 8000) - streamed(audio, [7000], 8000)).max() <= SAME


def test_stream_at_48_khz_equals_the_upscaler(signals: Signals) -> None:
    signal = signals.live(RATE)
    upscaler = hifispeech.Upscaler("fast", "cpu", threads=1)
    wanted = upscaler.process(signal, RATE, cutoff_hz=3400)
    assert np.abs(streamed(signal, [480], RATE, cutoff_hz=3400) - wanted).max() <= SAME


def test_stream_equals_the_upscaler_with_the_same_resampling(signals: Signals) -> None:
    signal = signals.live(8000)[:2]
    upscaler = hifispeech.Upscaler("fast", "cpu", threads=1)
    wide = resample(signal, 8000, low_latency=True)
    tracks = [fixed_track(3400, 8000)] * 2
    wanted = np.concatenate(list(upscaler.run_blocks([wide], RATE, 2, tracks)), axis=1)
    assert np.abs(streamed(signal, [80], 8000, cutoff_hz=3400) - wanted).max() <= SAME


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [0, 1, 2, 399, 1001])
def test_length_is_exact(rate: int, samples: int) -> None:
    audio = np.random.default_rng(samples).standard_normal((1, samples)).astype(np.float32) * 0.1
    assert streamed(audio, [160], rate).shape == (1, output_length(samples, rate, RATE))


@pytest.mark.parametrize("rate", RATES)
def test_output_is_out_within_the_stated_latency(rate: int) -> None:
    """Sample by sample: never later than stated, and what is stated is not too high."""
    stream = Stream(rate, 1, model(), cutoff_hz=min(rate, RATE) / 2)
    assert stream.latency_ms <= GOAL_MS
    step = RATE / rate
    waiting, sent = 0.0, 0
    for received in range(1, rate // 6):
        sent += stream.push(np.full(1, 0.1, np.float32)).size
        waiting = max(waiting, received * step - sent)
    assert waiting <= stream.latency_samples
    assert waiting >= stream.latency_samples - step - 2


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_an_impulse_comes_out_where_and_when_it_should(rate: int) -> None:
    stream = Stream(rate, 1, model())
    at, block = round(0.23 * rate), rate // 100
    audio = np.zeros(rate, np.float32)
    audio[at] = 0.5
    out, arrival_ms = np.zeros(0, np.float32), 0.0
    for start in range(0, rate, block):
        out = np.concatenate([out, stream.push(audio[start : start + block])])
        if len(out) > at * RATE / rate and not arrival_ms:
            arrival_ms = 1000 * (start + block - at) / rate
    out = low_passed(np.concatenate([out, stream.flush()]), 0.4 * rate)  # what is generated has no one place
    assert abs(int(np.argmax(out)) - at * RATE / rate) <= 1
    assert arrival_ms <= stream.latency_ms + 10  # waits for the block it is in


def test_the_band_that_is_there_is_kept_in_place(speech_clip: Any) -> None:
    """Below the edge the output is the input, at the same time."""
    audio, _ = hifispeech.read(speech_clip)
    audio = resample(audio[:, : 2 * RATE], RATE, 16000)
    out, wanted = streamed(audio, [160], 16000), resample(audio, 16000)
    kept = [stft(x)[0, 4:-4, : int(0.9 * 8000 * 2048 / RATE)] for x in (out, wanted)]
    assert np.sum(np.abs(kept[0] - kept[1]) ** 2) < 1e-6 * np.sum(np.abs(kept[1]) ** 2)


@pytest.mark.parametrize("rate", [8000, RATE])
def test_silence_stays_silence(rate: int) -> None:
    assert not streamed(np.zeros((2, rate), np.float32), [rate // 100], rate).any()


def test_edge_contract(finite_edge_case: Any) -> None:
    case = finite_edge_case
    out = streamed(case.audio, [701], case.sample_rate)
    assert out.shape == (len(case.audio), output_length(case.audio.shape[1], case.sample_rate, RATE))
    assert np.isfinite(out).all()


def test_full_band_comes_back_sample_for_sample(speech_clip: Any) -> None:
    audio, rate = hifispeech.read(speech_clip)
    assert rate == RATE
    np.testing.assert_array_equal(streamed(audio, [4800], rate), audio)


def test_channels_are_what_they_would_be_alone(signals: Signals) -> None:
    signal = signals.live(16000)[1:]
    together = streamed(signal, [333], 16000)
    for channel, out in zip(signal, together, strict=True):
        assert np.abs(streamed(channel[None], [4000], 16000)[0] - out).max() <= SAME


def test_flat_blocks_and_refused_blocks(signals: Signals) -> None:
    """A refused block changes nothing; the caller's buffer can be used again at once."""
    audio = signals.live(8000)[0, :6000]
    stream, wanted = Stream(8000, 1, model()), streamed(audio[None], [6000], 8000)[0]
    buffer = np.zeros(1000, np.float32)
    wrong = (
        np.array([0.1, np.nan], np.float32),
        np.zeros(5, np.int16),
        np.zeros((2, 5), np.float32),
        np.float32(1),
    )
    out = []
    for start in range(0, 6000, 1000):
        for block in wrong:
            with pytest.raises(AudioError):
                stream.push(block)  # type: ignore[arg-type]
        buffer[:] = audio[start : start + 1000]
        out.append(stream.push(buffer))
        buffer[:] = 9
    out.append(stream.flush())
    assert out[0].ndim == 1 and np.abs(np.concatenate(out) - wanted).max() <= SAME
    assert stream.flush().size == 0
    with pytest.raises(RuntimeError, match="new Stream"):
        stream.push(buffer)


def test_impossible_streams_are_refused() -> None:
    for options in ({"sample_rate": 10}, {"sample_rate": 8000, "channels": 0}):
        with pytest.raises(AudioError):
            Stream(model=model(), **options)
    with pytest.raises(AudioError, match="cutoff_hz"):
        Stream(8000, 1, model(), cutoff_hz=9000)
    with pytest.raises(ModelError, match="frame model"):
        Stream(8000, 1, object())  # type: ignore[arg-type]


def band_over_time(audio: np.ndarray) -> list[tuple[float, float]]:
    """(time, cutoff) of every change that the follower makes of `[time]` at 48 kHz."""
    return [(at / RATE, band.cutoff_hz) for at, band in decisions(audio, RATE)]


def test_at_first_nothing_is_taken_to_be_missing() -> None:
    """Up to the Nyquist frequency of the input: no band that is there is thrown away."""
    assert Stream(RATE, 1, model()).bandwidth[0].is_full_band
    stream = Stream(16000, 2, model())
    assert [band.cutoff_hz for band in stream.bandwidth] == [8000, 8000]


@pytest.mark.parametrize(("before_hz", "after_hz", "within_s"), [(3400, 7000, 1.5), (7000, 3400, 5.5)])
def test_a_switch_is_followed_within_the_stated_time(
    signals: Signals, before_hz: float, after_hz: float, within_s: float
) -> None:
    changes = band_over_time(signals.switching(15, 7, before_hz, after_hz))
    before = [edge for time, edge in changes if time <= 7][-1]
    assert before == pytest.approx(before_hz, rel=0.08)
    after = [(time, edge) for time, edge in changes if time > 7]
    assert after and after[0][0] <= 7 + within_s
    assert after[-1][1] == pytest.approx(after_hz, rel=0.08)
    assert all(edge == pytest.approx(after_hz, rel=0.15) for _, edge in after)


@pytest.mark.parametrize("cutoff_hz", [3400, 8000, 24000])
def test_a_steady_band_stays_what_it_is(signals: Signals, cutoff_hz: float) -> None:
    """Hysteresis: after the first seconds, the edge does not move by more than a few per cent."""
    changes = band_over_time(signals.switching(20, 99, cutoff_hz, cutoff_hz))
    late = [edge for time, edge in changes if time > 3] or [changes[-1][1]]
    assert all(edge == pytest.approx(cutoff_hz, rel=0.08) for edge in late)
    assert len(changes) <= 5


def test_silence_says_nothing_about_the_band(signals: Signals) -> None:
    audio = signals.switching(6, 99, 3400, 3400).copy()
    audio[round(3 * RATE) :] = 0
    assert max(time for time, _ in band_over_time(audio)) <= 3.5


def energy_db(audio: np.ndarray) -> np.ndarray:
    """Level of every 5 ms."""
    return 10 * np.log10(np.mean(audio[: len(audio) // 240 * 240].reshape(-1, 240) ** 2, axis=1) + 1e-12)


@pytest.mark.parametrize("edges", [(3400, 7000), (3400, 24000), (7000, 3400)])
def test_a_switch_makes_no_click(edges: tuple[float, float]) -> None:
    """In steady noise, where nothing hides a click: no more high band than on the louder side, no jump."""
    rng = np.random.default_rng(3)
    at, seconds = 3 * RATE, 6 if edges[1] > edges[0] else 10
    noise = 0.1 * rng.standard_normal(seconds * RATE).astype(np.float32)
    parts = [noise if hz >= RATE / 2 else low_passed(noise, hz) for hz in edges]
    audio = noisy(np.concatenate([parts[0][:at], parts[1][at:]]))
    changes = [round(time * RATE) for time, _ in band_over_time(audio) if time > 3]
    assert changes
    out = streamed(audio[None], [480], RATE)[0]
    for high in (out, *(out - low_passed(out, from_hz) for from_hz in (2000, 5000, 10000))):
        for change in changes:
            near = high[change - RATE // 8 : change + RATE // 20]  # the output is late when it changes
            sides = [high[change - RATE : change - RATE // 8], high[change + RATE // 20 : change + RATE]]
            assert energy_db(near).max() <= max(energy_db(side).max() for side in sides) + 1.0
            assert np.abs(np.diff(near)).max() <= 1.15 * max(np.abs(np.diff(side)).max() for side in sides)


def held_bytes(thing: object, seen: set[int]) -> int:
    """Bytes of all arrays and entries that an object holds, the model left out."""
    if id(thing) in seen or isinstance(thing, FrameModel):
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return held_bytes(thing.base, seen) if isinstance(thing.base, np.ndarray) else thing.nbytes
    inner = list(getattr(thing, "__dict__", {}).values())
    if isinstance(thing, dict):
        inner += thing.values()
    elif isinstance(thing, list | tuple | deque):
        inner += thing
    return 64 + sum(held_bytes(value, seen) for value in inner)


def memory_over_time(seconds: tuple[int, int], source: Callable[[int], np.ndarray], rate: int) -> list[int]:
    """Bytes held after each number of seconds of `source(second)`, each `[channels, time]` of a second."""
    stream, sizes = Stream(rate, len(source(0)), model()), []
    for second in range(seconds[1]):
        for block in blocks(source(second), [rate // 50]):
            stream.push(block)
        if second + 1 in seconds:
            sizes.append(held_bytes(stream, set()))
    return sizes


def test_memory_is_constant_over_speech(signals: Signals) -> None:
    """With a band that changes over and over, the costliest for the books."""
    signal = signals.switching(12, 6, 3400, 7000)
    early, late = memory_over_time((8, 20), lambda second: signal[None, second % 12 * RATE :][:, :RATE], RATE)
    assert early > 10_000 and late <= 1.02 * early


@pytest.mark.slow
def test_memory_is_constant_over_time(signals: Signals) -> None:
    """A minute against ten, mostly silence, which is cheap: nothing grows, so a day is no different."""
    word = 0.1 * signals.speech(1.0, 8000, seed=9)[None]
    silence = np.zeros((1, 8000), np.float32)
    early, late = memory_over_time((60, 600), lambda second: word if second % 60 < 3 else silence, 8000)
    assert early > 10_000 and late <= 1.01 * early


def test_nothing_overflows_after_days(signals: Signals) -> None:
    """Sample and frame numbers beyond 32 bits: the resampler, and the noise table of the model."""
    days = 10 * 24 * 3600
    audio = signals.speech(0.5, 44100, seed=1)[:, None]
    fresh, old = FirStream(44100, RATE, 1), FirStream(44100, RATE, 1)
    old.first, old.sent = old.first + days * 44100, days * RATE
    np.testing.assert_array_equal(fresh.resample_chunk(audio), old.resample_chunk(audio))
    spectrum = stft(signals.speech(0.2, RATE, seed=1))
    repeat = len(noise_frames())
    numbers = [5, 5 + days * RATE // HOP // repeat * repeat]
    out = [model().run(spectrum, first, 145, model().initial_state())[0] for first in numbers]
    np.testing.assert_array_equal(out[0], out[1])
