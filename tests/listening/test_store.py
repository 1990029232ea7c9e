"""Answers: on the disk when they are acknowledged, each once, whoever else is writing."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hifispeech.listening import definition as test
from hifispeech.listening.create import Options, create
from hifispeech.listening.store import ConflictError, Store


@pytest.fixture
def store(abx_test: Path) -> Store:
    return Store(abx_test, test.load(abx_test))


def test_join_and_resume(store: Store) -> None:
    anna = store.join("Anna")
    assert (anna.listener, anna.done, anna.total) == (0, 0, 4)
    store.record(anna.listener, 1, "a", 2.5)
    again = store.join("  anna ")
    assert (again.token, again.name, again.done) == (anna.token, "Anna", 1)
    assert store.session(anna.token) == again
    other = store.join("Ännchen 2")
    assert other.listener == 1
    assert other.token != anna.token
    assert store.session("nonsense") is None


def test_the_plan_is_kept(store: Store) -> None:
    """What a listener is asked does not change, even if a later version would plan otherwise."""
    anna = store.join("anna")
    planned = store.definition.plan(anna.listener)
    assert [store.trial(anna.listener, number) for number in range(1, 5)] == planned
    assert store.trial(anna.listener, 5) is None


@pytest.mark.parametrize("name", ["", "   ", "=1+1", "-x", "@x", "a\nb\x00", "<b>", "x" * 61, "_"])
def test_bad_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="a name or code has 1 to 60"):
        store.join(name)


def test_answers_come_in_order_and_once(store: Store) -> None:
    anna = store.join("anna")
    with pytest.raises(ConflictError, match="the next one is 1"):
        store.record(anna.listener, 2, "a", 1)
    store.record(anna.listener, 1, "a", 1)
    store.record(anna.listener, 1, "a", 9)  # a repetition
    with pytest.raises(ConflictError, match="has been answered"):
        store.record(anna.listener, 1, "b", 1)
    (answer,) = store.answers()
    assert (answer.listener, answer.number, answer.value, answer.seconds) == ("anna", 1, "a", 1)
    assert answer.trial == store.trial(anna.listener, 1)


def test_write_ahead_log_and_full_sync(store: Store) -> None:
    with store._open() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


WRITER = """
import sys
from pathlib import Path
from hifispeech.listening import definition
from hifispeech.listening.store import Store
folder = Path(sys.argv[1])
store = Store(folder, definition.load(folder))
session = store.join("anna")
for number in range(session.done + 1, session.total + 1):
    store.record(session.listener, number, "ab"[number % 2], 1.0)
    print(number, flush=True)
"""


def test_kill_9_loses_no_acknowledged_answer(folders: Any) -> None:
    """A writer is killed in the middle of its work, again and again: all it has said is there."""
    test_folder = folders.root / "test"
    create(folders.truth, folders.systems("quartz", "basalt"), test_folder, Options(repeats=50))
    store = Store(test_folder, test.load(test_folder))
    for round_number in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(test_folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= 30 * round_number:
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read().split()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        last = int(rest[-1]) if rest else last
        answers = store.answers()
        assert [answer.number for answer in answers] == list(range(1, len(answers) + 1))
        assert len(answers) in (last, last + 1)  # one more may have been saved, but not yet said
        assert all(answer.value == "ab"[answer.number % 2] for answer in answers)
        with sqlite3.connect(store.path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _take_part(folder: Path, name: str) -> None:
    store = Store(folder, test.load(folder))
    session = store.join(name)
    for number in range(1, session.total + 1):
        store.record(session.listener, number, "a", 1.0)


def test_many_listeners_at_once(abx_test: Path, store: Store) -> None:
    """Six processes join and answer at the same time; each has a number and a plan of their own."""
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    names = [f"listener {k}" for k in range(6)]
    crowd = [context.Process(target=_take_part, args=(abx_test, name)) for name in names]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
        assert process.exitcode == 0
    sessions = store.sessions()
    assert sorted(session.name for session in sessions) == names
    assert [session.listener for session in sessions] == list(range(6))
    assert all(session.done == session.total == 4 for session in sessions)
    for session in sessions:
        plan = store.definition.plan(session.listener)
        assert [store.trial(session.listener, number) for number in range(1, 5)] == plan
