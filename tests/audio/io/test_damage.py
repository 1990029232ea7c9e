"""Files that are no audio, damaged, cut off or lying: a clear error or what is there; constant memory."""

import contextlib
import os
import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hifispeech
from hifispeech.audio import io
from hifispeech.errors import AudioError

from .recordings import codes16, encode_av, tone_speech


def read_error(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        io.read(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_missing_empty_folder_pipe(tmp_path):
    assert "no such file" in read_error(tmp_path / "none.wav")
    assert "folder" in read_error(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "0 bytes" in read_error(tmp_path / "empty.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "regular file" in read_error(tmp_path / "pipe.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.txt", "a.raw", "a.m4a", "a"])
@pytest.mark.parametrize("kind", ["random", "text", "zeros", "playlist", "concat"])
def test_non_audio(tmp_path, name, kind):
    content = {
        "random": np.random.default_rng(5).bytes(60_000),
        "text": b"Dear diary, today was not audio.\n" * 300,
        "zeros": bytes(50_000),
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile secret.wav\n",
    }[kind]
    io.write(tmp_path / "secret.wav", tone_speech(48_000, 48_000), 48_000)
    (tmp_path / name).write_bytes(content)
    assert "hifispeech reads WAV" in read_error(tmp_path / name)


def test_picture_and_silent_video(tmp_path):
    for name, codec in (("p.png", "png"), ("v.mp4", "mpeg4")):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert "not audio" in read_error(tmp_path / "p.png")
    assert "no audio stream" in read_error(tmp_path / "v.mp4")


def test_zero_samples(tmp_path):
    for name in ("a.wav", "a.flac", "a.ogg", "a.aiff"):
        soundfile.write(tmp_path / name, np.zeros((0, 1)), 48_000)
        assert read_error(tmp_path / name)


def test_nan_and_infinity_are_counted_and_located(tmp_path):
    audio = tone_speech(200_000, 48_000, channels=2)
    audio[1, 70_000] = np.nan
    audio[0, 150_000:150_003] = np.inf
    soundfile.write(tmp_path / "a.wav", audio.T, 48_000, subtype="FLOAT")
    message = read_error(tmp_path / "a.wav")
    assert "4 samples are NaN or infinite" in message
    assert "frame 70000 (1.458 s), channel 2" in message


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", None),
        ("a.aiff", None),
        ("a.flac", None),
        ("a.mp3", "libmp3lame"),
        ("a.webm", "libopus"),
        ("a.opus", "libopus"),
        ("a.ogg", None),
        ("a.aac", "aac"),
    ],
)
def test_truncated_files_give_what_is_there(tmp_path, name, codec, caplog):
    audio = codes16(tone_speech(96_000, 48_000))
    path = tmp_path / name
    if codec is None:
        soundfile.write(path, audio.T, 48_000)
    else:
        encode_av(path, audio, 48_000, codec)
    whole, _ = io.read(path)
    caplog.clear()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with io.open_reader(path) as reader:
        part = np.concatenate(list(reader.blocks()), axis=1)
        warned = bool(reader.warnings) and bool(caplog.records)
    assert 0.4 * 96_000 < part.shape[1] < 0.8 * 96_000
    keep = part.shape[1] - 4_096
    np.testing.assert_allclose(part[:, :keep], whole[:, :keep], atol=1e-4)
    assert (
        warned or codec == "aac"
    )  # a bare AAC stream records no length: nothing tells that the end is missing


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"),
        ("a.opus", "libopus"),
        ("a.flac", "flac"),
        ("a.mp3", "libmp3lame"),
        ("a.mkv", "aac"),
        ("a.wav", "pcm_s16le"),
    ],
)
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_truncation_anywhere_never_leaks_an_exception(tmp_path, name, codec, share):
    path = encode_av(tmp_path / name, tone_speech(48_000, 48_000), 48_000, codec)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    try:
        out, _ = io.read(path)
        assert out.shape[1] > 0
    except AudioError as error:
        assert name in str(error)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.wav", "a.m4a", "a.webm"]),
    at=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=40),
)
def test_damage_anywhere_never_leaks_an_exception(block_files, tmp_path, name, at, junk):
    data = bytearray(block_files[name][0].read_bytes())
    start = int(at * (len(data) - 1))
    data[start : start + len(junk)] = junk
    (tmp_path / name).write_bytes(data)
    with contextlib.suppress(AudioError):
        assert io.read(tmp_path / name)[0].shape[1] > 0


