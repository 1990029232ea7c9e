"""docs/evaluation.md runs from top to bottom on tiny data, and lists what there is."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hifispeech import read, write
from hifispeech.cli import app
from hifispeech.evaluate import lowrate, metrics
from hifispeech.evaluate.sets import PRESETS
from hifispeech.evaluate.systems import BASELINES, baselines

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

TOOL = """
import sys
import numpy as np, soundfile
audio, rate = soundfile.read(sys.argv[1])
soundfile.write(sys.argv[2], np.repeat(audio, 48000 // rate), 48000)
"""


@pytest.fixture(scope="module")
def text() -> str:
    page = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
    return page.read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"<!-- run -->\n```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_commands_of_the_page_run(
    text: str, tmp_path: Path, make_clips: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for clip, name in zip(make_clips(tmp_path / "recordings", 2), ("anna", "ben"), strict=True):
        clip.rename(clip.with_stem(name))
        (tmp_path / "outputs").mkdir(exist_ok=True)
        low = lowrate.low_rate(read(clip.with_stem(name))[0], 8000)
        write(tmp_path / "outputs" / f"{name}.wav", baselines.mirrored(low, 8000), 48000)
    (tmp_path / "tool.py").write_text(TOOL)
    scripts = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{scripts}:{os.environ['PATH']}")
    for language, code in blocks(text):
        words = (
            ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        )
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    made = (
        "results/tables.md",
        "report.html",
        "compared/scores.csv",
        "errors.svg",
        "bars.png",
        "spectrogram.png",
    )
    assert all((tmp_path / name).stat().st_size > 100 for name in made)


def test_page_lists_every_measure_method_preset_and_baseline(text: str) -> None:
    for name in (*metrics.MEASURES, *lowrate.METHODS, *BASELINES):
        assert f"`{name}`" in text, name
    for name in PRESETS:
        assert f"`{name}:DIR`" in text, name


def test_one_command_lists_every_metric_with_what_it_cannot_hear() -> None:
    result = CliRunner().invoke(app, ["evaluate", "--list-metrics"])
    assert result.exit_code == 0, result.output
    for name, metric in metrics.MEASURES.items():
        assert (
            f"{name}: {metric.hears}" in result.output and f"cannot hear: {metric.deaf_to}" in result.output
        )
        assert all(f"    {value}: {metric.values[value].title}; " in result.output for value in metric.values)
