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
PAGES = {"tutorials/podcast": 5, "tutorials/call-archive": 4, "tutorials/tts": 3, "tutorials/dataset": 2}
PAGES |= {"howto": 8, "index": 1}
# Which test runs the blocks of a page; a mark other than "run" is told apart there.
RUN_BY = {
    "README.md": "tests/test_docs.py",
    "examples/README.md": "tests/test_docs.py",
    "docs/quickstart.md": "tests/test_docs.py",
    "docs/folders.md": "tests/test_docs.py",
    "docs/streaming.md": "tests/cli/test_stream.py",
    "docs/serving.md": "tests/serve/test_serving_docs.py",
    "docs/evaluation.md": "tests/evaluate/test_documents.py",
    "docs/listening.md": "tests/listening/test_document.py",
    "docs/training.md": "tests/train/test_commands.py",
    "docs/benchmarks/gpu.md": "tests/infer/batch/test_upscaler.py",
    **{f"docs/{page}.md": "tests/test_site.py" for page in PAGES},
}
REASON = re.compile(r"not run: .*\b(?:needs|installs|takes|does not end)\b")


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
    video(tmp_path / "talk.mp4")
    (tmp_path / "calls" / "damaged.wav").write_bytes(b"RIFF of a bad disk")
    program = tmp_path / "bin" / "hifispeech"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hifispeech "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def video(path: Path) -> None:
    """A second of sound in an MP4."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            noise = np.random.default_rng(start).normal(0, 0.1, (1, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


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
    assert run_blocks(repo_dir / "docs" / f"{page}.md", desk, ("",)) == PAGES[page]


def test_every_example_is_run_or_says_why_not(repo_dir: Path) -> None:
    """Each block of commands or Python in any document: a test runs it, or its mark names what is missing."""
    pages = [repo_dir / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")]
    for page in [*pages, *(repo_dir / "docs").rglob("*.md")]:
        name, text = page.relative_to(repo_dir).as_posix(), page.read_text(encoding="utf-8")
        found = re.findall(r"^(?:<!-- (.*) -->\n)?```(?:bash|sh|console|python)\n", text, re.MULTILINE)
        assert len(found) == len(re.findall(r"^ *```(?:bash|sh|console|python)\b", text, re.MULTILINE)), name
        for mark in found:
            assert mark, f"{name}: a block has no mark: <!-- run -->, or <!-- not run: reason -->"
            assert name in RUN_BY or REASON.match(mark), (name, mark)
    for name, test in RUN_BY.items():
        assert Path(name).name.removesuffix(".md") in (repo_dir / test).read_text(encoding="utf-8"), (
            name,
            test,
        )


@pytest.mark.xdist_group("ray")  # one Ray at a time: it takes all cores
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
