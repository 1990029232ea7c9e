"""The command line program: what it writes and prints, its exit codes, and that bad input never does harm."""

import json
import os
import re
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
from typer.testing import CliRunner, Result

import hifispeech
import hifispeech.audio.resample
from hifispeech.cli import app

PROGRAM = [sys.executable, "-m", "hifispeech"]


def run(*arguments: object) -> Result:
    """The program within this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_program(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The program as a process of its own."""
    words = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]


def assert_one_line(stderr: str) -> None:
    """An error is one line that starts with the program's name."""
    assert stderr.startswith("hifispeech: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert_one_line(result.stderr)
    for word in words:
        assert word in result.stderr


def files_in(folder: Path) -> set[str]:
    """All files, hidden temporary ones included, as paths below the folder."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def clip(tmp_path: Path, phone_clip: Path) -> Path:
    """A second of telephone speech in a folder of its own."""
    audio, sample_rate = soundfile.read(phone_clip, frames=8000)
    path = tmp_path / "call.wav"
    soundfile.write(path, audio, sample_rate)
    return path


# --- upscale: what it does


def test_upscale_writes_48_khz_of_the_same_duration(clip: Path, tmp_path: Path) -> None:
    result = run("upscale", clip, "-o", tmp_path / "out.wav")
    assert result.exit_code == 0, result.output
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.channels, info.frames) == (48000, 1, 48000)
    assert "call.wav" in result.stdout and "kHz" in result.stdout
    assert files_in(tmp_path) == {"call.wav", "out.wav"}


def test_upscale_adds_band_above_the_edge_and_keeps_the_one_below(clip: Path, tmp_path: Path) -> None:
    run("upscale", clip, "-o", tmp_path / "out.wav")
    out, _ = soundfile.read(tmp_path / "out.wav")
    power = np.abs(np.fft.rfft(out)) ** 2  # 1 s: bin k is k Hz
    assert power[5000:12000].sum() > 1e-6 * power[300:3000].sum()
    source, _ = soundfile.read(clip)
    kept = np.fft.irfft(np.fft.rfft(out)[:2700], 8000) / 6
    reference = np.fft.irfft(np.fft.rfft(source)[:2700], 8000)
    assert np.corrcoef(kept, reference)[0, 1] > 0.999


def test_default_output_is_beside_the_input(clip: Path, tmp_path: Path) -> None:
    assert run("upscale", clip).exit_code == 0
    assert files_in(tmp_path) == {"call.wav", "call_48k.wav"}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_output_type_by_suffix(clip: Path, tmp_path: Path, suffix: str) -> None:
    result = run("upscale", clip, "-o", tmp_path / f"out.{suffix}")
    assert result.exit_code == 0, result.output
    audio, sample_rate = hifispeech.read(tmp_path / f"out.{suffix}")
    assert sample_rate == 48000
    assert abs(audio.shape[1] - 48000) <= (0 if suffix in {"wav", "flac"} else 2500)


def test_encoding_option(clip: Path, tmp_path: Path) -> None:
    assert run("upscale", clip, "-o", tmp_path / "out.wav", "--encoding", "float").exit_code == 0
    assert soundfile.info(tmp_path / "out.wav").subtype == "FLOAT"


def test_cutoff_is_measured_or_given(clip: Path, tmp_path: Path) -> None:
    measured = json.loads(run("upscale", clip, "-o", tmp_path / "a.wav", "--json").stdout)
    given = json.loads(run("upscale", clip, "-o", tmp_path / "b.wav", "--json", "--cutoff", "2500").stdout)
    assert measured["cutoff_hz"][0] == pytest.approx(3400, rel=0.1)
    assert given["cutoff_hz"][0] == pytest.approx(2500)


def test_several_files_into_a_folder(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    shutil.copy(clip, other)
    result = run("upscale", clip, other, "-o", tmp_path / "out", "--format", "flac")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path / "out") == {"call.flac", "other.flac", "hifispeech.jsonl"}


def test_folder_keeps_its_structure_and_can_be_run_again(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(clip, folder / "a.wav")
    shutil.copy(clip, folder / "deep" / "er" / "b.wav")
    (folder / "notes.txt").write_text("not audio")
    for _ in range(2):  # results inside the folder are not taken for inputs
        result = run("upscale", folder, "-o", folder / "out", "--force")
        assert result.exit_code == 0, result.output
    assert files_in(folder / "out") == {"a.wav", "deep/er/b.wav", "hifispeech.jsonl"}


@pytest.mark.parametrize("spelling", ["calls", "calls/", "."])
def test_default_output_of_a_folder_is_beside_it(
    clip: Path, tmp_path: Path, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    shutil.copy(clip, folder / "UPPER.WAV")
    shutil.copy(clip, folder / "._hidden.wav")
    monkeypatch.chdir(folder if spelling == "." else tmp_path)
    assert run("upscale", spelling).exit_code == 0
    assert files_in(tmp_path / "calls_48k") == {"UPPER.wav", "hifispeech.jsonl"}


def test_one_bad_file_does_not_stop_the_others(clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"this is no audio")
    result = run("upscale", bad, clip, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert files_in(tmp_path / "out") == {"call.wav", "hifispeech.jsonl"}
    assert "bad.wav" in result.stderr and "1 of 2 files failed" in result.stderr


def test_resume_does_what_is_missing(clip: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(clip, folder / "a.wav")
    words = ("upscale", folder, "-o", out, "--workers", "1", "--resume")
    first = run(*words)
    assert first.exit_code == 0 and "1 of 1 files upscaled, 1.0 s of audio" in first.stdout
    again = run(*words)
    assert again.exit_code == 0 and "0 of 1 files upscaled, 1 done before and unchanged" in again.stdout
    without = run(*words[:-1])
    assert without.exit_code == 1 and "--resume" in without.stderr and "--force" in without.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_bar_of_a_folder_shows_files_and_time_left(clip: Path, tmp_path: Path) -> None:
    import pty

    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clip, folder / "a.wav")
    (folder / "b.wav").write_text("not audio")
    ours, theirs = pty.openpty()
    words = [*PROGRAM, "upscale", str(folder), "-o", str(tmp_path / "out"), "--workers", "1"]
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        shown = b""
        while part := _read_terminal(ours):
            shown += part
        stdout, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 1
    assert b"/2 files" in shown and b"1 failed" in shown and b"left" in shown
    assert b"b.wav: not audio" in b"".join(shown.split(b"\r\n"))
    assert "a.wav" in stdout and "1 of 2 files upscaled" in stdout  # a pipe gets the report, not the bar


def test_summary_names_bandwidth_gain_and_time(clip: Path, speech_clip: Path, tmp_path: Path) -> None:
    line = run("upscale", clip, "-o", tmp_path / "out.wav").stdout
    assert re.search(
        r"call\.wav -> .*out\.wav: bandwidth 3\.\d kHz -> 24 kHz, 1\.0 s of audio in [\d.]+ s "
        r"\(\d+x real time\)\n$",
        line,
    )
    assert "full band already, kept" in run("upscale", speech_clip, "-o", tmp_path / "full.wav").stdout
    soundfile.write(tmp_path / "none.wav", np.zeros((8000, 2)), 8000)
    assert "digital silence, kept" in run("upscale", tmp_path / "none.wav", "-o", tmp_path / "x.wav").stdout


def test_summary_names_each_bandwidth_of_the_channels(tmp_path: Path, synthetic_speech: Callable) -> None:
    wide = synthetic_speech(2.0, 16000)
    narrow = hifispeech.audio.resample.resample(synthetic_speech(2.0, 8000, seed=1), 8000, 16000)
    soundfile.write(tmp_path / "in.wav", np.stack([wide, narrow, 0 * wide], axis=1), 16000)
    result = run("upscale", tmp_path / "in.wav", "-o", tmp_path / "out.wav")
    assert re.search(r"bandwidth 3\.\d kHz and 8\.\d kHz -> 24 kHz", result.stdout), result.output


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_device(clip: Path, tmp_path: Path, device: str) -> None:
    result = run("upscale", clip, "-o", tmp_path / "out.wav", "--device", device)
    assert result.exit_code == 0, result.output


def test_missing_gpu_is_one_line(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    result = run("upscale", clip, "-o", tmp_path / "out.wav", "--device", "cuda")
    assert_refused(result, "onnxruntime-gpu", "cpu")
    with pytest.raises(hifispeech.ModelError, match="onnxruntime-gpu"):
        hifispeech.upscale(np.zeros(800, np.float32), 8000, device="cuda")
    with pytest.raises(hifispeech.ModelError, match="use auto, cpu or cuda"):
        hifispeech.upscale(np.zeros(800, np.float32), 8000, device="tpu")
    assert files_in(tmp_path) == {"call.wav"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_bar_on_a_terminal_shows_the_real_time_factor(clip: Path, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [*PROGRAM, "upscale", str(clip), "-o", str(tmp_path / "out.wav")]
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        shown = b""
        while part := _read_terminal(ours):
            shown += part
        stdout, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert b"call.wav" in shown and b"x real time" in shown and b"100 %" in shown
    assert stdout.count("\n") == 1


def _read_terminal(descriptor: int) -> bytes:
    """What the program shows next; nothing once it has ended."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


def test_quiet_prints_nothing(clip: Path, tmp_path: Path) -> None:
    result = run("upscale", clip, "-o", tmp_path / "out.wav", "--quiet")
    assert result.exit_code == 0 and result.output == ""


def test_json_is_one_object_a_file(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    shutil.copy(clip, other)
    result = run("upscale", clip, other, "-o", tmp_path / "out", "--json")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert {Path(report["input"]).name for report in reports} == {"call.wav", "other.wav"}
    assert all(report["real_time_factor"] > 0 and report["duration_s"] == 1.0 for report in reports)
    assert all(report["silent"] == [False] and report["full_band"] == [False] for report in reports)


# --- inspect, models, version


def test_inspect_prints_what_is_in_the_file(phone_clip: Path) -> None:
    result = run("inspect", phone_clip)
    assert result.exit_code == 0, result.output
    for word in ("8000 Hz", "4.372 s", "channels", "full band", "no", "3."):
        assert word in result.stdout


def test_inspect_json(phone_clip: Path, speech_clip: Path) -> None:
    result = run("inspect", phone_clip, speech_clip, "--json")
    assert result.exit_code == 0, result.output
    phone, full = (json.loads(line) for line in result.stdout.splitlines())
    assert phone["path"] == str(phone_clip) and full["path"] == str(speech_clip)
    assert phone["sample_rate"] == 8000 and full["sample_rate"] == 48000
    assert phone["cutoff_hz"] == pytest.approx(3400, rel=0.08)
    assert (phone["is_full_band"], full["is_full_band"]) == (False, True)
    assert phone["clipped_samples"] == 0 and phone["peak"] == pytest.approx(0.5, abs=0.01)


def test_inspect_measures_the_signal_not_the_header(phone_clip: Path, tmp_path: Path) -> None:
    run("upscale", phone_clip, "-o", tmp_path / "out.wav")
    narrow, _ = soundfile.read(phone_clip)
    spectrum = np.zeros(narrow.size * 3 + 1, complex)
    spectrum[: narrow.size // 2 + 1] = np.fft.rfft(narrow)
    soundfile.write(tmp_path / "dressed_up.wav", np.fft.irfft(spectrum, narrow.size * 6) * 6, 48000)
    found = json.loads(run("inspect", tmp_path / "dressed_up.wav", "--json").stdout)
    assert found["sample_rate"] == 48000
    assert found["cutoff_hz"] == pytest.approx(3400, rel=0.08)


def test_inspect_sees_clipping_and_silence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "loud.wav", np.clip(rng.standard_normal(16000), -1, 1), 16000)
    soundfile.write(tmp_path / "none.wav", np.zeros(16000), 16000)
    loud = json.loads(run("inspect", tmp_path / "loud.wav", "--json").stdout)
    none = json.loads(run("inspect", tmp_path / "none.wav", "--json").stdout)
    assert loud["clipped_samples"] > 1000 and not loud["is_silent"]
    assert none["is_silent"] and none["cutoff_hz"] == 0 and not none["is_full_band"]
    assert "digital silence" in run("inspect", tmp_path / "none.wav").stdout


def test_inspect_plot(phone_clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run("inspect", phone_clip, "--plot", tmp_path / "call.png").exit_code == 0
    assert (tmp_path / "call.png").read_bytes().startswith(b"\x89PNG")


def test_models_lists_the_default(phone_clip: Path) -> None:
    result = run("models")
    assert result.exit_code == 0, result.output
    assert "fast" in result.stdout
    names = [json.loads(line)["name"] for line in run("models", "--json").stdout.splitlines()]
    assert "fast" in names


def test_version() -> None:
    assert run_program("--version").stdout == f"hifispeech {hifispeech.__version__}\n"


def test_version_and_help_are_quick() -> None:
    """Start-up without audio libraries: 0.3 s, with a margin for a busy machine; the best of five counts."""
    for option in ("--version", "--help"):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            assert run_program(option).returncode == 0
            times.append(time.perf_counter() - started)
        assert min(times) < (0.5 if option == "--version" else 1.0)


# --- usage errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale"],
        ["inspect"],
        ["nonsense"],
        ["upscale", "a.wav", "--nonsense"],
        ["upscale", "a.wav", "--cutoff", "high"],
        ["upscale", "a.wav", "--cutoff", "-5"],
        ["upscale", "a.wav", "--cutoff", "nan"],
        ["upscale", "a.wav", "--threads", "0"],
        ["upscale", "a.wav", "--workers", "2"],
        ["upscale", "a.wav", "-o", "b.wav", "--resume"],
        ["upscale", "-", "-o", "b.wav", "--resume"],
        ["upscale", "a.wav", "--device", "tpu"],
        ["upscale", "a.wav", "b.wav", "-o", "-"],
        ["upscale", "-", "b.wav"],
        ["upscale", "-", "-o", "folder"],
        ["inspect", "-", "b.wav"],
        ["inspect", "a.wav", "b.wav", "--plot", "x.png"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr and "Traceback" not in result.stderr


# --- bad input: a clear error, nothing written, nothing lost


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
