"""One task on a worker, and what it has said so far."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from hifispeech.serve.errors import WorkerDiedError, WorkError
from hifispeech.serve.metrics import Metrics
from hifispeech.serve.workers.pool import START_FAILED, Message, Pool

ATTEMPTS = 2  # a worker may die of something else than this task


class Run:
    """A task from the queue to its last message; `changed` is set whenever there is something new.

    The work goes on whether or not anybody listens, so that a slow client does not hold a worker. Should the
    worker die, another tries again, unless the output `is_read` while it grows and there is some.
    """

    def __init__(
        self,
        pool: Pool,
        task: dict[str, Any],
        metrics: Metrics,
        *,
        attempts: int = ATTEMPTS,
        is_read: bool = False,
    ) -> None:
        self._pool, self._task, self._metrics, self._attempts = pool, task, metrics, attempts
        self._is_read = is_read
        self.head: Message | None = None
        self.report: dict[str, Any] | None = None
        self.error: WorkError | None = None
        self.progress, self.size = 0.0, 0
        self.changed = asyncio.Event()
        self._work = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Done or failed."""
        return self.report is not None or self.error is not None

    async def finish(self, patience_s: float | None = None) -> dict[str, Any]:
        """Wait for the report.

        Raises:
            WorkError: the task failed or took more than `patience_s`.
        """
        await self._until(lambda: self.is_over, patience_s)
        assert self.report is not None
        return self.report

    async def start(self, patience_s: float) -> Message:
        """Wait for the `head`: what was measured; the output begins to grow.

        Raises:
            WorkError: the task failed or took more than `patience_s`.
        """
        await self._until(lambda: self.head is not None, patience_s)
        assert self.head is not None
        return self.head

    async def close(self) -> None:
        """End the work, whatever its state."""
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work

    async def _until(self, reached: Any, patience_s: float | None) -> None:
        async def wait() -> None:
            while not reached() and self.error is None:
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(wait(), patience_s)
        except asyncio.TimeoutError:
            raise WorkError(
                "timeout", "this took longer than is allowed here; send less audio, or a job"
            ) from None
        if self.error is not None:
            raise self.error

    async def _run(self) -> None:
        try:
            for attempts_left in reversed(range(self._attempts)):
                try:
                    await self._attempt()
                    return
                except WorkerDiedError as error:
                    if not attempts_left or (self._is_read and self.head is not None):
                        raise self._verdict(error) from error
                    self.head, self.progress, self.size = None, 0.0, 0
        except WorkError as error:
            self.error = error
        except BaseException as error:
            self.error = WorkError("cancelled", f"ended by the server ({type(error).__name__})")
            raise
        finally:
            self.changed.set()

    def _verdict(self, error: WorkerDiedError) -> WorkError:
        """A worker that does not start is the server's fault; one that ends in a task is the file's."""
        if error.code == START_FAILED:
            return error
        name = self._task["name"]
        return WorkError("bad_audio", f"{name}: decoding it failed; convert it to WAV and try again")

    async def _attempt(self) -> None:
        async with self._pool.worker() as worker:
            started = time.monotonic()
            async with contextlib.aclosing(worker.messages(self._task)) as messages:
                async for message in messages:
                    self._take(message)
            seconds = time.monotonic() - started
        self._metrics.work.labels(self._pool.name, self._task["action"]).observe(seconds)

    def _take(self, message: Message) -> None:
        if message["event"] == "head":
            self.head = message
        elif message["event"] == "progress":
            self.progress, self.size = message["done"], message.get("size", 0)
        else:
            self.progress, self.size, self.report = 1.0, message.get("size", 0), message["report"]
            if self._task["action"] == "upscale":
                self._metrics.audio.labels(self._pool.name).inc(message["report"]["duration_s"])
        self.changed.set()


def upscale_task(
    source: Path, target: Path, name: str, cutoff_hz: float | None, minutes: float, channels: int
) -> dict[str, Any]:
    """The task of upscaling a file of the server that a client calls `name`."""
    return {
        "action": "upscale",
        "source": str(source),
        "target": str(target),
        "name": name,
        "cutoff_hz": cutoff_hz,
        "max_s": minutes * 60,
        "max_channels": channels,
    }


def inspect_task(source: Path, name: str, minutes: float, channels: int) -> dict[str, Any]:
    """The task of inspecting a file."""
    return {
        "action": "inspect",
        "source": str(source),
        "name": name,
        "max_s": minutes * 60,
        "max_channels": channels,
    }
