"""The runner: numbers equal direct calls, bad input is told and never averaged, killed runs go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hifispeech import read, write
from hifispeech.cli import app
from hifispeech.evaluate import metrics
from hifispeech.evaluate.lowrate import low_rate
from hifispeech.evaluate.results import Row, read_rows
from hifispeech.evaluate.score import Job, Settings, rounded, score_clip
from hifispeech.evaluate.sets import Clip
from hifispeech.evaluate.systems import baselines, parse_systems

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

MakeClips = Callable[..., list[Path]]


def evaluate(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["evaluate", *(str(word) for word in words)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_clips: MakeClips) -> Path:
    """A complete run over two clips: a model, a baseline, and shifted, quiet ready outputs, aligned."""
    root = tmp_path_factory.mktemp("run")
    for path in make_clips(root / "talks" / "anna", 2, 1.0):
        audio, _ = read(path)
        (root / "peer" / "anna").mkdir(parents=True, exist_ok=True)
        write(root / "peer" / "anna" / f"{path.stem}.flac", np.pad(0.5 * audio, ((0, 0), (480, 0))), 48000)
    peer = f"peer=dir:{root / 'peer'}"
    words = ["--data", root / "talks", "--systems", f"fast,resample,{peer}", "--rates", "16000,8000"]
    output = evaluate(*words, "--align", "--pictures", 1, "-o", root / "results")
    assert "| peer | **0.0" in output
    return root


def test_numbers_equal_direct_calls(finished: Path) -> None:
    rows = read_rows(finished / "results" / "scores.csv")
    assert [(row.file, row.rate, row.system) for row in rows] == [
        (f"anna/clip{i}.wav", rate, system)
        for i in range(2)
        for rate in (8000, 16000)
        for system in ("fast", "resample", "peer")
    ]
    row = next(row for row in rows if row.system == "resample" and row.rate == 8000)
    truth, _ = read(finished / "talks" / row.file)
    output = rounded(baselines.resampled(low_rate(truth, 8000), 8000), "16")
    expected = metrics.measure(truth, output, ["lsd", "si_sdr"], sample_rate_in=8000)
    assert row.values["lsd_high"] == pytest.approx(expected["lsd_high"], rel=0.01)
    assert row.values["si_sdr"] == pytest.approx(expected["si_sdr"], abs=0.2)  # aligned: the gain is undone


def test_alignment_is_reported(finished: Path) -> None:
    rows = read_rows(finished / "results" / "scores.csv")
    for row in rows:
        wanted = {"peer": (480, 0.5)}.get(row.system, (0, 1))
        assert row.facts["delay_samples"] == wanted[0]
        assert row.facts["gain"] == pytest.approx(wanted[1], abs=0.01)
    assert all(row.values["lsd"] < 0.3 for row in rows if row.system == "peer")
    assert "| peer | 480 [480, 480] | 0.500 [" in (finished / "results" / "tables.md").read_text()


def test_everything_promised_is_written(finished: Path) -> None:
    results = finished / "results"
    names = {path.relative_to(results).as_posix() for path in results.rglob("*.*")}
    figures = {f"figures/{name}.{kind}" for name in ("lsd-bars", "speed") for kind in ("png", "svg")}
    assert {"scores.csv", "summary.json", "run.json", "tables.md", "tables.tex", "comparisons.csv"} <= names
    assert figures <= names
    page = (results / "tables.md").read_text()
    links = [part.split(")")[0] for part in page.split("](")[1:]]
    assert any(link.startswith("spectrograms/") for link in links)
    assert all((results / link).is_file() for link in links)
    summary = json.loads((results / "summary.json").read_text())
    assert summary["costs"]["fast"]["peak_memory_mb"] > 50
    assert summary["costs"]["fast"]["real_time_factor"] > 0
    assert not summary["failures"]
    assert not (results / "work").exists()


def test_plots_and_report_of_a_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result.output

    clips = [finished / "talks" / "anna" / f"clip{i}.wav" for i in range(2)]
    run("plot", "spectrogram", *clips, "-o", finished / "a.png")
    low = finished / "results" / "audio" / "input" / "8000" / "talks" / "anna" / "clip0.flac"
    if not low.is_file():
        low = low.with_stem("clip1")
    run("plot", "comparison", low, clips[1], clips[0], "-o", finished / "b.svg")
    monkeypatch.chdir(finished)
    assert run("plot", "speed", "results") == "speed.png\n"
    assert (finished / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "speed.png: exists already" in run("plot", "speed", "results", code=1)
    run("plot", "bars", finished / "results", "--value", "si_sdr", "-o", finished / "c.png")
    assert "exists already" in run("plot", "bars", finished / "results", "-o", finished / "c.png", code=1)
    assert "neither .png nor .svg" in run("plot", "bars", finished, "-o", finished / "c.gif", code=2)
    run("report", finished / "results", "-o", finished / "report.html")
    page = (finished / "report.html").read_text()
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert all(source.startswith("data:") for source in sources)
    assert sum(source.startswith("data:audio/ogg") for source in sources) >= 5
    assert "http://" not in page and "https://" not in page
    assert "exists already" in run("report", finished / "results", "-o", finished / "report.html", code=1)


@pytest.mark.slow
def test_report_works_in_a_browser_without_network(finished: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    page_file = finished / "offline.html"
    result = CliRunner().invoke(app, ["report", str(finished / "results"), "-o", str(page_file)])
    assert result.exit_code == 0, result.output
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_context(offline=True).new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_file.as_uri())
        page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
        page.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.duration > 0.9)")
        first, second = (page.locator(".clip audio").nth(i) for i in range(2))
        first.evaluate("a => { a.muted = true; a.currentTime = 0.4; return a.play(); }")
        second.evaluate("a => { a.muted = true; return a.play(); }")
        assert first.evaluate("a => a.paused")
        assert second.evaluate("a => a.currentTime") >= 0.4
        browser.close()
    assert not problems


def test_bad_input_is_told_per_file_and_never_averaged(
    tmp_path: Path, make_clips: MakeClips, tool: Callable[..., str]
) -> None:
    good, silent, low, stereo, short = make_clips(tmp_path / "d", 5)
    audio, _ = read(good)
    write(silent, 0 * audio, 48000, force=True)
    write(low, audio[:, ::3], 16000, force=True)
    write(stereo, np.concatenate([audio, audio]), 48000, force=True)
    names = [path.name for path in (good, silent, low, stereo, short)]
    (tmp_path / "d" / "list.csv").write_text(
        "path,speaker\n" + "".join(f"{name},anna\n" for name in ["gone.wav", *names])
    )
    (tmp_path / "peer").mkdir()
    write(tmp_path / "peer" / good.name, audio, 44100)
    write(tmp_path / "peer" / stereo.name, audio, 48000)
    write(tmp_path / "peer" / short.name, audio[:, :-500], 48000)
    systems = f"resample,peer=dir:{tmp_path / 'peer'},broken=cmd:false {{in}} {{out}}"
    words = ["--data", tmp_path / "d" / "list.csv", "--rates", 8000, "--systems", systems, "--pictures", 0]
    output = evaluate(*words, "-o", tmp_path / "r", code=1)
    rows = {(row.file, row.system): row for row in read_rows(tmp_path / "r" / "scores.csv")}
    assert len(rows) == 6 * 3

    def error(path: Path | str, system: str) -> str:
        return rows[Path(path).name, system].error

    assert "digital silence" in error(silent, "resample")
    assert "16000 Hz; full-band speech" in error(low, "resample")
    assert "no such file" in error("gone.wav", "resample")
    assert "44100 Hz where 48000 is needed" in error(good, "peer")
    assert "1 channels where the reference has 2" in error(stereo, "peer")
    assert "23500 samples where 25920 are due; pass --align" in error(short, "peer")
    assert "exit code 1" in error(good, "broken")
    assert not error(good, "resample") and not error(stereo, "resample")
    assert f"{sum(bool(row.error) for row in rows.values())} of 18 results failed" in output
    page = (tmp_path / "r" / "tables.md").read_text()
    assert "(3 of 6)" in page and page.count("no such file") == 1  # all systems share it
    assert "list/gone.wav, 8 kHz, all systems: reference: " in page
    assert "| broken | - (0 of 6) | - |" in page
    costs = json.loads((tmp_path / "r" / "summary.json").read_text())["costs"]
    assert costs["resample"]["peak_memory_mb"] > 20  # of a clip that could be done, not of the first


def score_alone(folder: Path, clip: Path, system: str, timeout_s: float = 60) -> Row:
    """One clip and one system, without a process of its own."""
    settings = Settings(
        (8000,), tuple(parse_systems([system], timeout_s=timeout_s)), ("lsd",), folder, folder
    )
    (row,) = score_clip(Job(Clip(clip, "d", clip.name, "anna"), settings))
    return row


def test_commands_that_hang_or_write_nothing_cost_their_own_result_only(
    tmp_path: Path, make_clips: MakeClips
) -> None:
    (clip,) = make_clips(tmp_path / "d", 1, 0.1)
    hung = score_alone(tmp_path, clip, "x=cmd:sh -c 'sleep 600' {in} {out}", timeout_s=0.5)
    assert "did not end within 0.5 s and was killed" in hung.error and not hung.values
    nothing = score_alone(tmp_path, clip, "x=cmd:true {in} {out}")
    assert "wrote nothing to {out}" in nothing.error and not nothing.values
    assert not score_alone(tmp_path, clip, "resample").error


@pytest.mark.slow
def test_a_safetensors_model_of_the_paper_is_a_system(tmp_path: Path, make_clips: MakeClips) -> None:
    torch = pytest.importorskip("torch")
    from hifispeech.models.hifisr import DecoderConfig, EncoderConfig, HiFiSR, HiFiSRConfig, save_hifisr

    torch.manual_seed(0)
    encoder = EncoderConfig(depth=1, width=16, hidden=32, query_key=16, rotary=8, kernel=3, fsmn_width=8)
    rates, kernels = (16, 16), (32, 32)
    decoder = DecoderConfig(
        width=16, rates=rates, rate_kernels=kernels, block_kernels=(3,), block_dilations=(1,)
    )
    save_hifisr(HiFiSR(HiFiSRConfig(encoder=encoder, decoder=decoder)), tmp_path / "tiny.safetensors")
    (clip,) = make_clips(tmp_path / "d", 1, 0.3)
    row = score_alone(tmp_path, clip, f"paper={tmp_path / 'tiny.safetensors'}")
    assert not row.error and 0 < row.values["lsd"] < 10 and row.facts["seconds"] > 0


def test_all_systems_are_scored_after_the_same_rounding() -> None:
    audio = np.array([[0.1, -0.3, 1e-6, 1.5, -1.5]], np.float32)
    assert rounded(audio, "float") is audio
    for bits in (16, 24):
        once = rounded(audio, str(bits))
        codes = once.astype(np.float64) * 2 ** (bits - 1)
        assert (codes == np.round(codes)).all() and once.max() == 1 - 2.0 ** (1 - bits) and once.min() == -1
        assert (rounded(once, str(bits)) == once).all()  # a file's samples stay as they are
        assert np.abs(once - audio)[0, :3].max() <= 2.0**-bits
    assert rounded(audio, "16")[0, 2] == 0


def test_clips_that_outputs_cannot_be_told_apart_for_are_refused(
    tmp_path: Path, make_clips: MakeClips
) -> None:
    (clip,) = make_clips(tmp_path / "d", 1, 0.1)
    clip.with_suffix(".flac").write_bytes(b"")
    output = evaluate("--data", tmp_path / "d", "-o", tmp_path / "r", code=1)
    assert "is there twice but for its suffix" in output
    assert not (tmp_path / "r").exists()


def test_other_recordings_are_refused_when_aligning(tmp_path: Path, make_clips: MakeClips) -> None:
    first, second = make_clips(tmp_path / "d", 2, 1.0)
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / first.name).write_bytes(second.read_bytes())
    (tmp_path / "peer" / second.name).write_bytes(second.read_bytes())
    words = ["--data", tmp_path / "d", "--rates", 16000, "--systems", f"dir:{tmp_path / 'peer'}", "--align"]
    evaluate(*words, "--pictures", 0, "-o", tmp_path / "r", code=1)
    wrong, right = read_rows(tmp_path / "r" / "scores.csv")
    assert "do not belong together" in wrong.error and not wrong.values
    assert not right.error and right.values["lsd"] < 0.01


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "lsdd"], "unknown metric 'lsdd'; choose from lsd,"),
        (["--degrade", "magic"], "choose one of sinc,"),
        (["--bits", "12"], "bits='12' is unknown; choose one of 16, 24, float"),
        (["--rates", "48000"], "outside 2000..47999"),
        (["--systems", "slow"], "unknown system 'slow'"),
        (["--data", "nosuch:/x"], "is unknown; pass a folder or one of vctk"),
    ],
)
def test_wrong_requests_fail_at_once(
    words: list[str], message: str, tmp_path: Path, make_clips: MakeClips
) -> None:
    make_clips(tmp_path / "d", 1, 0.1)
    data = [] if "--data" in words else ["--data", tmp_path / "d"]
    assert message in evaluate(*data, *words, "-o", tmp_path / "r", code=1)
    assert not (tmp_path / "r").exists()


def scored(folder: Path) -> dict[str, Row]:
    return {row.file: row for row in read_rows(folder / "scores.csv")}


@pytest.mark.slow
def test_killed_run_goes_on_and_equals_one_that_was_not(
    tmp_path: Path, make_clips: MakeClips, tool: Callable[..., str]
) -> None:
    make_clips(tmp_path / "d", 8)

    def words(log: str, output: str) -> list[str]:
        system = tool(tmp_path / log)
        base = ["evaluate", "--data", str(tmp_path / "d"), "--rates", "8000", "--pictures", "0", "-q"]
        return [*base, "--systems", system, "-o", str(tmp_path / output)]

    # Two different logs would make two different commands, and so two cache entries: one log for both.
    process = subprocess.Popen([sys.executable, "-m", "hifispeech", *words("log", "r")])
    try:
        end = time.monotonic() + 900  # there for the day that nothing comes
        while len(list((tmp_path / "r" / "cache").rglob("*.json"))) < 2:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert "pass --resume" in evaluate(*words("log", "r")[1:], code=1)
    done = len(list((tmp_path / "r" / "cache").rglob("*.json")))
    before = len((tmp_path / "log.txt").read_text().split())
    evaluate(*words("log", "r")[1:], "--resume")
    assert len((tmp_path / "log.txt").read_text().split()) == before + 8 - done
    evaluate(*words("log", "r")[1:], "--resume", "--workers", 2)  # all is known: nothing runs
    assert len((tmp_path / "log.txt").read_text().split()) == before + 8 - done
    evaluate(*words("other", "whole")[1:], "--workers", 2)
    resumed, whole = scored(tmp_path / "r"), scored(tmp_path / "whole")
    assert {name: row.values for name, row in resumed.items()} == {n: row.values for n, row in whole.items()}
    # A changed recording is done again, the others are not.
    make_clips(tmp_path / "new", 1, 0.7)
    (tmp_path / "d" / "clip3.wav").write_bytes((tmp_path / "new" / "clip0.wav").read_bytes())
    evaluate(*words("log", "r")[1:], "--resume", "--metrics", "lsd")
    assert len((tmp_path / "log.txt").read_text().split()) == before + 8 - done + 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_a_killed_worker_costs_its_own_clip_only(
    tmp_path: Path, make_clips: MakeClips, tool: Callable[..., str]
) -> None:
    clips = make_clips(tmp_path / "d", 4)
    victim = round(read(clips[1])[0].shape[1] / 6)
    system = tool(tmp_path / "log", victim)
    words = ["--data", tmp_path / "d", "--rates", 8000, "--systems", system, "--pictures", 0, "--workers", 2]
    evaluate(*words, "-o", tmp_path / "r", code=1)
    rows = scored(tmp_path / "r")
    assert "died: SIGKILL" in rows["clip1.wav"].error
    assert all(rows[f"clip{i}.wav"].values for i in (0, 2, 3))
