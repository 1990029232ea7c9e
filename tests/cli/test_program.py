"""The command line program: what it writes and prints, and its exit codes."""

import json
import os
import re
import shutil
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

from .program import PROGRAM, assert_refused, files_in, run, run_program

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


@pytest.mark.usefixtures("in_this_process")
def test_several_files_into_a_folder(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    shutil.copy(clip, other)
    result = run("upscale", clip, other, "-o", tmp_path / "out", "--format", "flac")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path / "out") == {"call.flac", "other.flac", "hifispeech.jsonl"}


@pytest.mark.usefixtures("in_this_process")
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


@pytest.mark.usefixtures("in_this_process")
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


@pytest.mark.usefixtures("in_this_process")
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
    monkeypatch.setitem(sys.modules, "torch", None)  # which takes seconds to look for one
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
