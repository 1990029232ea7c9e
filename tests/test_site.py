"""The documentation as a site: tutorials and recipes run, it builds without a warning, needs no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

import hifispeech
from hifispeech.audio.resample import Resampler
from hifispeech.cli import app

BLOCK = re.compile(r"<!-- run(?::(\w+))? -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = ("tutorials/podcast", "tutorials/call-archive", "tutorials/tts", "tutorials/dataset", "howto")


@pytest.fixture
def desk(
    tmp_path: Path, synthetic_speech: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the pages say is there, tiny, and the program on the path."""
    phone = synthetic_speech(1.0, 8000, seed=1)[None]
    studio = synthetic_speech(1.0, 48000, seed=2)[None]
    resampler = Resampler(8000, 48000, 1)
    stored = np.concatenate([resampler.push(phone), resampler.flush()], axis=1)  # 48 kHz in its header only
    recordings = {
        "call.wav": (phone, 8000),
        "voice_24k.wav": (synthetic_speech(1.0, 24000, seed=3)[None], 24000),
        "tracks/host.flac": (studio, 48000),
        "tracks/guest.wav": (phone, 8000),
        "tracks/online.wav": (stored, 48000),
        "calls/1.wav": (np.concatenate([phone, phone[:, ::-1]]), 8000),
        "calls/may/2.wav": (phone[:, :4000], 8000),
        "recordings/1.wav": (phone, 8000),
        "corpus/good.flac": (studio, 48000),
        "corpus/old/narrow.wav": (phone, 8000),
        "corpus/old/again.wav": (phone, 8000),
    }
    for name, (audio, rate) in recordings.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        hifispeech.write(tmp_path / name, audio, rate)
    (tmp_path / "calls" / "damaged.wav").write_bytes(b"RIFF of a bad disk")
    program = tmp_path / "bin" / "hifispeech"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hifispeech "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run_blocks(page: Path, folder: Path, kinds: tuple[str, ...]) -> int:
    """Run the marked blocks of these kinds in order, as a reader would; returns their number."""
    found = [(language, code) for kind, language, code in BLOCK.findall(page.read_text()) if kind in kinds]
    for language, code in found:
        shell = ["bash", "-euo", "pipefail", "-c", code]
        words = shell if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return len(found)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for bash")
@pytest.mark.parametrize("page", PAGES)
def test_page_runs_as_written(page: str, desk: Path, repo_dir: Path) -> None:
    assert run_blocks(repo_dir / "docs" / f"{page}.md", desk, ("",)) >= 2


@pytest.mark.slow
def test_data_set_tutorial_runs_on_ray(desk: Path, repo_dir: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra dist")
    assert run_blocks(repo_dir / "docs" / "tutorials" / "dataset.md", desk, ("", "slow")) == 4
    rows = (desk / "upscaled" / "hifispeech.jsonl").read_text().splitlines()
    assert len(rows) == 2 and len(list((desk / "upscaled").glob("audio/*/*.flac"))) == 1


def test_claims_about_others_have_a_source(repo_dir: Path) -> None:
    text = (repo_dir / "docs" / "comparison.md").read_text()
    for section in ("## Published quality and size", "## Published and measured speed"):
        table = text.split(section)[1].split("\n## ")[0]
        rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
        assert rows and all("](" in row.split("|")[-2] for row in rows), section


def test_every_page_is_in_the_navigation_and_there(repo_dir: Path) -> None:
    listed = set(re.findall(r"[\w/-]+\.md$", (repo_dir / "mkdocs.yml").read_text(), re.MULTILINE))
    docs = repo_dir / "docs"
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert listed == there


@pytest.mark.slow
def test_site_builds_without_a_warning_and_needs_no_network(repo_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(
        command,
        cwd=repo_dir,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = r"<(?:script|img|iframe)[^>]+src=[\"']?(?:https?:)?//"
    styled = r"<link[^>]+stylesheet[^>]+href=[\"']?(?:https?:)?//"
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(loaded, text) and not re.search(styled, text), page
        assert "fonts.googleapis" not in text, page
    options = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert all(f">hifispeech {name}" in options for name in commands)
    assert "process_file" in (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "0.1.0" in (site / "changelog.html").read_text(encoding="utf-8")
