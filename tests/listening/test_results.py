"""From answers to numbers, CSV and figures, through the command line."""

import csv
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from hifispeech.cli import app
from hifispeech.listening import definition as test
from hifispeech.listening.store import Store

RATINGS = {"reference": 100, "quartz": 80, "basalt": 40, "anchor 3.5 kHz": 20, "anchor 7 kHz": 60}


def abx(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["abx", *map(str, words)])


def prefer(folder: Path, listener: str, best: str, questions: int = 4) -> None:
    """Answer so that `best` is always found closer."""
    store = Store(folder, test.load(folder))
    session = store.join(listener)
    for number in range(session.done + 1, questions + 1):
        trial = store.trial(session.listener, number)
        assert trial is not None
        store.record(session.listener, number, "ab"[trial.stimuli.index(best)], 1.5)


def rate(folder: Path, listener: str, ratings: dict[str, int]) -> None:
    store = Store(folder, test.load(folder))
    session = store.join(listener)
    for number in range(1, session.total + 1):
        trial = store.trial(session.listener, number)
        assert trial is not None
        value = {str(slot): ratings[name] for slot, name in enumerate(trial.stimuli, 1)}
        store.record(session.listener, number, value, 3.0)


def test_abx_results(abx_test: Path, tmp_path: Path) -> None:
    prefer(abx_test, "anna", "quartz")
    prefer(abx_test, "ben", "quartz", 2)
    prefer(abx_test, "ben", "basalt", 3)
    done = abx("results", abx_test, "--csv", tmp_path / "answers.csv", "--plot", tmp_path / "abx.png")
    assert done.exit_code == 0, done.output
    assert "2 listeners (1 finished), 7 answers" in done.output
    assert "quartz against basalt, all: 6 of 7 found quartz closer: 85.7 %" in done.output
    assert "p = 0.125, after Holm 0.125" in done.output  # 2 * (7 + 1) / 128
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["listener"] for row in rows] == ["anna"] * 4 + ["ben"] * 3
    assert [row["closer"] for row in rows] == ["quartz"] * 6 + ["basalt"]
    assert all(row[row["choice"]] == row["closer"] for row in rows)
    assert {row["item"] for row in rows[:4]} == {"4000/clip0", "4000/clip1", "16000/clip0", "16000/clip1"}
    assert all(row["item"].startswith(row["condition"]) for row in rows)
    assert (tmp_path / "abx.png").read_bytes().startswith(b"\x89PNG")


def test_complete_listeners_only(abx_test: Path) -> None:
    prefer(abx_test, "anna", "basalt")
    prefer(abx_test, "ben", "quartz", 2)
    found = json.loads(abx("results", abx_test, "--complete", "--json").stdout)
    assert [(row["wins"], row["total"]) for row in found["rows"]] == [(0, 4), (0, 2), (0, 2)]
    assert (found["listeners"], found["finished"], found["answers"]) == (2, 1, 4)


