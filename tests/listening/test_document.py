"""docs/listening.md: its commands run in its order, and what it names exists."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from hifispeech.cli import app

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")


@pytest.fixture
def document(repo_dir: Path) -> str:
    return (repo_dir / "docs" / "listening.md").read_text(encoding="utf-8")


def blocks(text: str, mark: str) -> list[str]:
    """The code of the blocks after `<!-- mark -->`."""
    return re.findall(rf"<!-- {mark} -->\n```bash\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs bash in the test's folder, with `hifispeech` on the path."""
    if shutil.which("bash") is None:
        pytest.skip("the commands are written for bash")
    program = tmp_path / "bin" / "hifispeech"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hifispeech "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")

    def start(code: str) -> Any:
        words = ["bash", "-euo", "pipefail", "-c", code]
        return subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def answer_all(address: str) -> None:
    state = httpx.post(f"{address}api/sessions", json={"listener": "anna"}, timeout=60).json()
    while state["slots"]:
        path = f"{address}api/sessions/{state['session']}/questions/{state['done'] + 1}"
        state = httpx.put(path, json={"choice": "a", "seconds": 2}, timeout=60).json()


@pytest.mark.slow
def test_commands_run(document: str, tmp_path: Path, shell: Any, empty_folders: Any) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        clean = 0.1 * rng.standard_normal(24000)
        empty_folders.write(tmp_path / "truth" / f"clip{number}.wav", clean)
        for system in ("fast", "resample"):
            for rate in ("4000", "8000"):
                empty_folders.write(tmp_path / "out" / system / rate / f"clip{number}.wav", 0.5 * clean)

    def run(code: str) -> str:
        process = shell(code)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, f"{code}\n{output}"
        return output

    made = [run(code) for code in blocks(document, "run")]
    assert len(made) == 2
    assert "abx test, 4 items" in made[0]
    assert "mushra test, 4 items" in made[1]

    (code,) = blocks(document, "serve")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = shell("exec " + code.replace("8766", str(port)))
    try:
        line = process.stdout.readline()
        assert line == f"test: listening at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        answer_all(f"http://127.0.0.1:{port}/")
    finally:
        process.kill()
        process.communicate()

    (code,) = blocks(document, "count")
    assert "fast against resample, all: 2 of 4 found fast closer" in run(code)
    assert (tmp_path / "answers.csv").read_text(encoding="utf-8").count("\n") == 5
    assert (tmp_path / "abx.png").stat().st_size > 5000


def test_commands_and_options_exist(document: str) -> None:
    root: Any = typer.main.get_command(app)
    known = {name: {o for p in command.params for o in p.opts} for name, command in
             root.commands["abx"].commands.items()}  # fmt: skip
    text = document.replace("\\\n", " ")
    lines = re.findall(r"hifispeech abx (create|serve|results)( [^\n`]*)?", text)
    assert len(lines) >= 5
    for command, words in lines:
        assert {word for word in words.split() if word.startswith("-")} <= known[command]
    everything = set().union(*known.values())
    assert {f"--{name}" for name in re.findall(r"`--([a-z]+)", document)} <= everything


def test_links_and_pictures(document: str, repo_dir: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document):
        path = repo_dir / "docs" / link
        assert path.is_file(), link
        assert path.stat().st_size < 200_000
    assert (repo_dir / "tests/listening/pictures.py").is_file()


@pytest.mark.parametrize("command", ["create", "serve", "results"])
def test_help_has_examples_with_known_options(command: str) -> None:
    root: Any = typer.main.get_command(app)
    found = root.commands["abx"].commands[command]
    known = {option for parameter in found.params for option in parameter.opts}
    examples = re.findall(r"hifispeech abx (\w+)([^\n]*)", found.help)
    assert examples
    for name, words in examples:
        assert name == command
        assert {word for word in words.split() if word.startswith("-")} <= known
