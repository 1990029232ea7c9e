"""docs/serving.md runs, and lists every option with its default."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from hifispeech.cli.serve import app

pytest.importorskip("websockets", reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def text(repo_dir: Path) -> str:
    return (repo_dir / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_examples_run(text: str, live: Any, phone_clip: Path, tmp_path: Path) -> None:
    shutil.copy(phone_clip, tmp_path / "call.wav")
    blocks = re.findall(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    for language, code in blocks:
        code = code.replace("http://127.0.0.1:8000", live.url)
        words = ["bash", "-euo", "pipefail"] if language == "bash" else [sys.executable]
        done = subprocess.run([*words, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    for name in ("call_48k.wav", "call_48k.flac", "job_48k.wav", "from_python.flac", "from_job.flac"):
        assert (tmp_path / name).stat().st_size > 48000


def test_every_option_is_listed_with_its_default(text: str) -> None:
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]+) \|", text, re.MULTILINE))
    command = typer.main.get_command(app)
    known = {parameter.opts[0]: parameter.default for parameter in command.params}
    known = {name: default for name, default in known.items() if not re.search("completion|debug|help", name)}
    assert set(rows) == set(known)
    for name, default in known.items():
        if default is not None and not callable(default):
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert rows[name] == shown, name


def test_every_error_code_is_listed(text: str, repo_dir: Path) -> None:
    source = "".join(path.read_text() for path in (repo_dir / "src/hifispeech/serve").rglob("*.py"))
    raised = re.findall(r"ApiError\(\s*(\d{3}),\s*\"(\w+)\"", source)
    assert len(raised) > 10
    for status, code in raised:
        assert re.search(rf"^\| {status} \|[^|]*`{code}`", text, re.MULTILINE), (status, code)
