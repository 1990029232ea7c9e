"""Pictures of a run: which clips, and no second run of what failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate.report import examples
from hifispeech.evaluate.results import Row
from hifispeech.evaluate.score import Job, Settings
from hifispeech.evaluate.sets import Clip
from hifispeech.evaluate.summary import summarise
from hifispeech.evaluate.systems import Output, System


def test_what_failed_in_the_run_is_not_run_again_for_its_picture(
    tmp_path: Path, make_clips: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that hung for ten minutes must not hang once more for each picture."""
    (path,) = make_clips(tmp_path / "d", 1, 0.1)
    asked: list[str] = []
    shown: list[str] = []

    def make_output(job: Job, truth: np.ndarray, low: np.ndarray, system: System, rate: int) -> Output:
        asked.append(system.label)
        if system.label == "fails now":
            raise AudioError("no")
        return Output(truth, {})

    monkeypatch.setattr(examples, "make_output", make_output)
    monkeypatch.setattr(examples, "_figures", lambda *a: {})
    monkeypatch.setattr(examples, "save_figure", lambda *a, **k: None)

    def comparison_figure(source: Any, systems: dict[str, Any], truth: Any, **rest: Any) -> None:
        shown.extend(systems)

    monkeypatch.setattr(examples, "comparison_figure", comparison_figure)
    labels = ("good", "hung", "partly", "fails now")
    systems = tuple(System(label, "command", "tool {in} {out}") for label in labels)
    settings = Settings((8000,), systems, ("lsd",), tmp_path, tmp_path)
    rows = [Row("d", path.name, "x", 8000, label, {"lsd": 1.0}) for label in labels]
    rows[1] = Row("d", path.name, "x", 8000, "hung", error="did not end")
    rows[2] = Row("d", path.name, "x", 8000, "partly", {"lsd": 2.0}, error="pesq: no utterance")
    job = Job(Clip(path, "d", path.name, "x"), settings)
    pictures = examples.draw_all([job], summarise(rows), tmp_path, 1)
    assert asked == ["good", "partly", "fails now"]
    assert shown == ["good", "partly"]
    assert list(pictures.clips.values()) == ["spectrograms/d_clip0-8000.png"]


def test_clips_never_share_a_picture() -> None:
    names = ("a b.wav", "a_b.wav", "a?b.wav", "ä.wav")
    pictures = {examples._picture_name(Row("s", name, "", 8000, "x")) for name in names}
    assert len(pictures) == len(names)
    assert {"s_a_b-8000.png", "s_ä-8000.png"} <= pictures
