"""`hifispeech stream` through real pipes, as data arrives; microphone and loudspeaker by a fake device."""

import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from hifispeech.audio.io.pcm import INPUT_FORMATS, PcmDecoder, encode, g711_levels
from hifispeech.cli import app
from hifispeech.infer.live.stream import Stream

PROGRAM = [sys.executable, "-m", "hifispeech", "stream"]


@pytest.fixture(scope="module")
def pcm(phone_clip: Path) -> np.ndarray:
    """Two seconds of telephone speech, int16 `[time]`."""
    audio, _ = soundfile.read(phone_clip, dtype="int16", frames=16000)
    return audio


def pipe(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    words = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(words, input=stdin, capture_output=True, timeout=120, check=False)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    streams = subprocess.PIPE
    with subprocess.Popen([*PROGRAM, *arguments], stdin=streams, stdout=streams, stderr=streams) as process:
        try:
            yield process
        finally:
            process.kill()


def live(audio: np.ndarray, rate: int = 8000, **options: Any) -> np.ndarray:
    """What the library makes of float `[channels, time]`."""
    stream = Stream(rate, len(audio), **options)
    return np.concatenate([stream.push(audio), stream.flush()], axis=1)


def test_pipe_gives_what_the_library_gives(pcm: np.ndarray) -> None:
    done = pipe("--rate", 8000, "--format", "s16le", stdin=pcm.tobytes())
    assert done.returncode == 0 and done.stderr == b""
    expected = live((pcm / 32768).astype(np.float32)[None])
    out = np.frombuffer(done.stdout, "<i2")
    assert len(out) == 6 * len(pcm)
    assert np.abs(out / 32768 - expected[0]).max() <= 1e-4


def test_channels_formats_and_a_cutoff(pcm: np.ndarray) -> None:
    """Two channels of float samples, in and out, with a byte too many at the end."""
    audio = (np.stack([pcm[:4000], pcm[4000:8000]]) / 32768).astype(np.float32)
    options = ("--rate", 8000, "--channels", 2, "--format", "f32le", "--output-format", "f32le")
    done = pipe(*options, "--cutoff", 3400, stdin=audio.T.tobytes() + b"x")
    assert done.returncode == 0
    assert done.stderr.startswith(b"hifispeech: warning: standard input: its last 1 bytes")
    out = np.frombuffer(done.stdout, "<f4").reshape(-1, 2).T
    assert np.abs(out - live(audio, cutoff_hz=3400)).max() <= 1e-4


def test_output_comes_while_the_input_is_still_open(pcm: np.ndarray) -> None:
    """Everything but the stated 76 ms is there before more is sent: nothing waits in a buffer."""
    with running("--rate", "8000") as process:
        assert process.stdin is not None and process.stdout is not None
        received = 0
        for start in range(0, 8000, 1600):
            process.stdin.write(pcm[start : start + 1600].tobytes())
            process.stdin.flush()
            due = 2 * (6 * (start + 1600) - 3648) - received
            received += len(process.stdout.read(due))  # would wait for ever
        process.stdin.close()
        assert received + len(process.stdout.read()) == 2 * 6 * 8000
        assert process.wait(timeout=60) == 0


def test_a_chain_of_programs(phone_clip: Path, tmp_path: Path) -> None:
    """As the manual shows it: one program decodes, this one upscales, the next takes raw samples."""
    target = tmp_path / "out.pcm"
    decode = (
        "import sys, soundfile; sys.stdout.buffer.write("
        "soundfile.read(sys.argv[1], dtype='int16', frames=4000)[0].tobytes())"
    )
    with (
        target.open("wb") as file,
        subprocess.Popen([sys.executable, "-c", decode, str(phone_clip)], stdout=subprocess.PIPE) as first,
        subprocess.Popen([*PROGRAM, "--rate", "8000"], stdin=first.stdout, stdout=file) as second,
    ):
        assert first.stdout is not None
        first.stdout.close()
        assert second.wait(timeout=120) == 0
    assert target.stat().st_size == 2 * 6 * 4000


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_g711_is_decoded_as_libsndfile_does(law: str, pcm: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "call.raw"
    names = {"mulaw": "ULAW", "alaw": "ALAW"}
    soundfile.write(path, pcm, 8000, format="RAW", subtype=names[law])
    wanted, _ = soundfile.read(
        path, dtype="float32", samplerate=8000, channels=1, format="RAW", subtype=names[law]
    )
    np.testing.assert_array_equal(PcmDecoder(law).push(path.read_bytes())[0], wanted)
    assert len(np.unique(g711_levels(law))) >= 255


@pytest.mark.parametrize("sample_format", INPUT_FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_may_be_cut_anywhere(sample_format: str, channels: int) -> None:
    data = np.random.default_rng(0).integers(0, 255, 24 * 40, dtype=np.uint8).tobytes()
    if sample_format == "f32le":
        data = np.linspace(-1, 1, 240, dtype=np.float32).tobytes()
    whole = PcmDecoder(sample_format, channels)
    wanted = whole.push(data)
    pieces = PcmDecoder(sample_format, channels)
    blocks = [pieces.push(data[at : at + 1]) for at in range(len(data))]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), wanted)
    assert pieces.left == whole.left == b""
    assert wanted.shape[0] == channels and np.abs(wanted).max() <= 1


def test_samples_beyond_full_scale_are_cut_off_not_wrapped() -> None:
    assert np.frombuffer(encode(np.array([[-2.0, 2.0]], np.float32), "s16le"), "<i2").tolist() == [
        -32768,
        32767,
    ]


@pytest.mark.parametrize(
    ("options", "stdin", "code", "said"),
    [
        (("--rate", 8000), b"RIFF0000WAVE", 1, b"is a WAV file"),
        (("--rate", 100), b"", 1, b"2000 to 768000"),
        (("--rate", 8000, "--cutoff", 9000), b"", 1, b"cutoff_hz=9000"),
        (("--rate", 8000, "--format", "f32le"), np.float32(np.nan).tobytes(), 1, b"NaN"),
        (("--rate", 8000, "--model", "nonesuch"), b"", 1, b"not found"),
        ((), b"", 2, b"--rate"),
        (("--rate", 8000, "--format", "mp3"), b"", 2, b"--format"),
    ],
)
def test_what_cannot_be_done_is_said(options: tuple[Any, ...], stdin: bytes, code: int, said: bytes) -> None:
    done = pipe(*options, stdin=stdin)
    assert done.returncode == code and said in done.stderr and done.stdout == b""
    assert code == 2 or done.stderr.count(b"\n") == 1


def test_no_input_gives_no_output() -> None:
    done = pipe("--rate", 8000)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_ends_it_quietly(number: signal.Signals, code: int, pcm: np.ndarray) -> None:
    with running("--rate", "8000") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(pcm.tobytes())
        process.stdin.flush()
        assert process.stdout.read(1000)  # it is at work
        process.send_signal(number)
        assert process.wait(timeout=60) == code
        assert b"Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_ends_it_quietly(pcm: np.ndarray) -> None:
    with running("--rate", "8000") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        with pytest.raises(BrokenPipeError):
            for _ in range(1000):
                process.stdin.write(pcm.tobytes())
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_is_wrong_usage() -> None:
    import pty

    ours, theirs = pty.openpty()
    done = subprocess.run([*PROGRAM, "--rate", "8000"], stdin=theirs, capture_output=True, timeout=60)
    assert done.returncode == 2 and b"standard input is a terminal" in done.stderr
    os.close(ours)
    os.close(theirs)


class FakeSound(types.ModuleType):
    """What this program uses of `sounddevice`; the microphone hears `sound`, Ctrl-C comes after it."""

    class PortAudioError(Exception):
        pass

    def __init__(self, sound: np.ndarray, fails: bool = False) -> None:
        super().__init__("sounddevice")
        self.sound, self.fails, self.played, self.closed = sound, fails, [], []
        self.settings: dict[str, Any] = {}
        self.InputStream, self.OutputStream = self._opener("mic"), self._opener("play")

    def _opener(self, name: str) -> Any:
        def open_device(**settings: Any) -> "FakeDevice":
            if self.fails:
                raise self.PortAudioError("Error querying device -1")
            self.settings[name] = settings
            return FakeDevice(self, name)

        return open_device


class FakeDevice:
    def __init__(self, module: FakeSound, name: str) -> None:
        self.module, self.name = module, name

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.module.closed.append(self.name)

    def read(self, frames: int) -> tuple[np.ndarray, bool]:
        block, self.module.sound = self.module.sound[:frames], self.module.sound[frames:]
        if not len(self.module.sound):
            signal.raise_signal(signal.SIGINT)
        return block, False

    def write(self, samples: np.ndarray) -> None:
        self.module.played.append(samples)


def test_microphone_to_loudspeaker(pcm: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the recording; what was said until then is still heard."""
    sound = (pcm[:8000] / 32768).astype(np.float32)
    fake = FakeSound(sound[:, None])
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    before = signal.getsignal(signal.SIGINT)
    result = CliRunner().invoke(app, ["stream", "--rate", "8000", "--mic", "--play"])
    assert result.exit_code == 0, result.output
    assert np.abs(np.concatenate(fake.played)[:, 0] - live(sound[None])[0]).max() <= 1e-4
    assert fake.settings["mic"]["samplerate"] == 8000 and fake.settings["play"]["samplerate"] == 48000
    assert sorted(fake.closed) == ["mic", "play"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_missing_device_and_a_missing_package_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSound(np.zeros((0, 1), np.float32), fails=True))
    result = CliRunner().invoke(app, ["stream", "--rate", "8000", "--mic", "--play"])
    assert result.exit_code == 1 and "python -m sounddevice" in result.stderr
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = CliRunner().invoke(app, ["stream", "--rate", "8000", "--mic", "--play"])
    assert result.exit_code == 1 and 'pip install "hifispeech[live]"' in result.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for bash")
def test_the_manual_runs(
    repo_dir: Path, phone_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marked blocks of docs/streaming.md, one after the other."""
    text = (repo_dir / "docs" / "streaming.md").read_text(encoding="utf-8")
    marked = re.findall(r"<!-- run -->\n```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert [language for language, _ in marked] == ["python", "bash"]
    program = tmp_path / "bin" / "hifispeech"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hifispeech "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(phone_clip, tmp_path)
    for language, code in marked:
        words = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run([*words, code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    frames = soundfile.info(phone_clip).frames
    assert (tmp_path / "call_48k.pcm").stat().st_size == 2 * 6 * frames
