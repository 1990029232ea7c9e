"""What the routes share: the workers, the jobs, who is let in, and how all of it starts and stops."""

import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from hifispeech import Upscaler
from hifispeech.infer.onnx import FrameModel
from hifispeech.serve.errors import ApiError
from hifispeech.serve.jobs.database import Jobs
from hifispeech.serve.jobs.queue import Runner
from hifispeech.serve.metrics import Metrics
from hifispeech.serve.settings import Settings
from hifispeech.serve.store import Store
from hifispeech.serve.workers.pool import Pool
from hifispeech.weights.packaged import STREAMING

log = logging.getLogger(__name__)

SHUTTING_DOWN = "the server is shutting down; try again in a moment"


class Service:
    """One server's state. `upscaler` is the model of the streams, which run in the server's threads."""

    def __init__(self, settings: Settings, upscaler: Upscaler) -> None:
        self.settings, self.upscaler = settings, upscaler
        self.metrics = Metrics()
        self.store = Store(settings.data)
        self.jobs = Jobs(self.store.database)
        self.pool = Pool("requests", settings.workers, settings, self.metrics)
        self.runner = Runner(self.store, self.jobs, settings, self.metrics)
        self.gate = Gate(settings, self.metrics)
        self.stream_threads = ThreadPoolExecutor(settings.streams, "stream")
        self._open_streams = 0
        self._stream_model: FrameModel | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From start to stop. At the end, jobs get the rest of the grace to finish; others wait again.

        Raises:
            WorkError: a worker does not start.
        """
        try:
            await self.pool.start()
            await self.runner.start()
            log.info("ready")
            yield
        finally:
            self.drain()
            await self.runner.stop(max(0.0, self.gate.closes_at - time.monotonic()))
            await self.pool.close()
            self.stream_threads.shutdown(wait=False, cancel_futures=True)
            self.jobs.close()
            self.store.close()
            log.info("stopped")

    @contextlib.contextmanager
    def stream_slot(self) -> Iterator[None]:
        """A place among the open streams.

        Raises:
            ApiError: 429 when all are taken, 503 when shutting down.
        """
        self.gate.check_open()
        if self._open_streams >= self.settings.streams:
            raise ApiError(429, "busy", f"{self._open_streams} streams are open, the limit; try again later")
        self._open_streams += 1
        self.metrics.streams.set(self._open_streams)
        try:
            yield
        finally:
            self._open_streams -= 1
            self.metrics.streams.set(self._open_streams)

    def stream_model(self) -> FrameModel:
        """The model of all streams: the server's own, or the packaged one if that needs whole recordings."""
        if isinstance(self.upscaler.model, FrameModel):
            return self.upscaler.model
        if self._stream_model is None:
            self._stream_model = FrameModel(STREAMING, threads=1)
        return self._stream_model

    def drain(self) -> None:
        """Let nobody in from now on; what is inside has the grace to finish."""
        if not self.gate.is_closed:
            log.info("shutting down", extra={"grace_s": self.settings.grace_s})
            self.gate.closes_at = time.monotonic() + self.settings.grace_s
            self.runner.pause()


class Gate:
    """Who is let in: as many requests as there are workers and places to wait."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._limit = settings.workers + settings.queue
        self._workers = settings.workers
        self._metrics = metrics
        self._inside = 0
        self._mean_s = 1.0  # of the latest requests, for Retry-After
        self.closes_at = math.inf

    @property
    def is_closed(self) -> bool:
        """Whether the server is shutting down."""
        return self.closes_at < math.inf

    def enter(self) -> Callable[[], None]:
        """Let a request in; returns what to call when it leaves.

        Raises:
            ApiError: 429 when the queue is full, 503 when shutting down.
        """
        self.check_open()
        if self._inside >= self._limit:
            wait_s = min(60, math.ceil(self._mean_s * self._inside / self._workers))
            raise ApiError(
                429,
                "busy",
                f"{self._inside} requests are waiting or at work, the limit; try again in {wait_s} s",
                {"Retry-After": str(wait_s)},
            )
        self._inside += 1
        self._metrics.waiting.set(self._inside)
        return self._leave

    def check_open(self) -> None:
        """503 when shutting down."""
        if self.is_closed:
            raise ApiError(503, "shutting_down", SHUTTING_DOWN, {"Retry-After": "5"})

    def took(self, seconds: float) -> None:
        """Learn how long a request was at work."""
        self._mean_s += 0.1 * (seconds - self._mean_s)

    def _leave(self) -> None:
        self._inside -= 1
        self._metrics.waiting.set(self._inside)
