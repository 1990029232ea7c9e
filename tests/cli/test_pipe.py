"""Pipes: `-` as input and output, through real processes, bytes in and bytes out."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

PROGRAM = [sys.executable, "-m", "hifispeech"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of the program; a test ends with it empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def pipe(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    words = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(words, input=stdin, capture_output=True, timeout=120, check=False)


def decode(data: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(data), dtype="float32")


@pytest.mark.parametrize("kind", ["flac", "wav", "mp3", "ogg"])
def test_pipe_to_pipe_equals_file_to_file(
    kind: str, phone_clip: Path, tmp_path: Path, temporary: Path
) -> None:
    done = pipe("upscale", "-", "-o", "-", "--format", kind, stdin=phone_clip.read_bytes())
    assert done.returncode == 0, done.stderr
    target = tmp_path / f"out.{kind}"
    assert pipe("upscale", phone_clip, "-o", target).returncode == 0
    audio, rate = decode(done.stdout)
    expected, _ = soundfile.read(target, dtype="float32")
    assert rate == 48000
    np.testing.assert_array_equal(audio, expected)
    assert os.listdir(temporary) == []


def test_three_programs_in_a_row(phone_clip: Path, temporary: Path) -> None:
    """As the manual shows it: cat FILE | hifispeech upscale - -o - --format flac | hifispeech inspect -."""
    upscale = [*PROGRAM, "upscale", "-", "-o", "-", "--format", "flac"]
    inspect = [*PROGRAM, "inspect", "-", "--json"]
    with (
        phone_clip.open("rb") as file,
        subprocess.Popen(upscale, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first,
        subprocess.Popen(
            inspect, stdin=first.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as second,
    ):
        assert first.stdout is not None
        first.stdout.close()
        found, errors = second.communicate(timeout=120)
        assert second.returncode == 0, errors
        assert first.wait(timeout=60) == 0
    report = json.loads(found)
    assert (report["path"], report["codec"], report["sample_rate"]) == ("-", "flac", 48000)
    assert report["duration_s"] == pytest.approx(4.372, abs=1e-3)
    assert os.listdir(temporary) == []


def test_summary_goes_to_stderr_where_the_audio_goes_to_stdout(phone_clip: Path) -> None:
    done = pipe("upscale", phone_clip, "-o", "-")
    assert done.stdout.startswith(b"RIFF") and decode(done.stdout)[1] == 48000
    assert b"bandwidth 3.4 kHz -> 24 kHz" in done.stderr and done.stderr.count(b"\n") == 1
    assert pipe("upscale", phone_clip, "-o", "-", "--quiet").stderr == b""
    report = json.loads(pipe("upscale", "-", "--json", stdin=phone_clip.read_bytes()).stderr)
    assert (report["input"], report["output"]) == ("-", "-")


def test_standard_output_is_the_default_for_standard_input(phone_clip: Path) -> None:
    done = pipe("upscale", "-", stdin=phone_clip.read_bytes())
    assert done.returncode == 0 and done.stdout.startswith(b"RIFF")


def test_pipe_to_file(phone_clip: Path, tmp_path: Path, temporary: Path) -> None:
    target = tmp_path / "out.flac"
    done = pipe("upscale", "-", "-o", target, stdin=phone_clip.read_bytes())
    assert done.returncode == 0, done.stderr
    assert soundfile.info(target).samplerate == 48000
    assert b"out.flac" in done.stdout
    again = pipe("upscale", "-", "-o", target, stdin=phone_clip.read_bytes())
    assert again.returncode == 1 and b"--force" in again.stderr
    assert os.listdir(temporary) == []


def test_wav_of_unknown_length(phone_clip: Path) -> None:
    """Programs that write WAV to a pipe cannot go back to the header: the sizes in it are the largest."""
    audio, rate = soundfile.read(phone_clip, dtype="int16")
    unknown = struct.pack("<I", 0xFFFFFFFF)
    layout = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    header = b"RIFF" + unknown + b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + unknown
    done = pipe("upscale", "-", "-o", "-", stdin=header + audio.tobytes())
    assert done.returncode == 0, done.stderr
    assert b"warning" not in done.stderr
    assert len(decode(done.stdout)[0]) == 6 * len(audio)


@pytest.mark.parametrize("data", [b"", b"hello, I am text\n" * 99, b"RIFF\0\0"])
@pytest.mark.parametrize("command", ["upscale", "inspect"])
def test_bad_input_is_one_line_that_names_the_pipe(command: str, data: bytes, temporary: Path) -> None:
    done = pipe(command, "-", stdin=data)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"hifispeech: standard input: ") and done.stderr.count(b"\n") == 1
    assert os.listdir(temporary) == []


def test_truncated_input_is_a_warning_that_names_the_pipe(phone_clip: Path) -> None:
    done = pipe("upscale", "-", "-o", "-", stdin=phone_clip.read_bytes()[:8044])
    assert done.returncode == 0
    assert done.stderr.startswith(b"hifispeech: warning: standard input: truncated")
    assert len(decode(done.stdout)[0]) % 6 == 0 and len(decode(done.stdout)[0]) > 23000


def test_unknown_format_is_refused(phone_clip: Path) -> None:
    done = pipe("upscale", "-", "--format", "xyz", stdin=phone_clip.read_bytes())
    assert done.returncode == 1 and b".xyz" in done.stderr and done.stdout == b""


def test_reader_that_stops_early_ends_the_program_quietly(phone_clip: Path, temporary: Path) -> None:
    words = [*PROGRAM, "upscale", str(phone_clip), "-o", "-", "--quiet"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert errors == b""
    assert os.listdir(temporary) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_device_is_one_line(phone_clip: Path) -> None:
    with open("/dev/full", "wb") as full:
        words = [*PROGRAM, "upscale", str(phone_clip), "-o", "-"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"hifispeech: standard output: cannot be written")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_while_waiting_for_input_leaves_no_file(
    number: signal.Signals, code: int, temporary: Path
) -> None:
    words = [*PROGRAM, "upscale", "-", "-o", "-"]
    streams = subprocess.PIPE
    with subprocess.Popen(words, stdin=streams, stdout=streams, stderr=streams) as process:
        assert process.stdin is not None
        process.stdin.write(b"RIFF")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not os.listdir(temporary) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in errors
    assert os.listdir(temporary) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_terminal_in_place_of_a_pipe_is_wrong_usage(phone_clip: Path) -> None:
    """Else the program would wait for ever, or fill the screen with audio."""
    import pty

    ours, theirs = pty.openpty()
    for command, stdin, stdout, name in (
        (["upscale", "-"], theirs, subprocess.PIPE, b"input"),
        (["inspect", "-"], theirs, subprocess.PIPE, b"input"),
        (["upscale", str(phone_clip), "-o", "-"], subprocess.DEVNULL, theirs, b"output"),
    ):
        done = subprocess.run(
            [*PROGRAM, *command], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False
        )
        assert done.returncode == 2
        assert b"standard " + name + b" is a terminal" in done.stderr
    os.close(ours)
    os.close(theirs)
