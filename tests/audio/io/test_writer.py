"""Writing audio files: round trips, alignment, tags, peak policy; a file appears whole or not at all."""

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from hifispeech.audio import io
from hifispeech.audio.io import encode, writer
from hifispeech.errors import AudioError

from .recordings import codes16, lag, only_file, tone_speech

TAGS = {
    "title": "Grüße",
    "artist": "声",
    "album": "Test album",
    "date": "2024",
    "genre": "Speech",
    "comment": "line with ümlaut",
    "track": "3",
}


@pytest.mark.parametrize(
    ("name", "encoding"), [("a.wav", None), ("a.flac", None), ("a.wav", "pcm_24"), ("a.flac", "pcm_24")]
)
def test_16_bit_audio_round_trips_bit_exactly(tmp_path, name, encoding):
    rng = np.random.default_rng(1)
    audio = rng.integers(-32768, 32768, (2, 20_001)).astype(np.float32) / 32768
    audio[:, :2] = [[-1, 32767 / 32768]] * 2
    done = io.write(tmp_path / name, audio, 44_100, encoding=encoding)
    np.testing.assert_array_equal(io.read(tmp_path / name)[0], audio)
    assert done.samples_over == 0
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / name, dtype="float32", always_2d=True)[0].T, audio
    )


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_24_bit_audio_round_trips_bit_exactly(tmp_path, name):
    codes = np.random.default_rng(2).integers(-(2**23), 2**23, (1, 10_001))
    audio = (codes / 2.0**23).astype(np.float32)
    io.write(tmp_path / name, audio, 96_000, encoding="pcm_24")
    with io.open_reader(tmp_path / name) as reader:
        assert io.choose_encoding("out.wav", reader.info) == "pcm_24"
        assert io.choose_encoding("out.mp3", reader.info) is None
    np.testing.assert_array_equal(io.read(tmp_path / name)[0], audio)


def test_quantisation_rounds_to_nearest():
    x = np.linspace(-0.99, 0.99, 10_001)[np.newaxis]
    for bits in (16, 24):
        error = encode.quantise(x, bits) / 2.0 ** (bits - 1) - x
        assert np.abs(error).max() <= 0.5000001 * 2.0 ** (1 - bits)


def test_float_wav_is_never_altered(tmp_path):
    audio = np.array([[0.1, -3.5, 1e-30, 7.25]], np.float32)
    for peak in ("limit", "scale"):
        done = io.write(tmp_path / "f.wav", audio, 48_000, encoding="float", peak=peak, force=True)
        np.testing.assert_array_equal(io.read(tmp_path / "f.wav")[0], audio)
        assert (done.peak, done.samples_over, done.gain) == (7.25, 2, 1.0)


@pytest.mark.parametrize(
    ("name", "encoding"), [("a.wav", "pcm_16"), ("a.wav", "pcm_24"), ("a.flac", "pcm_16")]
)
def test_limit_clips_and_never_wraps(tmp_path, name, encoding):
    audio = np.array([[0.5, 1.0, 1.5, 100.0, -1.0, -1.5, -100.0]], np.float32)
    done = io.write(tmp_path / name, audio, 48_000, encoding=encoding)
    top = 1 - 2.0 ** (1 - int(encoding[4:]))
    np.testing.assert_array_equal(
        io.read(tmp_path / name)[0][0], np.array([0.5, top, top, top, -1, -1, -1], np.float32)
    )
    assert (done.peak, done.samples_over) == (100.0, 4)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_scale_keeps_the_shape(tmp_path, name):
    audio = tone_speech(96_000, 48_000, channels=2) * 5
    done = io.write(tmp_path / name, audio, 48_000, peak="scale")
    out = io.read(tmp_path / name)[0]
    assert done.peak == pytest.approx(np.abs(audio).max())
    assert done.gain == pytest.approx(writer.FULL_SCALE / done.peak)
    error = np.sqrt(np.mean((out - audio * done.gain) ** 2) / np.mean((audio * done.gain) ** 2))
    assert error < (1e-3 if name[2:] in ("wav", "flac") else 0.3)
    if name[2:] in ("wav", "flac"):
        assert np.abs(out).max() in (writer.FULL_SCALE, 1.0)
    only_file(tmp_path, name)
    quiet = io.write(tmp_path / "quiet.wav", codes16(audio / 10), 48_000, peak="scale")
    assert quiet.gain == 1.0
    np.testing.assert_array_equal(io.read(tmp_path / "quiet.wav")[0], codes16(audio / 10))


