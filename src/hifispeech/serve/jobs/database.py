"""Jobs in SQLite: what was accepted is there after a restart, whatever ended the server."""

import json
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    name TEXT NOT NULL,
    format TEXT NOT NULL,
    cutoff_hz REAL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    report TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
"""
ACTIVE = ("queued", "running")


@dataclass(frozen=True)
class Job:
    """A row: times are seconds since 1970, `error` is for the client, `report` as of an upscaled file."""

    id: str
    status: str
    name: str
    format: str
    cutoff_hz: float | None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    error: str | None = None
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """Queued or running."""
        return self.status in ACTIVE


def new_id() -> str:
    """Unguessable: who knows the id of a job may have its result."""
    return secrets.token_hex(16)


class Jobs:
    """The table of jobs. Each call is one transaction, on the disk when it returns; safe between threads."""

    def __init__(self, database: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(SCHEMA)

    def add(self, job: Job) -> None:
        """Accept a queued job."""
        self._change(
            "INSERT INTO jobs (id, status, name, format, cutoff_hz, created_at) "
            "VALUES (?, 'queued', ?, ?, ?, ?)",
            (job.id, job.name, job.format, job.cutoff_hz, job.created_at),
        )

    def get(self, id: str) -> Job | None:
        """The job, None where there is none (any more)."""
        rows = self._rows("SELECT * FROM jobs WHERE id = ?", (id,))
        return _job(rows[0]) if rows else None

    def claim(self) -> Job | None:
        """Make the job that waits longest a running one; None where none waits."""
        with self._lock:
            row = self._db.execute(
                "SELECT id FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            self._db.execute(
                "UPDATE jobs SET status = 'running', started_at = ?, attempts = attempts + 1 WHERE id = ?",
                (time.time(), row["id"]),
            )
        return self.get(row["id"])

    def finish(self, id: str, report: dict[str, Any]) -> bool:
        """Running to done; False if it is not running any more."""
        return self._end(id, "done", None, report)

    def fail(self, id: str, error: str) -> bool:
        """Running to failed; False if it is not running any more."""
        return self._end(id, "failed", error, {})

    def cancel(self, id: str) -> bool:
        """Queued or running to cancelled; False if it is neither."""
        count = self._change(
            "UPDATE jobs SET status = 'cancelled', finished_at = ? "
            "WHERE id = ? AND status IN ('queued', 'running')",
            (time.time(), id),
        )
        return bool(count)

    def remove(self, id: str) -> None:
        """Forget a job."""
        self._change("DELETE FROM jobs WHERE id = ?", (id,))

    def requeue(self, id: str | None = None) -> int:
        """Running jobs, or one of them, wait again, at their old place; returns how many."""
        return self._change(
            "UPDATE jobs SET status = 'queued', started_at = NULL "
            "WHERE status = 'running' AND id = ifnull(?, id)",
            (id,),
        )

    def ended_before(self, moment: float) -> list[Job]:
        """Jobs done, failed or cancelled before `moment`."""
        return [_job(row) for row in self._rows("SELECT * FROM jobs WHERE finished_at < ?", (moment,))]

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        return [_job(row) for row in self._rows("SELECT * FROM jobs ORDER BY number")]

    def counts(self) -> dict[str, int]:
        """Number of jobs of each status."""
        rows = self._rows("SELECT status, COUNT(*) AS count FROM jobs GROUP BY status")
        found = {row["status"]: row["count"] for row in rows}
        return {status: found.get(status, 0) for status in (*ACTIVE, "done", "failed", "cancelled")}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _end(self, id: str, status: str, error: str | None, report: dict[str, Any]) -> bool:
        count = self._change(
            "UPDATE jobs SET status = ?, error = ?, report = ?, finished_at = ? "
            "WHERE id = ? AND status = 'running'",
            (status, error, json.dumps(report), time.time(), id),
        )
        return bool(count)

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._lock:
            return self._db.execute(statement, values).rowcount


def _job(row: sqlite3.Row) -> Job:
    values = {key: row[key] for key in row.keys() if key not in ("number", "report")}  # noqa: SIM118
    return Job(**values, report=json.loads(row["report"]))
