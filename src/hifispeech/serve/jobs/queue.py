"""Runs jobs one after the other on workers of their own, and forgets them when their time is over."""

import asyncio
import contextlib
import logging
import time

from hifispeech.files import rename
from hifispeech.serve.errors import WorkError
from hifispeech.serve.jobs.database import Job, Jobs
from hifispeech.serve.metrics import Metrics
from hifispeech.serve.settings import Settings
from hifispeech.serve.store import Store
from hifispeech.serve.workers.pool import Pool
from hifispeech.serve.workers.request import Run, upscale_task

log = logging.getLogger(__name__)

ATTEMPTS = 3  # of a worker at one job
CLEAN_EVERY_S = 60.0


class Runner:
    """Jobs from queued to done. The database says what is to do; memory only holds what runs now."""

    def __init__(self, store: Store, jobs: Jobs, settings: Settings, metrics: Metrics) -> None:
        self._store, self._jobs, self._settings, self._metrics = store, jobs, settings, metrics
        self._pool = Pool("jobs", settings.job_workers, settings, metrics)
        self._runs: dict[str, Run] = {}
        self._cancelled: set[str] = set()
        self._news = asyncio.Event()
        self._paused = False
        self._loops: list[asyncio.Task[None]] = []
        self._cleaner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what an earlier server left: nothing that was accepted is lost."""
        again = await asyncio.to_thread(self._jobs.requeue)
        if again:
            log.info("jobs taken up again", extra={"jobs": again})
        await asyncio.to_thread(self._remove_orphans)
        self._loops = [asyncio.create_task(self._loop()) for _ in range(self._pool.count)]
        self._cleaner = asyncio.create_task(self._forget_old_jobs())

    def wake(self) -> None:
        """There is a new job."""
        self._news.set()

    def pause(self) -> None:
        """Start no more jobs."""
        self._paused = True
        self._news.set()

    async def stop(self, grace_s: float) -> None:
        """Let running jobs finish within the grace; the others are queued again."""
        self.pause()
        if self._cleaner is not None:
            self._cleaner.cancel()
        if self._loops:
            await asyncio.wait(self._loops, timeout=grace_s)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._pool.close()
        again = await asyncio.to_thread(self._jobs.requeue)
        if again:
            log.info("jobs left for the next start", extra={"jobs": again})

    def progress(self, job: Job) -> float:
        """From 0 to 1."""
        run = self._runs.get(job.id)
        return run.progress if run is not None else float(job.status == "done")

    async def cancel(self, job: Job) -> bool:
        """End a queued or running job; False if it was over already."""
        done = await asyncio.to_thread(self._jobs.cancel, job.id)
        run = self._runs.get(job.id)
        if done and run is not None:
            await run.close()
        if done:
            await asyncio.to_thread(self._store.discard, self._store.upload_of(job.id))
        return done

    def remove(self, job: Job) -> None:
        """Forget a job that is over, with its files."""
        self._jobs.remove(job.id)
        self._store.discard(self._store.upload_of(job.id))
        self._store.discard(self._store.result_of(job.id, job.format))

    async def _loop(self) -> None:
        while not self._paused:
            self._news.clear()
            job = await asyncio.to_thread(self._jobs.claim)
            if job is None:
                await self._news.wait()
                continue
            self._news.set()  # there may be more: another loop, too, shall look
            try:
                await self._work(job)
            except Exception:  # a failure of the server, such as a full disk: the next job may do
                log.exception("job failed", extra={"job": job.id})
                await asyncio.to_thread(self._jobs.fail, job.id, "the server failed; send the file again")

    async def _work(self, job: Job) -> None:
        folder = self._store.scratch()
        part = folder / f"result.{job.format}"
        settings = self._settings
        task = upscale_task(
            *(self._store.upload_of(job.id), part, job.name, job.cutoff_hz),
            *(settings.max_job_minutes, settings.max_channels),
        )
        run = self._runs[job.id] = Run(self._pool, task, self._metrics, attempts=ATTEMPTS)
        started = time.monotonic()
        try:
            current = await asyncio.to_thread(self._jobs.get, job.id)
            if current is None or current.status != "running":
                return  # cancelled before it was known here
            report = await run.finish()
            size = run.size
            await asyncio.to_thread(rename, part, self._store.result_of(job.id, job.format), durable=True)
            if not await asyncio.to_thread(self._jobs.finish, job.id, {**report, "result_bytes": size}):
                self._store.discard(self._store.result_of(job.id, job.format))  # cancelled meanwhile
            self._log(job, "done", started)
        except WorkError as error:
            failure = error.answer().message
            if await asyncio.to_thread(self._jobs.fail, job.id, failure):
                self._log(job, f"failed: {error.code}", started)
        finally:
            del self._runs[job.id]
            await run.close()
            self._store.discard(folder)
        await asyncio.to_thread(self._store.discard, self._store.upload_of(job.id))

    def _log(self, job: Job, outcome: str, started: float) -> None:
        seconds = round(time.monotonic() - started, 3)
        log.info(
            "job", extra={"job": job.id, "outcome": outcome, "seconds": seconds, "attempt": job.attempts}
        )

    async def _forget_old_jobs(self) -> None:
        while True:
            before = time.time() - self._settings.keep_hours * 3600
            with contextlib.suppress(OSError):
                for job in await asyncio.to_thread(self._jobs.ended_before, before):
                    await asyncio.to_thread(self.remove, job)
            await asyncio.sleep(CLEAN_EVERY_S)

    def _remove_orphans(self) -> None:
        """Remove files that no job needs: the server ended just before or after it changed the job."""
        jobs = self._jobs.all()
        self._store.keep_only(
            [self._store.upload_of(job.id) for job in jobs if job.is_active],
            [self._store.result_of(job.id, job.format) for job in jobs if job.status == "done"],
        )
