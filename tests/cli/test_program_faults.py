"""Bad input, full disks, interrupts, missing parts: one clear line, nothing written, nothing lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import hifispeech
import hifispeech.audio.resample

from .program import PROGRAM, assert_one_line, assert_refused, files_in, run, run_program


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _not_audio(path: Path) -> None:
    path.write_bytes(b"hello, I am a text file\n" * 50)


def _no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros((0, 1)), 16000)


def _nan(path: Path) -> None:
    audio = np.zeros(4000, np.float32)
    audio[123] = np.nan
    soundfile.write(path, audio, 16000, subtype="FLOAT")


def _infinite(path: Path) -> None:
    soundfile.write(path, np.full(4000, np.inf, np.float32), 16000, subtype="FLOAT")


def _header_only(path: Path) -> None:
    soundfile.write(path, np.full(16000, 0.1), 16000)
    path.write_bytes(path.read_bytes()[:30])


BAD = {make.__name__[1:]: make for make in (_empty, _not_audio, _no_samples, _nan, _infinite, _header_only)}


@pytest.mark.parametrize("command", ["upscale", "inspect"])
@pytest.mark.parametrize("kind", list(BAD))
def test_bad_file_is_refused(kind: str, command: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    BAD[kind](bad)
    before = bad.read_bytes()
    options = ["-o", tmp_path / "out.wav"] if command == "upscale" else []
    assert_refused(run(command, bad, *options), "bad.wav")
    assert files_in(tmp_path) == {"bad.wav"} and bad.read_bytes() == before


def test_nan_error_names_the_place(tmp_path: Path) -> None:
    _nan(tmp_path / "bad.wav")
    assert_refused(run("upscale", tmp_path / "bad.wav", "-o", tmp_path / "out.wav"), "NaN", "123")


@pytest.mark.parametrize("command", ["upscale", "inspect"])
def test_missing_file(command: str, tmp_path: Path) -> None:
    assert_refused(run(command, tmp_path / "no.wav"), "no.wav", "no such file")
    assert files_in(tmp_path) == set()


def test_truncated_file_gives_what_is_left(clip: Path, tmp_path: Path) -> None:
    clip.write_bytes(clip.read_bytes()[:8044])  # half a second, the header promises one
    result = run("upscale", clip, "-o", tmp_path / "out.wav")
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "out.wav").frames == 24000
    assert "hifispeech: " in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("sample_rate", [96000, 192000])
def test_high_rates_come_out_at_48_khz(sample_rate: int, tmp_path: Path, synthetic_speech: Callable) -> None:
    soundfile.write(tmp_path / "in.wav", synthetic_speech(0.5, sample_rate), sample_rate)
    result = run("upscale", tmp_path / "in.wav", "-o", tmp_path / "out.wav")
    assert result.exit_code == 0, result.output
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.frames) == (48000, 24000)


@pytest.mark.parametrize("frames", [1, 400])
def test_short_clips(frames: int, tmp_path: Path, synthetic_speech: Callable) -> None:
    soundfile.write(tmp_path / "in.wav", synthetic_speech(0.1, 8000)[:frames], 8000)
    result = run("upscale", tmp_path / "in.wav", "-o", tmp_path / "out.wav")
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "out.wav").frames == 6 * frames
    assert run("inspect", tmp_path / "in.wav").exit_code == 0


def test_eight_channels_stay_eight(tmp_path: Path, synthetic_speech: Callable) -> None:
    audio = np.stack([synthetic_speech(0.3, 16000, seed=channel) for channel in range(8)], axis=1)
    audio[:, 3] = 0.0
    soundfile.write(tmp_path / "in.wav", audio, 16000)
    result = run("upscale", tmp_path / "in.wav", "-o", tmp_path / "out.wav")
    assert result.exit_code == 0, result.output
    out, _ = soundfile.read(tmp_path / "out.wav")
    assert out.shape == (14400, 8)
    assert not out[:, 3].any() and all(out[:, channel].any() for channel in (0, 1, 2, 4, 5, 6, 7))
    assert run("inspect", tmp_path / "in.wav").exit_code == 0


def test_existing_output_is_kept_unless_forced(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.wav"
    target.write_text("precious")
    assert_refused(run("upscale", clip, "-o", target), "out.wav", "--force")
    assert target.read_text() == "precious"
    assert run("upscale", clip, "-o", target, "--force").exit_code == 0
    assert soundfile.info(target).samplerate == 48000
    assert files_in(tmp_path) == {"call.wav", "out.wav"}


@pytest.mark.parametrize("spelling", ["call.wav", "../{folder}/call.wav", "link.wav"])
def test_output_equal_to_input_is_refused_even_with_force(clip: Path, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "link.wav").symlink_to(clip)
    before = clip.read_bytes()
    target = tmp_path / spelling.format(folder=tmp_path.name)
    assert_refused(run("upscale", clip, "-o", target, "--force"), "same file")
    assert clip.read_bytes() == before


def test_folder_onto_itself_is_refused(clip: Path, tmp_path: Path) -> None:
    before = clip.read_bytes()
    assert run("upscale", tmp_path, "-o", tmp_path, "--force").exit_code == 1
    assert clip.read_bytes() == before and files_in(tmp_path) == {"call.wav"}


def test_unknown_suffix(clip: Path, tmp_path: Path) -> None:
    assert_refused(run("upscale", clip, "-o", tmp_path / "out.xyz"), ".xyz", ".wav")
    assert_refused(run("upscale", clip, "--format", "xyz"), ".xyz", ".wav")
    assert files_in(tmp_path) == {"call.wav"}


def test_format_that_contradicts_the_output(clip: Path, tmp_path: Path) -> None:
    assert_refused(run("upscale", clip, "-o", tmp_path / "out.wav", "--format", "flac"), "flac", "out.wav")


def test_two_inputs_with_one_output(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "call.flac")
    result = run("upscale", clip, tmp_path / "call.flac", "-o", tmp_path / "out")
    assert_refused(result, "call.wav", "call.flac")
    assert not (tmp_path / "out").exists()


def test_folder_without_audio(tmp_path: Path) -> None:
    assert_refused(run("upscale", tmp_path, "-o", tmp_path / "out"), "no audio file")


def test_unknown_model_and_encoding(clip: Path, tmp_path: Path) -> None:
    assert_refused(
        run("upscale", clip, "-o", tmp_path / "out.wav", "--model", "nonsense"), "nonsense", "fast"
    )
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a model")
    assert_refused(run("upscale", clip, "-o", tmp_path / "out.wav", "--model", damaged), "damaged.onnx")
    assert_refused(
        run("upscale", clip, "-o", tmp_path / "out.wav", "--encoding", "pcm_99"), "pcm_99", "pcm_16"
    )
    assert files_in(tmp_path) == {"call.wav", "damaged.onnx"}


def test_output_folder_that_cannot_be_written(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_refused(run("upscale", clip, "-o", tmp_path / "file" / "out.wav"), "file")
    assert_refused(run("upscale", clip, "-o", tmp_path / "no" / "out.wav"), "no such folder")
    assert_refused(run("upscale", clip, clip, "-o", tmp_path / "file"), "folder")
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        assert_refused(run("upscale", clip, "-o", locked / "out.wav"), "locked")


def test_device_as_output(clip: Path) -> None:
    assert_refused(run("upscale", clip, "-o", "/dev/full", "--force"), "/dev/full")


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs POSIX file size limits")
def test_file_size_limit(clip: Path, tmp_path: Path) -> None:
    """Writing fails half-way: one line, no output, no temporary file."""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run_program("upscale", clip, "-o", tmp_path / "out.wav", preexec_fn=limit)
    assert done.returncode == 1
    assert_one_line(done.stderr)
    assert files_in(tmp_path) == {"call.wav"}


def test_disk_full(clip: Path, tmp_path: Path) -> None:
    """A real full disk: a 40 kB tmpfs in a mount namespace of its own."""
    script = 'mount -t tmpfs -o size=40k tmpfs "$1" && cd "$1" && shift && "$@"; code=$?; ls -A; exit $code'
    (tmp_path / "disk").mkdir()
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path / "disk")]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let the test mount a small disk")
    done = subprocess.run(
        [*words, *PROGRAM, "upscale", clip, "-o", "out.wav"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert_one_line(done.stderr)
    assert "space" in done.stderr
    assert done.stdout == ""  # `ls -A` found nothing on the disk


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_no_file(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """Ctrl-C and a polite kill in the middle of an hour of audio."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 8000, 1, "PCM_16") as file:
        block = rng.standard_normal(8000 * 60) * 0.1
        for _ in range(60):
            file.write(block)
    words = [*PROGRAM, "upscale", str(tmp_path / "hour.wav"), "-o", str(tmp_path / "out.wav")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(files_in(tmp_path)) < 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)  # until the temporary output is there
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert files_in(tmp_path) == {"hour.wav"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback(tmp_path: Path, place: int) -> None:
    words = ["inspect", str(tmp_path / "no.wav")]
    done = run_program(*words[:place], "--debug", *words[place:])
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "AudioError" in done.stderr


def test_missing_extra_is_one_line(phone_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("inspect", phone_clip, "--plot", tmp_path / "call.png")
    assert_refused(result, 'pip install "hifispeech[eval]"')


def test_out_of_memory_is_one_line(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(hifispeech, "inspect", exhausted)
    assert_refused(run("inspect", clip), "not enough memory")


def test_programming_errors_are_not_hidden(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(hifispeech, "inspect", broken)
    assert isinstance(run("inspect", clip).exception, KeyError)
