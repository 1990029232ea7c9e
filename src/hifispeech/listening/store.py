"""Listeners and their answers in SQLite: what `record` returned from is on the disk."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hifispeech.errors import HifispeechError
from hifispeech.listening.definition import ANSWERS, Definition
from hifispeech.listening.plan import Trial

LISTENER = re.compile(r"[^\W_][\w .@+-]{0,59}")  # starts with a letter or digit: no formula in a spreadsheet

SCHEMA = """
CREATE TABLE IF NOT EXISTS test (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS listeners (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, token TEXT NOT NULL UNIQUE,
    joined_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    listener INTEGER NOT NULL REFERENCES listeners, number INTEGER NOT NULL, item INTEGER NOT NULL,
    stimuli TEXT NOT NULL, PRIMARY KEY (listener, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    listener INTEGER NOT NULL, number INTEGER NOT NULL, answer TEXT NOT NULL, seconds REAL NOT NULL,
    answered_at REAL NOT NULL, PRIMARY KEY (listener, number),
    FOREIGN KEY (listener, number) REFERENCES trials) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Session:
    """A listener and how far they are; `number` of the next question is `done + 1`."""

    listener: int
    name: str
    token: str
    done: int
    total: int


@dataclass(frozen=True)
class Answer:
    """One answered question: `value` is the chosen slot (ABX) or slot to rating (MUSHRA)."""

    listener: str
    number: int
    trial: Trial
    value: Any
    seconds: float
    answered_at: float  # seconds since 1970


class ConflictError(Exception):
    """The answer is not for the question that is open, and not a repetition of one that was given."""


class Store:
    """The answers of one test. Each call opens the file anew, so any number of threads and processes may.

    Raises:
        HifispeechError: the file is damaged or belongs to another test.
    """

    def __init__(self, folder: Path, definition: Definition) -> None:
        self.path = folder / ANSWERS
        self.definition = definition
        try:
            with self._open() as db:
                db.execute("PRAGMA journal_mode = WAL")  # readers and a writer at once; kept in the file
                db.executescript(SCHEMA)
            with self._writing() as db:
                db.execute(
                    "INSERT INTO test SELECT ? WHERE NOT EXISTS (SELECT 1 FROM test)", (definition.id,)
                )
                (owner,) = db.execute("SELECT id FROM test").fetchone()
        except sqlite3.Error as error:
            raise HifispeechError(f"{self.path}: cannot be used ({error}); restore it from a copy") from error
        if owner != definition.id:
            raise HifispeechError(
                f"{self.path}: holds answers to another test; move it away or bring its test back"
            )

    def join(self, name: str) -> Session:
        """The session of this name or code: a new one, or the old one, whatever the case of the letters.

        Raises:
            ValueError: the name is empty, too long or holds other characters than allowed.
        """
        name = " ".join(name.split())
        if not LISTENER.fullmatch(name):
            raise ValueError(
                "a name or code has 1 to 60 letters, digits, spaces or . _ @ + -, a letter or digit first"
            )
        with self._writing() as db:
            row = db.execute("SELECT token FROM listeners WHERE key = ?", (name.casefold(),)).fetchone()
            token = row[0] if row else self._register(db, name)
        session = self.session(token)
        assert session is not None
        return session

    def _register(self, db: sqlite3.Connection, name: str) -> str:
        """A new listener, whose plan is stored: a later version of this program must not change it."""
        (number,) = db.execute("SELECT count(*) FROM listeners").fetchone()
        token = secrets.token_urlsafe(16)
        db.execute(
            "INSERT INTO listeners VALUES (?, ?, ?, ?, ?)",
            (number, name.casefold(), name, token, time.time()),
        )
        rows = [
            (number, place, trial.item, json.dumps(trial.stimuli))
            for place, trial in enumerate(self.definition.plan(number), 1)
        ]
        db.executemany("INSERT INTO trials VALUES (?, ?, ?, ?)", rows)
        return token

    def session(self, token: str) -> Session | None:
        """The session with this secret token, if there is one."""
        with self._open() as db:
            row = db.execute(
                "SELECT number, name, token, (SELECT count(*) FROM answers WHERE listener = l.number), "
                "(SELECT count(*) FROM trials WHERE listener = l.number) FROM listeners l WHERE token = ?",
                (token,),
            ).fetchone()
        return Session(*row) if row else None

    def trial(self, listener: int, number: int) -> Trial | None:
        """Question `number` (from 1) of a listener."""
        with self._open() as db:
            row = db.execute(
                "SELECT item, stimuli FROM trials WHERE listener = ? AND number = ?", (listener, number)
            ).fetchone()
        return Trial(row[0], tuple(json.loads(row[1]))) if row else None

    def record(self, listener: int, number: int, value: Any, seconds: float) -> None:
        """Keep the answer to the open question; it is on the disk when this returns.

        Giving the same answer to the same question again changes nothing: a page that did not hear back may
        try again.

        Raises:
            ConflictError: another question is open, or this one has another answer.
        """
        text = json.dumps(value, sort_keys=True)
        with self._writing() as db:
            row = db.execute(
                "SELECT answer FROM answers WHERE listener = ? AND number = ?", (listener, number)
            ).fetchone()
            if row is not None:
                if row[0] != text:
                    raise ConflictError(f"question {number} has been answered already")
                return
            (done,) = db.execute("SELECT count(*) FROM answers WHERE listener = ?", (listener,)).fetchone()
            if number != done + 1:
                raise ConflictError(f"question {number} is not open; the next one is {done + 1}")
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?)", (listener, number, text, seconds, time.time())
            )

    def sessions(self) -> list[Session]:
        """All listeners in the order of their arrival."""
        with self._open() as db:
            tokens = [token for (token,) in db.execute("SELECT token FROM listeners ORDER BY number")]
        return [session for token in tokens if (session := self.session(token)) is not None]

    def answers(self) -> list[Answer]:
        """All answers, by listener and question."""
        with self._open() as db:
            rows = db.execute(
                "SELECT name, number, item, stimuli, answer, seconds, answered_at FROM answers a "
                "JOIN trials USING (listener, number) JOIN (SELECT number AS listener, name FROM listeners) "
                "USING (listener) ORDER BY listener, number"
            ).fetchall()
        return [
            Answer(name, number, Trial(item, tuple(json.loads(stimuli))), json.loads(text), seconds, at)
            for name, number, item, stimuli, text, seconds, at in rows
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")  # a power cut takes no answer that was acknowledged
            db.execute("PRAGMA foreign_keys = ON")
            yield db
        finally:
            db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that has the right to write from its start."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def has_answers(folder: Path) -> bool:
    """Whether a test folder holds answers; True also where that cannot be read."""
    path = folder / ANSWERS
    if not path.exists():
        return False
    try:
        db = sqlite3.connect(path)
        try:
            return db.execute("SELECT EXISTS (SELECT 1 FROM answers)").fetchone()[0] == 1
        finally:
            db.close()
    except sqlite3.Error:
        return True
