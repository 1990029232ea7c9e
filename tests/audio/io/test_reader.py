"""Reading audio files: formats, alignment, channel order, block-size invariance."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
import soundfile
from av.codec.codec import UnknownCodecError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hifispeech.audio import io
from hifispeech.audio.io import ffmpeg

from .recordings import encode_av, lag, tone_speech

LOSSLESS = [
    ("a.wav", "WAV", "PCM_U8", 1 / 128),
    ("a.wav", "WAV", "PCM_16", 1 / 32768),
    ("a.wav", "WAV", "PCM_24", 2.0**-23),
    ("a.wav", "WAV", "PCM_32", 2.0**-24),
    ("a.wav", "WAV", "FLOAT", 0.0),
    ("a.wav", "WAV", "DOUBLE", 0.0),
    ("a.wav", "WAV", "ULAW", 0.02),
    ("a.wav", "WAV", "ALAW", 0.02),
    ("a.wav", "WAVEX", "PCM_24", 2.0**-23),
    ("a.rf64", "RF64", "PCM_16", 1 / 32768),
    ("a.w64", "W64", "PCM_24", 2.0**-23),
    ("a.aiff", "AIFF", "PCM_16", 1 / 32768),
    ("a.au", "AU", "FLOAT", 0.0),
    ("a.caf", "CAF", "PCM_24", 2.0**-23),
    ("a.flac", "FLAC", "PCM_16", 1 / 32768),
    ("a.flac", "FLAC", "PCM_24", 2.0**-23),
]


@pytest.mark.parametrize(("name", "container", "subtype", "step"), LOSSLESS)
def test_lossless_formats_read_exactly(tmp_path, name, container, subtype, step):
    audio = tone_speech(10_007, 22_050, channels=2)
    soundfile.write(tmp_path / name, audio.T, 22_050, format=container, subtype=subtype)
    out, rate = io.read(tmp_path / name)
    assert (rate, out.dtype, out.shape) == (22_050, np.float32, audio.shape)
    assert np.abs(out - audio).max() <= step
    with io.open_reader(tmp_path / name) as reader:
        assert reader.info.channels == 2
        assert reader.info.duration_s == pytest.approx(10_007 / 22_050)


LOSSY = [
    # file, codec, rate, bit rate, rate when read, most samples of padding the container leaves unmarked
    ("a.mp3", "libmp3lame", 44_100, None, 44_100, 0),
    ("a.mp3", "libmp3lame", 16_000, None, 16_000, 0),
    ("a.m4a", "aac", 44_100, None, 44_100, 0),
    ("a.m4a", "aac", 16_000, None, 16_000, 0),
    ("a.mp4", "aac", 48_000, None, 48_000, 0),
    ("a.mkv", "aac", 48_000, None, 48_000, 1024),
    ("a.m4a", "alac", 44_100, None, 44_100, 0),
    ("a.opus", "libopus", 48_000, 12_000, 48_000, 0),
    ("a.opus", "libopus", 48_000, 64_000, 48_000, 0),
    ("a.opus", "libopus", 16_000, None, 48_000, 0),
    ("a.webm", "libopus", 48_000, None, 48_000, 0),
    ("a.mkv", "libopus", 48_000, None, 48_000, 0),
    ("a.mp4", "libopus", 48_000, None, 48_000, 0),
    ("a.mka", "flac", 48_000, None, 48_000, 0),
    ("a.wv", "wavpack", 48_000, None, 48_000, 0),
    ("a.mkv", "libmp3lame", 48_000, None, 48_000, 0),
]


@pytest.mark.parametrize(("name", "codec", "rate", "bit_rate", "rate_out", "padding"), LOSSY)
def test_ffmpeg_formats_keep_length_and_alignment(tmp_path, name, codec, rate, bit_rate, rate_out, padding):
    frames = 2 * rate + 11
    audio = tone_speech(frames, rate, channels=2)
    out, got = io.read(encode_av(tmp_path / name, audio, rate, codec, bit_rate))
    factor = rate_out // rate
    assert (got, out.shape[0]) == (rate_out, 2)
    assert 0 <= out.shape[1] - frames * factor <= padding
    for channel in range(2):
        assert lag(out[channel, ::factor], audio[channel]) == 0
        assert np.corrcoef(out[channel, ::factor][:frames], audio[channel])[0, 1] > (
            0.5 if bit_rate == 12_000 else 0.9
        )


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM"])
def test_block_codecs_in_wav_keep_alignment(tmp_path, subtype):
    audio = tone_speech(16_011, 8_000)
    soundfile.write(tmp_path / "a.wav", audio[0], 8_000, subtype=subtype)
    out, rate = io.read(tmp_path / "a.wav")
    assert rate == 8_000
    assert lag(out[0], audio[0]) == 0
    if subtype == "GSM610":  # the only one whose fact chunk libsndfile fills with the true length
        assert out.shape == (1, 16_011)


def test_amr_reads(tmp_path):
    try:
        av.Codec("libopencore_amrnb", "w")
    except UnknownCodecError:
        pytest.skip("this FFmpeg build cannot encode AMR-NB")
    audio = tone_speech(16_000, 8_000)
    out, rate = io.read(encode_av(tmp_path / "a.amr", audio, 8_000, "libopencore_amrnb", 12_200))
    assert (rate, out.shape[0]) == (8_000, 1)
    assert 0 <= out.shape[1] - 16_000 <= 320
    assert abs(lag(out[0], audio[0])) <= 40  # 5 ms of look-ahead the format does not record


def test_audio_of_a_video_is_read(tmp_path):
    audio = tone_speech(48_000, 48_000)
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        sound = container.add_stream("aac", rate=48_000)
        sound.codec_context.layout = "mono"
        container.start_encoding()
        for index in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        for start in range(0, 48_000, 1024):
            block = np.ascontiguousarray(audio[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
            container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    out, rate = io.read(tmp_path / "v.mp4")
    assert (rate, out.shape) == (48_000, (1, 48_000))
    assert lag(out[0], audio[0]) == 0


@pytest.mark.parametrize(
    ("name", "channels"),
    [("a.wav", 8), ("a.flac", 8), ("a.wav", 12), ("a.ogg", 5), ("a.ogg", 3), ("a.opus", 5)],
)
def test_channel_order_survives(tmp_path, name, channels):
    t = np.arange(24_000) / 48_000
    audio = np.stack([0.3 * np.sin(2 * np.pi * (400 + 300 * c) * t) for c in range(channels)])
    io.write(tmp_path / name, audio, 48_000)
    out, _ = io.read(tmp_path / name)
    assert out.shape == audio.shape
    found = [np.argmax(np.abs(np.fft.rfft(row))) * 2 for row in out]
    assert np.round((np.array(found) - 400) / 300).tolist() == list(range(channels))


@pytest.mark.parametrize(
    ("channels", "order"),
    [
        (3, [0, 2, 1]),
        (5, [0, 2, 1, 3, 4]),
        (6, [0, 2, 1, 5, 3, 4]),
        (7, [0, 2, 1, 6, 5, 3, 4]),
        (8, [0, 2, 1, 7, 5, 6, 3, 4]),
    ],
)
@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_ogg_channels_come_in_wav_order(tmp_path, codec, channels, order):
    t = np.arange(24_000) / 48_000  # low, so that the subwoofer channel passes them too
    audio = np.stack([0.3 * np.sin(2 * np.pi * (20 + 12 * c) * t) for c in range(channels)])
    with soundfile.SoundFile(tmp_path / "a.ogg", "w", 48_000, channels, format="OGG", subtype=codec) as file:
        for start in range(0, 24_000, 2_000):
            file.write(audio[:, start : start + 2_000].T)
    out, _ = io.read(tmp_path / "a.ogg")
    assert out.shape == audio.shape
    assert [int(np.argmax(np.abs(audio @ row))) for row in out] == order


def test_eight_channel_aac(tmp_path):
    audio = np.stack([0.3 * np.sin(2 * np.pi * (20 + 12 * c) * np.arange(48_000) / 48_000) for c in range(8)])
    out, _ = io.read(encode_av(tmp_path / "a.m4a", audio, 48_000, "aac"))
    assert out.shape == audio.shape
    assert [int(np.argmax(np.abs(audio @ row))) for row in out] == list(range(8))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block_frames=st.integers(1, 30_000), name=st.sampled_from(["a.wav", "a.m4a", "a.webm"]))
def test_blocks_join_to_the_whole_for_any_size(block_files, block_frames, name):
    path, whole = block_files[name]
    with io.open_reader(path) as reader:
        blocks = list(reader.blocks(block_frames))
        again = np.concatenate(list(reader.blocks(999)), axis=1)
    assert all(block.shape[1] == block_frames for block in blocks[:-1])
    assert 0 < blocks[-1].shape[1] <= block_frames
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)
    np.testing.assert_array_equal(again, whole)


@pytest.mark.parametrize("frames", [1, 480, 2400])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_short_clips_keep_their_length(tmp_path, name, frames):
    io.write(tmp_path / name, tone_speech(frames, 48_000), 48_000)
    assert io.read(tmp_path / name)[0].shape == (1, frames)


def test_itunes_length_is_used(tmp_path):
    path = encode_av(tmp_path / "a.m4a", tone_speech(44_100, 44_100), 44_100, "aac")
    told = SimpleNamespace(duration=45_056, time_base=Fraction(1, 44_100))
    smpb = " 00000000 00000400 000003BC 000000000000AC44 00000000"
    container = SimpleNamespace(metadata={"iTunSMPB": smpb}, format=SimpleNamespace(name="mov,mp4,m4a"))
    assert ffmpeg._length_limit(path, cast(Any, container), cast(Any, told), 44_100) == 44_100
    chunks = [np.ones((1, 1000), np.float32)] * 3
    assert sum(c.shape[1] for c in ffmpeg._cut(iter(chunks), 2100)) == 2100
    lie = [np.ones((1, 1000), np.float32)] * 30
    assert sum(c.shape[1] for c in ffmpeg._cut(iter(lie), 2100)) == 30_000