@pytest.mark.parametrize(
    ("name", "encoding", "rate"),
    [
        ("a.ogg", None, 44_100),
        ("a.ogg", "opus", 48_000),
        ("a.opus", None, 48_000),
        ("a.mp3", None, 44_100),
        ("a.mp3", None, 8_000),
    ],
)
def test_lossy_output_is_aligned_and_as_long(tmp_path, name, encoding, rate):
    audio = tone_speech(2 * rate + 7, rate, channels=2)
    with io.AudioWriter(tmp_path / name, rate, 2, encoding=encoding, tags=TAGS) as out:
        for start in range(0, audio.shape[1], 5_003):
            out.write(audio[:, start : start + 5_003])
    back, got = io.read(tmp_path / name)
    assert (got, back.shape) == (rate, audio.shape)
    assert lag(back[0], audio[0]) == 0
    assert np.corrcoef(back[1], audio[1])[0, 1] > 0.98


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_tags_survive_every_pair_of_formats(tmp_path, name):
    io.write(tmp_path / name, tone_speech(4_800, 48_000), 48_000, tags={**TAGS, "encoder": "not kept"})
    with io.open_reader(tmp_path / name) as reader:
        assert reader.info.tags == TAGS
    for suffix in encode.FORMATS:
        io.write(tmp_path / f"copy{suffix}", tone_speech(4_800, 48_000), 48_000, tags=reader.info.tags)
        with io.open_reader(tmp_path / f"copy{suffix}") as copy:
            assert copy.info.tags == TAGS


@pytest.mark.parametrize(
    ("name", "kwargs", "told"),
    [
        ("a.xyz", {}, ".wav, .flac, .ogg, .opus, .mp3"),
        ("a", {}, ".wav, .flac"),
        ("a.wav", {"encoding": "vorbis"}, "pcm_16, pcm_24, float"),
        ("a.flac", {"encoding": "float"}, "pcm_16, pcm_24"),
        ("a.opus", {"sample_rate": 44_100}, "8000, 12000, 16000, 24000, 48000"),
        ("a.mp3", {"sample_rate": 96_000}, "48000"),
        ("a.mp3", {"channels": 3}, "1 to 2"),
        ("a.flac", {"channels": 9}, "1 to 8"),
        ("a.ogg", {"channels": 6}, "1 to 5"),
        ("a.wav", {"channels": 0}, "1 to 255"),
        ("a.wav", {"peak": "wrap"}, "limit, scale"),
    ],
)
def test_impossible_output_is_refused_before_writing(tmp_path, name, kwargs, told):
    with pytest.raises(AudioError, match=told):
        io.AudioWriter(tmp_path / name, **{"sample_rate": 48_000, "channels": 1, **kwargs})
    only_file(tmp_path)


