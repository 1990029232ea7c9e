"""What came out of a test: answers with the names behind their slots, tables, CSV, figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hifispeech.audio.io.writer import check_target
from hifispeech.errors import HifispeechError
from hifispeech.files import write_atomic
from hifispeech.listening import definition as test
from hifispeech.listening.analysis import (
    Choice,
    Missed,
    Preference,
    Rating,
    Score,
    preferences,
    scores,
    screen,
)
from hifispeech.listening.definition import Definition
from hifispeech.listening.store import Answer, Session, Store

COLUMNS = {
    "abx": ("listener", "question", "item", "condition", "a", "b", "choice", "closer"),
    "mushra": ("listener", "question", "item", "condition", "slot", "stimulus", "rating", "screened_out"),
}
TIMES = ("seconds", "answered_at")


@dataclass(frozen=True)
class Results:
    """The state of a test. `preferences` is filled for ABX; `scores` and `left_out` for MUSHRA."""

    definition: Definition
    sessions: list[Session]
    answers: list[Answer]
    preferences: list[Preference] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    left_out: dict[str, Missed] = field(default_factory=dict)  # listener: why


def results(folder: Path, *, complete_only: bool = False) -> Results:
    """Count the answers in a test folder, also while listeners are at work.

    Args:
        complete_only: leave out listeners who have not come to the end.

    Raises:
        HifispeechError: no test, damaged, or nobody has answered yet.
        ImportError: without SciPy.
    """
    definition = test.load(folder)
    store = Store(folder, definition)
    sessions = store.sessions()
    finished = {session.name for session in sessions if session.done == session.total}
    answers = [answer for answer in store.answers() if not complete_only or answer.listener in finished]
    if not answers:
        who = "nobody has finished the test" if complete_only and sessions else "nobody has answered yet"
        raise HifispeechError(f"{folder}: {who}; open it to listeners with 'hifispeech abx serve {folder}'")
    if definition.kind == "abx":
        choices = [_choice(definition, answer) for answer in answers]
        return Results(definition, sessions, answers, preferences=preferences(choices))
    ratings = [rating for answer in answers for rating in _ratings(definition, answer)]
    left_out = screen(ratings)
    kept = [rating for rating in ratings if rating.listener not in left_out]
    return Results(definition, sessions, answers, scores=scores(kept, definition.stimuli), left_out=left_out)


def save_csv(found: Results, target: Path, *, force: bool = False) -> None:
    """Write one row for each ABX answer, or for each MUSHRA rating.

    Raises:
        AudioError: the target exists (without `force`).
    """
    definition = found.definition
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*COLUMNS[definition.kind], *TIMES])
    for answer in found.answers:
        item = definition.items[answer.trial.item]
        at = datetime.fromtimestamp(answer.answered_at, timezone.utc).isoformat(timespec="seconds")
        for cells in _cells(definition.kind, answer, found.left_out):
            head = [answer.listener, answer.number, item.name, item.condition]
            table.writerow([*head, *cells, f"{answer.seconds:.1f}", at])
    check_target(target.absolute(), force=force)
    write_atomic(target, text.getvalue())


def as_json(found: Results) -> dict[str, Any]:
    """All numbers as a JSON object; null where an interval is not defined."""
    definition = found.definition
    rows = [*found.preferences, *found.scores]
    return {
        "title": definition.title,
        "kind": definition.kind,
        "items": len(definition.items),
        "listeners": len(found.sessions),
        "finished": sum(session.done == session.total for session in found.sessions),
        "answers": len(found.answers),
        "rows": [
            {key: None if value != value else value for key, value in vars(row).items()} for row in rows
        ],
        "left_out": {name: vars(missed) for name, missed in found.left_out.items()},
    }


def save_plot(found: Results, target: Path, *, force: bool = False) -> None:
    """Draw the ABX bars (as Fig. 5 of the paper) or the MUSHRA means with their intervals.

    Raises:
        AudioError: the target exists (without `force`).
        ImportError: without matplotlib.
        ValueError: for another suffix than .png and .svg.
    """
    from hifispeech.evaluate.report.plots import save_figure
    from hifispeech.listening.plots import abx_figure, mushra_figure

    check_target(target.absolute(), force=force)
    is_abx = found.definition.kind == "abx"
    save_figure(abx_figure(found.preferences) if is_abx else mushra_figure(found.scores), target)


def _cells(kind: str, answer: Answer, left_out: dict[str, Missed]) -> list[Sequence[object]]:
    """The middle columns of the rows of one answer."""
    stimuli = answer.trial.stimuli
    if kind == "abx":
        return [(*stimuli, answer.value, stimuli["ab".index(answer.value)])]
    screened = int(answer.listener in left_out)
    return [(slot, stimulus, answer.value[str(slot)], screened) for slot, stimulus in enumerate(stimuli, 1)]


def _choice(definition: Definition, answer: Answer) -> Choice:
    """The answer in terms of the pair as the definition orders it."""
    stimuli = answer.trial.stimuli
    first, second = next(pair for pair in definition.pairs if {*pair} == {*stimuli})
    closer = stimuli["ab".index(answer.value)]
    return Choice(first, second, definition.items[answer.trial.item].condition, closer == first)


def _ratings(definition: Definition, answer: Answer) -> list[Rating]:
    item = answer.trial.item
    condition = definition.items[item].condition
    return [
        Rating(answer.listener, item, condition, stimulus, float(answer.value[str(slot)]))
        for slot, stimulus in enumerate(answer.trial.stimuli, 1)
    ]
