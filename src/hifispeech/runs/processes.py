"""A process pool that survives crashes: a dead process fails only its current task and is replaced.

`run_tasks` spawns the processes, so that they share nothing with the parent, gives each one task at a time
and yields what becomes of the tasks. A process ends when its parent does, even if that one is killed.
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
from multiprocessing.context import SpawnContext
from typing import Any, Generic, TypeVar

from hifispeech.errors import HifispeechError

Task = TypeVar("Task")
Result = TypeVar("Result")
# Works on a task; calls its second argument with the fraction that is done, 0 to 1, now and then.
Handler = Callable[[Task, Callable[[float], None]], Result]
# Makes the handler of a process. Picklable, as are tasks and results.
Setup = Callable[[], Handler[Task, Result]]
OnProgress = Callable[[Task, float], None]
# Gets what a process logged and its task at that time, None before the first and between two.
OnLog = Callable[[Task | None, logging.LogRecord], None]

_MAX_BAD_STARTS = 3
_GRACE_S = 5.0


@dataclass(frozen=True)
class Crashed:
    """What becomes of a task whose process died."""

    reason: str


def run_tasks(
    setup: "Setup[Task, Result]",
    tasks: Sequence[Task],
    workers: int,
    *,
    max_ahead: int | None = None,
    on_progress: "OnProgress[Task] | None" = None,
    on_log: "OnLog[Task] | None" = None,
) -> "Generator[tuple[Task, Result | Crashed], None, None]":
    """Work on all tasks in `workers` processes; yields each task as it ends, with its result.

    No task starts while one that comes `max_ahead` or more places before it is unfinished; this bounds what
    has to be kept by a caller who needs the results in order. When the iterator is closed or an exception
    passes through it, the processes are ended.

    Raises:
        HifispeechError: `setup` raised it in a process, or processes die before they are ready.
    """
    pool = _ProcessPool(setup, tasks, max_ahead, on_progress, on_log)
    try:
        for _ in range(min(workers, len(tasks))):
            pool.start_process()
        while pool.processes:
            for ready in connection.wait([process.pipe for process in pool.processes]):
                process = next(process for process in pool.processes if process.pipe is ready)
                ended = pool.receive(process)
                if ended is not None:
                    yield ended
    finally:
        pool.stop()


class _Process(Generic[Task, Result]):
    """One process of the pool; `job` is its task and the place of that among all tasks."""

    def __init__(self, context: SpawnContext, setup: "Setup[Task, Result]") -> None:
        self.pipe, theirs = context.Pipe()
        self.job: tuple[int, Task] | None = None
        self.is_ready = False
        self.wants_job = False
        self._process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        with _without_interrupts():
            self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    def bury(self) -> str:
        """Clean up after a process that ended; returns why it did."""
        self.pipe.close()
        self._process.join(_GRACE_S)
        return _exit_reason(self._process.exitcode)

    def terminate(self) -> None:
        """Ask the process to end, also in the middle of its task."""
        self._process.terminate()

    def end(self) -> None:
        """Wait for the end after `terminate`, but not for long."""
        self._process.join(_GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.pipe.close()


class _ProcessPool(Generic[Task, Result]):
    """The processes and the tasks that no process has got yet."""

    def __init__(
        self,
        setup: "Setup[Task, Result]",
        tasks: Sequence[Task],
        max_ahead: int | None,
        on_progress: "OnProgress[Task] | None",
        on_log: "OnLog[Task] | None",
    ) -> None:
        self.processes: list[_Process[Task, Result]] = []
        self._setup, self._max_ahead = setup, max_ahead
        self._on_progress, self._on_log = on_progress, on_log
        self._waiting = deque(enumerate(tasks))
        self._context = multiprocessing.get_context("spawn")
        self._bad_starts = 0

    def start_process(self) -> None:
        self.processes.append(_Process(self._context, self._setup))

    def receive(self, process: "_Process[Task, Result]") -> "tuple[Task, Result | Crashed] | None":
        """Take a message of a process; returns its task and the result if the task has ended."""
        try:
            kind, value = process.pipe.recv()
        except (EOFError, OSError):
            return self._replace_dead(process)
        if kind == "broken":
            raise value
        task = None if process.job is None else process.job[1]
        if kind == "log":
            if self._on_log is not None:
                self._on_log(task, logging.makeLogRecord(value))
            return None
        if kind == "progress":
            if self._on_progress is not None and task is not None:
                self._on_progress(task, value)
            return None
        if kind == "ready":
            process.is_ready, self._bad_starts = True, 0
        job, process.job, process.wants_job = process.job, None, True
        self._hand_out()
        return None if job is None else (job[1], value)

    def _hand_out(self) -> None:
        """The next tasks to the processes that want one; where none is left, the process ends."""
        for process in self.processes:
            if not process.wants_job or self._is_far_ahead():
                continue
            process.wants_job = False
            process.job = self._waiting.popleft() if self._waiting else None
            try:
                process.pipe.send(process.job)
            except OSError:  # it died while idle; its end of the pipe says so next
                if process.job is not None:
                    self._waiting.appendleft(process.job)
                    process.job = None

    def _is_far_ahead(self) -> bool:
        """Whether the next task has to wait for one that comes long before it."""
        unfinished = [process.job[0] for process in self.processes if process.job is not None]
        if self._max_ahead is None or not self._waiting or not unfinished:
            return False
        return self._waiting[0][0] - min(unfinished) >= self._max_ahead

    def _replace_dead(self, process: "_Process[Task, Result]") -> tuple[Task, Crashed] | None:
        """Start another process in place of one that ended, if there is work for it."""
        self.processes.remove(process)
        reason = process.bury()
        if not process.is_ready:
            self._bad_starts += 1
            if self._bad_starts >= _MAX_BAD_STARTS:
                raise HifispeechError(
                    f"worker processes end before they are ready ({reason}); use fewer of them if memory is "
                    'short; in a script, put the call under `if __name__ == "__main__":`'
                )
        if self._waiting:
            self.start_process()
        self._hand_out()  # the task that is lost may have been what others waited for
        return None if process.job is None else (process.job[1], Crashed(reason))

    def stop(self) -> None:
        """End all processes, those at work in the middle of it."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.end()
        self.processes.clear()


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
        # Not the record itself: its arguments and its traceback may not be picklable.
        fields = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self._pipe.send(("log", {**fields, "msg": record.getMessage()}))


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
        while (job := pipe.recv()) is not None:
            _, task = job
            pipe.send(("done", handler(task, lambda fraction: pipe.send(("progress", fraction)))))


def _end_with_parent() -> None:
    """A killed parent cannot end its processes; without it their work would be lost anyway."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
