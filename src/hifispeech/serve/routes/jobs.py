"""Jobs: files too long to wait for. What is accepted survives a restart of the server."""

import asyncio
import contextlib
import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from hifispeech.files import fsync, rename
from hifispeech.serve.errors import ApiError
from hifispeech.serve.jobs.database import Job, new_id
from hifispeech.serve.routes.audio import (
    AUDIO,
    BODY,
    ERRORS,
    Cutoff,
    Format,
    attachment,
    bandwidth_headers,
    get_upload,
    parse_cutoff,
    service_of,
)
from hifispeech.serve.schemas import MEDIA_TYPES, ErrorAnswer, JobAnswer, job_answer
from hifispeech.serve.state import Service

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs")

JobId = Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$", description="As `POST /v1/jobs` gave it.")]
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such job, or its time is over."}
}
UNFINISHED: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "The job is not done."}
}


@router.post("", status_code=202, responses=ERRORS, openapi_extra=BODY)
async def create(request: Request, file_type: Format = "wav", cutoff: Cutoff = "auto") -> JobAnswer:
    """Accept a file; ask for the job's status until it is done, then fetch the result."""
    service = service_of(request)
    stack = contextlib.AsyncExitStack()
    try:
        cutoff_hz = parse_cutoff(cutoff)
        stack.callback(service.gate.enter())
        await _check_queue(service)
        folder = await run_in_threadpool(service.store.scratch)
        stack.push_async_callback(run_in_threadpool, service.store.discard, folder)
        upload = await get_upload(request, folder)
        job = Job(new_id(), "queued", upload.name, file_type, cutoff_hz, time.time())
        # From here on the client may be gone: what was begun is ended.
        await asyncio.shield(run_in_threadpool(_accept, service, job, upload.path))
    finally:
        await stack.aclose()
    service.runner.wake()
    log.info("job accepted", extra={"job": job.id})
    return job_answer(job, 0.0, service.settings.keep_hours)


@router.get("/{id}", responses=MISSING)
async def status(request: Request, id: JobId) -> JobAnswer:
    """How far a job is; once it is done, what was found."""
    service = service_of(request)
    job = await _find(service, id)
    return job_answer(job, service.runner.progress(job), service.settings.keep_hours)


@router.get("/{id}/result", responses={**AUDIO, **MISSING, **UNFINISHED}, response_class=FileResponse)
async def result(request: Request, id: JobId) -> FileResponse:
    """The audio of a job that is done; parts of it with a Range header."""
    service = service_of(request)
    job = await _find(service, id)
    if job.status != "done":
        raise ApiError(409, "not_done", f"the job is {job.status}; there is a result once it is done")
    headers = {**bandwidth_headers(job.report), "Content-Disposition": attachment(job.name, job.format)}
    path = service.store.result_of(job.id, job.format)
    if not path.is_file():
        raise ApiError(404, "not_found", "the result of this job has been removed")
    return FileResponse(path, media_type=MEDIA_TYPES[job.format], headers=headers)


@router.delete("/{id}", status_code=204, responses=MISSING)
async def delete(request: Request, id: JobId) -> Response:
    """Cancel a job that waits or runs; remove one that is over, with its result."""
    service = service_of(request)
    job = await _find(service, id)
    if not await service.runner.cancel(job):
        await run_in_threadpool(service.runner.remove, job)
    return Response(status_code=204)


def _accept(service: Service, job: Job, upload: Any) -> None:
    """First the file, then the row: a job in the database always has its file."""
    fsync(upload)
    rename(upload, service.store.upload_of(job.id), durable=True)
    service.jobs.add(job)


async def _check_queue(service: Service) -> None:
    counts = await run_in_threadpool(service.jobs.counts)
    waiting, limit = counts["queued"], service.settings.job_queue
    if waiting >= limit:
        raise ApiError(
            429, "busy", f"{waiting} jobs are waiting, the limit; try again later", {"Retry-After": "30"}
        )


async def _find(service: Service, id: str) -> Job:
    job = await run_in_threadpool(service.jobs.get, id)
    if job is None:
        raise ApiError(404, "not_found", "there is no such job; it may have expired or been removed")
    return job
