"""The training commands: a newcomer's way as the documents say, messages, two processes."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
import yaml
from typer.core import TyperGroup
from typer.testing import CliRunner

from hifispeech.cli import app
from hifispeech.cli.common import needs_extra
from hifispeech.cli.progress import RANKS, training_display
from hifispeech.cli.train import EXTRA
from hifispeech.models.artefact import config_to_dict
from hifispeech.train.checkpoint import LAST
from hifispeech.train.config import FastTrainConfig, HiFiSRTrainConfig

PLAIN = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


def documented(repo_dir: Path) -> str:
    return (repo_dir / "docs" / "training.md").read_text(encoding="utf-8")


def write_config(config: FastTrainConfig | HiFiSRTrainConfig, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config_to_dict(config)))
    return path


@pytest.mark.slow
def test_newcomers_way(
    repo_dir: Path,
    fast_config: FastTrainConfig,
    speech_clip: Path,
    dutch_clip: Path,
    phone_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exactly the lines of docs/training.md, on two speakers and with a tiny model for three steps."""
    block = re.search(r"<!-- newcomer -->\n```bash\n(.*?)```", documented(repo_dir), re.DOTALL)
    assert block is not None
    for clip, name in ((speech_clip, "anna"), (dutch_clip, "ben")):
        (tmp_path / "recordings" / name).mkdir(parents=True)
        shutil.copy(clip, tmp_path / "recordings" / name)
    shutil.copy(phone_clip, tmp_path / "phone_8k.wav")
    optimiser = replace(fast_config.optimiser, total_steps=3)
    tiny = replace(fast_config, optimiser=optimiser, validate_every=3)
    write_config(tiny, tmp_path / "configs" / "fast.yaml")
    monkeypatch.chdir(tmp_path)
    lines = block[1].strip().splitlines()
    assert [line.split()[1] for line in lines] == ["prepare", "train", "export", "upscale"]
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)
    assert (tmp_path / "phone_48k.wav").stat().st_size > 48000
    card = (tmp_path / "mine.json").read_text()
    assert '"licence": "CC0 1.0"' in card and '"steps": 3' in card