@pytest.mark.parametrize("encoding", ["pcm_16", "pcm_24", "float"])
def test_wav_beyond_4_gib_becomes_rf64(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(encode, "RIFF_LIMIT", 10_000)
    audio = codes16(tone_speech(5_001, 48_000, channels=3))
    io.write(tmp_path / "a.wav", audio, 48_000, encoding=encoding, tags=TAGS)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.format, info.frames) == ("RF64", 5_001)
    np.testing.assert_array_equal(io.read(tmp_path / "a.wav")[0], audio)
    with av.open(str(tmp_path / "a.wav")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 5_001


# ---------------------------------------------------------------- all or nothing


def test_existing_file_needs_force_and_survives_failure(tmp_path):
    target = tmp_path / "a.wav"
    target.write_bytes(b"precious")
    with pytest.raises(AudioError, match="force"):
        io.write(target, np.zeros(10), 48_000)
    with pytest.raises(KeyboardInterrupt), io.AudioWriter(target, 48_000, 1, force=True, peak="scale") as out:
        out.write(np.zeros(10))
        raise KeyboardInterrupt
    assert target.read_bytes() == b"precious"
    only_file(tmp_path, "a.wav")
    io.write(target, np.zeros(10), 48_000, force=True)
    assert io.read(target)[0].shape == (1, 10)
    only_file(tmp_path, "a.wav")


def test_target_appears_only_when_whole(tmp_path):
    with io.AudioWriter(tmp_path / "a.flac", 48_000, 1) as out:
        out.write(np.zeros(100_000))
        assert not (tmp_path / "a.flac").exists()
    only_file(tmp_path, "a.flac")
    if os.name == "posix":
        (tmp_path / "plain").touch()
        assert (tmp_path / "a.flac").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("suffix", encode.FORMATS)
def test_any_exception_leaves_nothing(tmp_path, suffix):
    with pytest.raises(AudioError, match="NaN"), io.AudioWriter(tmp_path / f"a{suffix}", 48_000, 1) as out:
        out.write(np.zeros(5_000))
        out.write(np.array([0.0, np.nan]))
    with pytest.raises(AudioError, match="no samples"), io.AudioWriter(tmp_path / f"a{suffix}", 48_000, 1):
        pass
    with pytest.raises(AudioError, match="shape"), io.AudioWriter(tmp_path / f"a{suffix}", 48_000, 2) as out:
        out.write(np.zeros((3, 10)))
    only_file(tmp_path)


class FullDisk:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


@pytest.mark.parametrize("peak", ["limit", "scale"])
@pytest.mark.parametrize("suffix", encode.FORMATS)
@pytest.mark.parametrize("room", [0, 3_000])
def test_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, suffix, room, peak):
    create = io.AudioWriter._create
    monkeypatch.setattr(io.AudioWriter, "_create", lambda self: FullDisk(create(self), room))
    with pytest.raises(AudioError, match="No space left"):
        io.write(tmp_path / f"a{suffix}", 0.3 * tone_speech(96_000, 48_000), 48_000, peak=peak)
    only_file(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("suffix", encode.FORMATS)
def test_dev_full(tmp_path, monkeypatch, suffix):
    def create(self):
        self._files.append(open("/dev/full", "w+b", buffering=0))  # noqa: SIM115
        return self._files[-1]

    monkeypatch.setattr(io.AudioWriter, "_create", create)
    monkeypatch.setattr(os, "unlink", lambda path: None)
    with pytest.raises(AudioError, match="No space left"):
        io.write(tmp_path / f"a{suffix}", tone_speech(48_000, 48_000), 48_000)
    only_file(tmp_path)


def test_output_may_not_be_the_input(tmp_path):
    source = tmp_path / "in.wav"
    io.write(source, tone_speech(100, 48_000), 48_000)
    before = source.read_bytes()
    os.symlink(source, tmp_path / "link.wav")
    for name in (source, tmp_path / "link.wav", tmp_path / "." / "in.wav"):
        assert io.same_file(name, source)
        with pytest.raises(AudioError, match="same file"):
            io.write(name, np.zeros(10), 48_000, force=True, inputs=source)
    assert not io.same_file(source, tmp_path / "other.wav")
    assert io.same_file(tmp_path / "new.wav", tmp_path / "x" / ".." / "new.wav")
    assert source.read_bytes() == before


def test_unwritable_places(tmp_path, monkeypatch):
    with pytest.raises(AudioError, match="no such folder"):
        io.write(tmp_path / "missing" / "a.wav", np.zeros(10), 48_000)
    (tmp_path / "dir.wav").mkdir()
    with pytest.raises(AudioError, match="is a folder"):
        io.write(tmp_path / "dir.wav", np.zeros(10), 48_000, force=True)
    with pytest.raises(AudioError, match="no such folder"):
        io.write(tmp_path / "dir.wav" / ".." / "no" / "a.wav", np.zeros(10), 48_000)

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(AudioError, match="Permission denied"):
        io.write(tmp_path / "a.wav", np.zeros(10), 48_000)
