"""Worker processes from the server's side: a fixed number of them, each restarted when it dies or hangs."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from hifispeech.serve.errors import WorkerDiedError, WorkError
from hifispeech.serve.metrics import Metrics
from hifispeech.serve.settings import Settings

log = logging.getLogger(__name__)

START_S = 120.0  # to import and load the model
LINE_BYTES = 1 << 20
START_FAILED = "start"  # code of a worker that ended before it had a task

Message = dict[str, Any]


class Worker:
    """One process, started when first needed. It does one task at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self.is_busy = False

    @property
    def pid(self) -> int | None:
        """Of the process, None where there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def ensure(self) -> None:
        """Start the process unless it runs.

        Raises:
            WorkerDiedError: it ended while it started.
            WorkError: the model cannot be loaded.
        """
        async with self._starting:
            if self.pid is not None:
                return
            options = {
                "model": self._settings.model,
                "device": self._settings.device,
                "threads": self._settings.threads,
                "memory_mb": self._settings.worker_memory_mb,
            }
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hifispeech.serve.workers.worker", json.dumps(options)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,  # Ctrl-C in the terminal is for the server
            )
            try:
                message = await self._receive(START_S)
                if message["event"] != "ready":
                    raise WorkError(message["code"], message["message"])
            except WorkerDiedError as error:
                await self.kill()
                raise WorkerDiedError(START_FAILED, str(error)) from error
            except BaseException:
                await self.kill()
                raise

    async def messages(self, task: Message) -> AsyncGenerator[Message, None]:
        """Give the process a task; yields what it says, `done` last.

        Raises:
            WorkError: the worker says the task failed, or says nothing for too long.
            WorkerDiedError: the process is gone.
        """
        process = self._process
        assert process is not None and process.stdin is not None
        self.is_busy = True
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerDiedError("died", "the worker process was gone") from error
        while True:
            message = await self._receive(self._settings.stall_s)
            if message["event"] == "error":
                self.is_busy = message["code"] == "memory"  # then it ends itself
                raise WorkError(message["code"], message["message"])
            if message["event"] == "done":
                self.is_busy = False
            yield message
            if message["event"] == "done":
                return

    async def kill(self) -> None:
        """End the process, whatever it does."""
        process, self._process, self.is_busy = self._process, None, False
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _receive(self, patience_s: float) -> Message:
        assert self._process is not None and self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), patience_s)
        except asyncio.TimeoutError:
            raise WorkError(
                "stalled", f"decoding this file made no progress for {patience_s:g} s; convert it to WAV"
            ) from None
        if not line.endswith(b"\n"):
            code = await self._process.wait()
            raise WorkerDiedError("died", f"the worker process ended with code {code}")
        return json.loads(line)


class Pool:
    """`count` workers, handed out in the order of asking."""

    def __init__(self, name: str, count: int, settings: Settings, metrics: Metrics) -> None:
        self.name, self.count = name, count
        self._metrics = metrics
        self._workers = [Worker(settings) for _ in range(count)]
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._restarts: set[asyncio.Task[None]] = set()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def start(self) -> None:
        """Start all processes.

        Raises:
            WorkError: one does not start.
        """
        await asyncio.gather(*(worker.ensure() for worker in self._workers))

    async def close(self) -> None:
        """End all processes."""
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*(worker.kill() for worker in self._workers))

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """A worker of one's own; one left in the middle of a task is killed and started anew."""
        worker = await self._idle.get()
        self._metrics.busy.labels(self.name).inc()
        try:
            await worker.ensure()
            yield worker
        finally:
            self._metrics.busy.labels(self.name).dec()
            if worker.is_busy or worker.pid is None:
                self._metrics.restarts.labels(self.name).inc()
                self._in_background(self._renew(worker))
            else:
                self._idle.put_nowait(worker)

    async def _renew(self, worker: Worker) -> None:
        """A fresh process for `worker`; should it not start now, its next user tries again."""
        try:
            await worker.kill()
            await worker.ensure()
        except WorkError as error:
            log.error("a worker of pool %s does not start: %s", self.name, error)
        finally:
            self._idle.put_nowait(worker)

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