def test_damage_does_not_shift_what_follows(tmp_path):
    audio = codes16(tone_speech(200_000, 48_000))
    soundfile.write(tmp_path / "a.flac", audio.T, 48_000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3_000] = bytes(3_000)
    (tmp_path / "a.flac").write_bytes(data)
    with io.open_reader(tmp_path / "a.flac") as reader:
        out = np.concatenate(list(reader.blocks()), axis=1)
        assert any("damaged" in text for text in reader.warnings)
    assert out.shape == audio.shape
    np.testing.assert_array_equal(out[:, -50_000:], audio[:, -50_000:])


def lying_wav(path: Path, size: int, audio: np.ndarray) -> Path:
    soundfile.write(path, audio.T, 48_000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 0x7FFFFFF0, 0xFFFFFFFF, 0x70000000])
def test_wav_that_lies_about_its_length(tmp_path, size):
    audio = codes16(tone_speech(10_000, 48_000, channels=2))
    path = lying_wav(tmp_path / "a.wav", size, audio)
    tracemalloc.start()
    with io.open_reader(path) as reader:
        out = np.concatenate(list(reader.blocks()), axis=1)
        assert bool(reader.warnings) == (size == 0x70000000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(out, audio)
    assert peak < 8e6


def test_flac_that_claims_weeks(tmp_path):
    audio = codes16(tone_speech(10_000, 48_000))
    soundfile.write(tmp_path / "a.flac", audio.T, 48_000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(data)
    with io.open_reader(tmp_path / "a.flac") as reader:
        out = np.concatenate(list(reader.blocks()), axis=1)
        assert any("claims" in text for text in reader.warnings)
    np.testing.assert_array_equal(out, audio)


def test_rate_change_part_way_is_an_error(tmp_path):
    parts = b""
    for rate in (44_100, 22_050):
        parts += encode_av(tmp_path / "a.aac", tone_speech(rate, rate), rate, "aac").read_bytes()
    (tmp_path / "a.aac").write_bytes(parts)
    assert "changes from 44100 Hz" in read_error(tmp_path / "a.aac")


def test_chained_ogg_is_read_whole_or_reported(tmp_path):
    parts = {}
    for rate in (48_000, 24_000):
        io.write(tmp_path / "part.ogg", tone_speech(rate, rate), rate, force=True)
        parts[rate] = (tmp_path / "part.ogg").read_bytes()
    io.write(tmp_path / "again.ogg", tone_speech(48_000, 48_000), 48_000)
    (tmp_path / "same.ogg").write_bytes(parts[48_000] + (tmp_path / "again.ogg").read_bytes())
    assert abs(io.read(tmp_path / "same.ogg")[0].shape[1] - 96_000) <= 1_024
    (tmp_path / "other.ogg").write_bytes(parts[48_000] + parts[24_000])
    with io.open_reader(tmp_path / "other.ogg") as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 48_000
        assert any("changes its format" in text for text in reader.warnings)


def test_reading_and_writing_use_constant_memory(tmp_path):
    block = tone_speech(48_000, 48_000, channels=2)

    def peak_of(seconds: int, name: str) -> int:
        tracemalloc.start()
        with io.AudioWriter(tmp_path / name, 48_000, 2, peak="scale", force=True) as out:
            for _ in range(seconds):
                out.write(block)
        with io.open_reader(tmp_path / name) as reader:
            assert sum(part.shape[1] for part in reader.blocks()) == seconds * 48_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    for name in ("a.wav", "a.flac"):
        assert peak_of(40, name) < 1.1 * peak_of(10, name)


def test_reader_rejects_a_silly_block_size(tmp_path):
    io.write(tmp_path / "a.wav", np.zeros(10), 48_000)
    with io.open_reader(tmp_path / "a.wav") as reader, pytest.raises(ValueError, match="at least 1"):
        reader.blocks(0)


def test_samples_that_no_recording_has_are_refused(tmp_path: Path) -> None:
    """Found by fuzzing: finite float samples whose squares overflow."""
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([0.0, 1e30, 0.5], np.float32), 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="times full scale"):
        io.read(path)
    with pytest.raises(AudioError, match="times full scale"):
        hifispeech.upscale(np.array([0.0, -1e30], np.float32), 8000)
