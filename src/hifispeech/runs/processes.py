"""Tasks spread over processes that may die: a lost task is noticed, its process replaced, the rest goes on.

`run_tasks` starts the processes (spawned, nothing is shared with the parent), gives each one task at a time
and yields what happens. A process ends when its parent does, even if that one is killed.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Generic, TypeVar

from hifispeech.errors import HifispeechError

Task = TypeVar("Task")
Result = TypeVar("Result")
# Works on a task; calls its second argument with the share that is done, 0 to 1, now and then.
Handler = Callable[[Task, Callable[[float], None]], Result]
# Makes the handler of a process. Picklable, as are tasks and results.
Setup = Callable[[], Handler[Task, Result]]

_MOST_BAD_STARTS = 3
_GRACE_S = 5.0


@dataclass(frozen=True)
class Progress(Generic[Task]):
    """A part of the task is done: `share`, 0 to 1."""

    task: Task
    share: float


@dataclass(frozen=True)
class Logged(Generic[Task]):
    """A process logged something, most likely about its task."""

    task: Task | None
    logger: str
    level: int
    text: str


@dataclass(frozen=True)
class Finished(Generic[Task, Result]):
    """The handler returned."""

    task: Task
    result: Result


@dataclass(frozen=True)
class Lost(Generic[Task]):
    """The process died at the task."""

    task: Task
    reason: str


Event = Progress[Task] | Logged[Task] | Finished[Task, Result] | Lost[Task]


@dataclass(eq=False)
class _Worker(Generic[Task]):
    process: SpawnProcess
    pipe: connection.Connection
    task: Task | None = None
    is_ready: bool = False


def run_tasks(
    setup: "Setup[Task, Result]", tasks: Sequence[Task], workers: int
) -> "Generator[Event[Task, Result], None, None]":
    """Work on all tasks in `workers` processes; events come in the order in which they happen.

    When the iterator is closed or an exception passes through it, the processes are ended.

    Raises:
        HifispeechError: `setup` raised it in a process, or processes die before they are ready.
    """
    crew = _Crew(setup, deque(tasks))
    try:
        for _ in range(min(workers, len(tasks))):
            crew.start_worker()
        while crew.workers:
            for ready in connection.wait([worker.pipe for worker in crew.workers]):
                worker = next(worker for worker in crew.workers if worker.pipe is ready)
                event = crew.receive(worker)
                if event is not None:
                    yield event
    finally:
        crew.stop()


class _Crew(Generic[Task, Result]):
    """The processes at work and the tasks that wait."""

    def __init__(self, setup: "Setup[Task, Result]", waiting: deque[Task]) -> None:
        self.workers: list[_Worker[Task]] = []
        self._setup, self._waiting = setup, waiting
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._bad_starts = 0

    def start_worker(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._setup), daemon=True)
        with _without_interrupts():
            process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.workers.append(_Worker(process, ours))

    def receive(self, worker: _Worker[Task]) -> "Event[Task, Result] | None":
        """Take a message of a process; None if it is of no interest outside."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if kind == "log":
            return Logged(worker.task, *value)
        if kind == "broken":
            raise value
        task = worker.task
        if kind == "progress":
            return None if task is None else Progress(task, value)
        if kind == "ready":
            worker.is_ready, self._bad_starts = True, 0
            self._assign(worker)
            return None
        assert kind == "done" and task is not None
        self._assign(worker)
        return Finished(task, value)

    def _assign(self, worker: _Worker[Task]) -> None:
        """The next task, or none: then the process ends."""
        worker.task = self._waiting.popleft() if self._waiting else None
        try:
            worker.pipe.send(worker.task)
        except OSError:  # it died while idle; its end of the pipe says so next
            if worker.task is not None:
                self._waiting.appendleft(worker.task)
                worker.task = None

    def _bury(self, worker: _Worker[Task]) -> "Lost[Task] | None":
        """Replace a process that ended while there is work."""
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join(_GRACE_S)
        reason = _exit_reason(worker.process.exitcode)
        if not worker.is_ready:
            self._bad_starts += 1
            if self._bad_starts >= _MOST_BAD_STARTS:
                raise HifispeechError(
                    f"worker processes end before they are ready ({reason}); use fewer of them if memory is "
                    'short; in a script, put the call under `if __name__ == "__main__":`'
                )
        if self._waiting:
            self.start_worker()
        return None if worker.task is None else Lost(worker.task, reason)

    def stop(self) -> None:
        """End all processes, those at work in the middle of it."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self.workers.clear()


def _exit_reason(code: int | None) -> str:
    if code is None or code >= 0:
        return f"it ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"{name}; perhaps the system ran out of memory" if name == "SIGKILL" else name


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; those started here leave it to the parent."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _ToParent(logging.Handler):
    """Sends log records up the pipe: the parent knows where they go."""

    def __init__(self, pipe: connection.Connection) -> None:
        super().__init__(logging.WARNING)
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send(("log", (record.name, record.levelno, record.getMessage())))


def _serve(pipe: connection.Connection, setup: Callable[[], Handler[Any, Any]]) -> None:
    """The life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger().addHandler(_ToParent(pipe))
    try:
        handler = setup()
    except Exception as error:
        broken = error if isinstance(error, HifispeechError) else HifispeechError(f"{error!r}")
        pipe.send(("broken", broken))
        return
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        pipe.send(("ready", None))
        while (task := pipe.recv()) is not None:
            pipe.send(("done", handler(task, lambda share: pipe.send(("progress", share)))))


def _end_with_parent() -> None:
    """A killed parent cannot end its processes; without it their work would be lost anyway."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