def test_mushra_results(mushra_test: Path, tmp_path: Path) -> None:
    rate(mushra_test, "anna", RATINGS)
    rate(mushra_test, "ben", {**RATINGS, "quartz": 90})
    rate(mushra_test, "carl", {**RATINGS, "reference": 60, "quartz": 0})  # heard no difference
    done = abx("results", mushra_test, "--csv", tmp_path / "ratings.csv", "--plot", tmp_path / "mushra.svg")
    assert done.exit_code == 0, done.output
    assert "quartz, all: mean 85.0" in done.output
    why = "rated the hidden reference below 90 in 100 %, the 7 kHz anchor above 90 in 0 % of items"
    assert f"left out: carl, who {why}" in done.output
    with (tmp_path / "ratings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4 * 5
    assert all(int(row["rating"]) == RATINGS[row["stimulus"]] for row in rows if row["listener"] == "anna")
    assert {row["listener"] for row in rows if row["screened_out"] == "1"} == {"carl"}
    svg = (tmp_path / "mushra.svg").read_text(encoding="utf-8")
    assert svg.startswith("<?xml")
    found = json.loads(abx("results", mushra_test, "--json").stdout)
    overall = {row["stimulus"]: row for row in found["rows"] if row["condition"] == "all"}
    assert {name: row["mean"] for name, row in overall.items()} == {**RATINGS, "quartz": 85}
    assert overall["quartz"]["count"] == 8
    assert found["left_out"] == {"carl": {"reference": 1.0, "mid_anchor": 0.0}}


def test_listeners_who_hear_no_difference_in_the_mid_anchor(mushra_test: Path) -> None:
    for name in ("anna", "ben", "carl"):
        rate(mushra_test, name, RATINGS)
    rate(mushra_test, "dora", {**RATINGS, "anchor 7 kHz": 95, "quartz": 0})
    done = abx("results", mushra_test)
    why = "rated the hidden reference below 90 in 0 %, the 7 kHz anchor above 90 in 100 % of items"
    assert f"left out: dora, who {why}" in done.output
    assert "quartz, all: mean 80.0" in done.output
    assert "no 7 kHz anchor" not in done.output


def test_without_a_mid_anchor_the_output_says_so(folders: Any) -> None:
    words = ["create", "--kind", "mushra", "--reference", folders.truth, "--system", folders.root / "quartz"]
    done = abx(*words, "--anchor", "3500", "--items", "1", "-o", folders.root / "test")
    assert done.exit_code == 0, done.output
    assert test.load(folders.root / "test").anchors == ["anchor 3.5 kHz"]
    rate(folders.root / "test", "anna", RATINGS)
    assert "screened by the hidden reference alone" in abx("results", folders.root / "test").output


def test_all_left_out(mushra_test: Path, tmp_path: Path) -> None:
    rate(mushra_test, "carl", {**RATINGS, "reference": 60})
    done = abx("results", mushra_test)
    assert done.exit_code == 0
    assert "left out: carl" in done.output
    done = abx("results", mushra_test, "--plot", tmp_path / "a.png")
    assert done.exit_code == 1
    assert "no ratings to plot" in done.output
    assert not (tmp_path / "a.png").exists()


def test_files_are_kept_unless_forced(abx_test: Path, tmp_path: Path) -> None:
    prefer(abx_test, "anna", "quartz")
    target = tmp_path / "answers.csv"
    target.write_text("mine", encoding="utf-8")
    done = abx("results", abx_test, "--csv", target)
    assert done.exit_code == 1
    assert "exists already" in done.output
    assert target.read_text(encoding="utf-8") == "mine"
    assert abx("results", abx_test, "--csv", target, "--force").exit_code == 0
    assert target.read_text(encoding="utf-8").startswith("listener,")


def test_nobody_has_answered(abx_test: Path, tmp_path: Path) -> None:
    done = abx("results", abx_test)
    assert done.exit_code == 1
    assert "nobody has answered yet" in done.output
    assert abx("results", tmp_path).exit_code == 1
    prefer(abx_test, "anna", "quartz", 1)
    assert "nobody has finished" in abx("results", abx_test, "--complete").output


def test_create_on_the_command_line(folders: Any) -> None:
    root = folders.root
    words = ["create", "--reference", folders.truth, "--system", root / "quartz", "-o", root / "test"]
    done = abx(*words, "--system", f"other name={root / 'basalt'}", "--items", "3", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["questions"] == 3
    assert test.load(root / "test").systems == ["quartz", "other name"]
    done = abx(*words, "--system", f"quartz={root / 'basalt'}")
    assert done.exit_code == 2
    assert "two systems are named 'quartz'" in done.output
    done = abx(*words, "--system", root / "basalt", "--force", "--anchor", "3500")
    assert done.exit_code == 2
    done = abx(*words, "--system", root / "basalt", "--force", "--pair", "quartz")
    assert done.exit_code == 2
    done = abx(*words, "--system", root / "basalt", "--force", "--pair", "basalt,quartz")
    assert done.exit_code == 0, done.output
    assert test.load(root / "test").pairs == [("basalt", "quartz")]