@pytest.mark.slow
def test_torchrun(fast_config: FastTrainConfig, shards: Path, tmp_path: Path) -> None:
    """The documented command for several machines, on one: two processes of torchrun."""
    config = write_config(fast_config, tmp_path / "tiny.yaml")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "hifispeech", "train", str(config), "--data", str(shards), "-o", str(tmp_path / "run")]
    words += ["--accelerator", "cpu", "--devices", "2", "--nodes", "1", "--max-steps", "2"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 2") == 1  # one of the two processes reports
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert state["step"] == 2


def test_prepare_reports_what_it_did(speech_clip: Path, phone_clip: Path, tmp_path: Path) -> None:
    for clip, name in ((speech_clip, "anna"), (phone_clip, "ben")):
        (tmp_path / "recordings" / name).mkdir(parents=True)
        shutil.copy(clip, tmp_path / "recordings" / name)
    words = ["prepare", str(tmp_path / "recordings"), "-o", str(tmp_path / "set"), "--workers", "1"]
    result = CliRunner().invoke(app, words, env=PLAIN)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert re.fullmatch(r"train: \d+\.\d minutes, speakers: 1", lines[0])
    assert lines[1] == "1 files kept (0 marked as narrow)"
    assert lines[2].startswith("1 rejected: narrow; see ") and lines[2].endswith("manifest.csv")
    assert "no speaker is held out" in lines[3]


def test_documented_options_exist(repo_dir: Path) -> None:
    text = documented(repo_dir)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`(hifispeech [a-z][^`\n]+)`", text)
    commands = [line[line.index("hifispeech ") :].split() for line in lines if "hifispeech " in line]
    assert len(commands) >= 8
    for words in commands:
        known = {name for parameter in group.commands[words[1]].params for name in parameter.opts}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, words


def test_documented_files_exist(repo_dir: Path) -> None:
    for name in re.findall(r"`((?:configs|src|tests)/[\w/.]+)`", documented(repo_dir)):
        assert (repo_dir / name).exists(), name


def test_documented_tests_exist(repo_dir: Path) -> None:
    """The table of the release's mistakes names a test for each."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", documented(repo_dir))
    assert len(named) == 10
    for file, name in named:
        assert f"def {name}(" in (repo_dir / file).read_text(encoding="utf-8"), name


class Terminal(io.StringIO):
    """What a program writes to a terminal."""

    def isatty(self) -> bool:
        return True


def plain_text(terminal: Terminal) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stands in for stderr; in the test itself, since pytest puts its own stderr back after the fixtures."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in {"TERM": "xterm", "COLUMNS": "150"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", *RANKS):
        monkeypatch.delenv(name, raising=False)
    return screen


def test_progress_shows_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with training_display() as (on_step, on_report):
        assert on_step is not None
        for step in range(1, 4):
            time.sleep(0.02)  # the time left is that of the steps so far
            on_step(step, 3000)
        on_report(3, {"loss": 0.125, "steps_per_s": 47.25})
        on_report(3, {"valid/lsd": 1.5, "valid/p1_8k": 1.75})
    shown = plain_text(screen)
    assert "3/3000" in shown and "loss 0.125 47.25 steps/s valid 1.750" in shown
    minutes, seconds = re.findall(r"0:(\d\d):(\d\d)", shown)[-1]
    assert 30 < 60 * int(minutes) + int(seconds) < 3000  # 2997 steps of 20 ms and more


@pytest.mark.slow
def test_training_draws_its_progress(
    fast_config: FastTrainConfig, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch)
    config = write_config(fast_config, tmp_path / "tiny.yaml")
    words = ["train", str(config), "--data", str(shards), "-o", str(tmp_path / "run"), "--max-steps", "2"]
    typer.main.get_command(app)([*words, "--accelerator", "cpu"], standalone_mode=False)
    assert re.search(r"2/2 .*loss \d+\.\d{3} \d+\.\d\d steps/s", plain_text(screen))


def test_progress_is_lines_without_a_terminal_and_one_process_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setattr(screen, "isatty", lambda: False)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with training_display() as (on_step, on_report):
            assert on_step is None
            on_report(50, {"loss": 0.5, "steps_per_s": 3.0})
    assert screen.getvalue() == 2 * "step 50: loss 0.5, steps_per_s 3\n"
    monkeypatch.setattr(screen, "isatty", lambda: True)
    with training_display() as (on_step, _):
        assert on_step is None  # rank 1


def test_a_run_is_not_overwritten(fast_config: FastTrainConfig, shards: Path, tmp_path: Path) -> None:
    config = write_config(fast_config, tmp_path / "tiny.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LAST).write_bytes(b"")
    words = ["train", str(config), "--data", str(shards), "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(app, words, env=PLAIN)
    assert result.exit_code == 1 and "--resume" in result.output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "none.yaml", "--data", "x", "-o", "y"], 1, "none.yaml"),
        (["export", "none.pt", "-o", "x.onnx"], 1, "none.pt"),
        (["convert", "clearvoice", "nowhere", "-o", "x.safetensors"], 1, "nowhere"),
        (["convert", "other", "nowhere", "-o", "x.safetensors"], 2, "clearvoice"),
        (["prepare", "-o", "x"], 2, "folder"),
        (["prepare", "nowhere", "-o", "x", "--split-by", "pattern"], 2, "pattern"),
        (["prepare", "nowhere", "-o", "x", "--split-by", "csv"], 2, "manifest"),
        (["prepare", "nowhere", "-o", "x", "--keep-narrow", "--min-bandwidth", "9"], 2, "keep-narrow"),
    ],
)
def test_mistakes(
    words: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words, env=PLAIN)
    assert result.exit_code == code, result.output
    assert message in result.output and "Traceback" not in result.output


def test_missing_extra_is_named() -> None:
    @needs_extra("train", EXTRA)
    def command(package: str) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    for package in EXTRA:
        with pytest.raises(ImportError, match=r'pip install "hifispeech\[train\]"'):
            command(package)
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        command("numpy")


def test_commands_start_without_the_extra() -> None:
    """`hifispeech --help` must not import PyTorch."""
    code = "import sys, hifispeech.cli; sys.exit(any(m in sys.modules for m in ('torch', 'yaml', 'onnx')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["fast", "hifisr"])
def test_two_processes_equal_one_with_the_whole_batch(
    task: str, fast_config: FastTrainConfig, gan_config: HiFiSRTrainConfig, shards: Path, tmp_path: Path
) -> None:
    """Data parallel over gloo: 2 x 2 items train as 4 items in one process, step by step."""
    config = replace(fast_config, batch_size=4)
    if task == "hifisr":  # dropout would differ: it is drawn per process
        encoder = replace(gan_config.model.encoder, dropout=0.0)
        config = replace(gan_config, batch_size=4, model=replace(gan_config.model, encoder=encoder))
    path = write_config(config, tmp_path / "tiny.yaml")
    states = []
    for devices in ("1", "2"):
        folder = tmp_path / devices
        words = [sys.executable, "-m", "hifispeech", "train", str(path), "--data", str(shards)]
        words += ["-o", str(folder), "--accelerator", "cpu", "--devices", devices, "--max-steps", "4"]
        # One thread each: more would sum in another order, and Adam turns rounding of a gradient near zero
        # into a step of full length.
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=alone)
        assert done.returncode == 0, done.stderr
        states.append(torch.load(folder / LAST, weights_only=True))
    one, two = states
    assert one["step"] == two["step"] == 4
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-4, msg=name)
    for index, moments in one["optimiser"]["state"].items():
        other = two["optimiser"]["state"][index]["exp_avg"]
        torch.testing.assert_close(other, moments["exp_avg"], rtol=1e-3, atol=1e-5)
