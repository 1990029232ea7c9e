"""Routes a client waits at: `/v1/upscale`, `/v1/inspect`, `/v1/models`."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hifispeech.serve.errors import ApiError, WorkError
from hifispeech.serve.schemas import (
    MEDIA_TYPES,
    ErrorAnswer,
    FileType,
    InspectionAnswer,
    ModelCard,
    ModelsAnswer,
)
from hifispeech.serve.state import Service
from hifispeech.serve.upload import Upload, receive
from hifispeech.serve.workers.request import Run, inspect_task, upscale_task
from hifispeech.weights.packaged import packaged_cards

router = APIRouter()
Result = TypeVar("Result")

PIECE_BYTES = 1 << 16
WHOLE = ("flac", "mp3")  # their headers are written at the end

Format = Annotated[FileType, Query(alias="format", description="Type of the result.")]
Cutoff = Annotated[
    str,
    Query(
        description="Frequency in Hz at which the content of the input ends; all above it is generated. "
        "`auto` measures it.",
        examples=["auto", "3400"],
    ),
]
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is no readable audio."},
    401: {"model": ErrorAnswer, "description": "The API key is missing or wrong."},
    413: {"model": ErrorAnswer, "description": "The file is too large, too long, or has too many channels."},
    415: {"model": ErrorAnswer, "description": "The content type of the body is not one that is read."},
    422: {"model": ErrorAnswer, "description": "A parameter is out of range."},
    429: {"model": ErrorAnswer, "description": "The queue is full; Retry-After says when to come back."},
    503: {"model": ErrorAnswer, "description": "The server is shutting down."},
    504: {"model": ErrorAnswer, "description": "The work took longer than allowed."},
}
AUDIO: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio at 48 kHz. WAV, OGG and Opus are sent while they are computed.",
        "content": {kind.split(";")[0]: {} for kind in MEDIA_TYPES.values()},
        "headers": {
            "X-Hifispeech-Cutoff-Hz": {
                "description": "Where the content of the input ends, one value a channel, with commas.",
                "schema": {"type": "string", "example": "3406.2"},
            },
            "X-Hifispeech-Full-Band": {
                "description": "Whether nothing was missing, so that the audio is what it was.",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
        },
    }
}


@router.post(
    "/v1/upscale", responses={**AUDIO, **ERRORS}, response_class=StreamingResponse, openapi_extra=BODY
)
async def upscale(request: Request, file_type: Format = "wav", cutoff: Cutoff = "auto") -> StreamingResponse:
    """Upscale a file and wait for it. For long files, see `/v1/jobs`."""
    service = service_of(request)
    settings = service.settings
    deadline = time.monotonic() + settings.timeout_s
    stack = contextlib.AsyncExitStack()
    try:
        cutoff_hz = parse_cutoff(cutoff)
        folder = await _enter(service, stack)
        upload = await get_upload(request, folder)
        task = upscale_task(
            *(upload.path, folder / f"result.{file_type}", upload.name, cutoff_hz),
            *(settings.max_minutes, settings.max_channels),
        )
        run = Run(service.pool, task, service.metrics, is_read=file_type not in WHOLE)
        stack.push_async_callback(run.close)
        head = await unless_gone(request, _answered(run.start(deadline - time.monotonic())))
        headers = {**bandwidth_headers(head), "Content-Disposition": attachment(upload.name, file_type)}
        target = Path(task["target"])
        if file_type in WHOLE:
            await unless_gone(request, _answered(run.finish(deadline - time.monotonic())))
            headers["Content-Length"] = str(run.size)
            source = target.open("rb")
        else:
            source = _open(Path(head["part"]), target)
        stack.callback(source.close)
        rest = stack.pop_all()
        body = _growing(run, source)
        return OwningResponse(body, rest, deadline, headers=headers, media_type=MEDIA_TYPES[file_type])
    finally:
        await stack.aclose()


@router.post("/v1/inspect", responses=ERRORS, response_model=InspectionAnswer, openapi_extra=BODY)
async def inspect(request: Request) -> dict[str, Any]:
    """Say what is in a file: format, length, measured bandwidth, clipping, silence."""
    service = service_of(request)
    settings = service.settings
    deadline = time.monotonic() + settings.timeout_s
    stack = contextlib.AsyncExitStack()
    try:
        folder = await _enter(service, stack)
        upload = await get_upload(request, folder)
        task = inspect_task(upload.path, upload.name, settings.max_job_minutes, settings.max_channels)
        run = Run(service.pool, task, service.metrics)
        stack.push_async_callback(run.close)
        return await unless_gone(request, _answered(run.finish(deadline - time.monotonic())))
    finally:
        await stack.aclose()


@router.get("/v1/models")
def models() -> ModelsAnswer:
    """List the models in the package: what they are, what they were trained on, their licence."""
    return ModelsAnswer(models=[ModelCard(**{"name": name, **card}) for name, card in packaged_cards()])


def service_of(request: Any) -> Service:
    """The service behind a request or socket."""
    return request.app.state.service


def parse_cutoff(text: str) -> float | None:
    """`auto` is None, else hertz.

    Raises:
        ApiError: 422 for anything else; whether it fits the file is found later.
    """
    if text == "auto":
        return None
    try:
        cutoff_hz = float(text)
    except ValueError:
        cutoff_hz = -1.0
    if not 0 < cutoff_hz < 1e6:
        raise ApiError(
            422, "bad_parameter", f"cutoff={text[:40]!r} is no frequency; pass hertz, such as 3400, or auto"
        )
    return cutoff_hz


async def get_upload(request: Request, folder: Path) -> Upload:
    """The file in the request, in `folder`."""
    service = service_of(request)
    settings = service.settings
    if not service.store.has_room(settings.max_upload_bytes):
        raise ApiError(507, "no_room", "the disk of the server is full; try again later")
    upload = await receive(request, folder / "upload", settings.max_upload_bytes, settings.stall_s)
    service.metrics.received.inc(upload.size)
    return upload


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for `work`, but no longer than the client does.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


def bandwidth_headers(head: dict[str, Any]) -> dict[str, str]:
    """What was measured, as headers."""
    cutoffs = ",".join(f"{cutoff_hz:.1f}" for cutoff_hz in head["cutoff_hz"])
    sounding = [full for full, silent in zip(head["full_band"], head["silent"], strict=True) if not silent]
    full_band = bool(sounding) and all(sounding)
    return {"X-Hifispeech-Cutoff-Hz": cutoffs, "X-Hifispeech-Full-Band": str(full_band).lower()}


def attachment(name: str, file_type: str) -> str:
    """Content-Disposition of a result, after the client's name of the input."""
    stem = name.rpartition(".")[0] or name
    plain = stem.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    return f"attachment; filename=\"{plain}_48k.{file_type}\"; filename*=UTF-8''{quote(stem)}_48k.{file_type}"


class OwningResponse(StreamingResponse):
    """A streamed answer that owns what it needs: released however the sending ends, or at the deadline."""

    def __init__(
        self, body: AsyncIterator[bytes], owned: contextlib.AsyncExitStack, deadline: float, **options: Any
    ) -> None:
        super().__init__(body, **options)
        self._owned, self._deadline = owned, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            sending = super().__call__(scope, receive, send)
            await asyncio.wait_for(sending, max(0.0, self._deadline - time.monotonic()))
        finally:
            await self._owned.aclose()


async def _enter(service: Service, stack: contextlib.AsyncExitStack) -> Path:
    """Pass the gate; returns the folder of the request. The stack undoes both."""
    stack.callback(service.gate.enter())
    started = time.monotonic()
    stack.callback(lambda: service.gate.took(time.monotonic() - started))
    folder = await run_in_threadpool(service.store.scratch)
    stack.push_async_callback(run_in_threadpool, service.store.discard, folder)
    return folder


def _open(part: Path, target: Path) -> BinaryIO:
    """The result under the name it has while it grows, or, done meanwhile, in the end."""
    try:
        return part.open("rb")
    except FileNotFoundError:
        return target.open("rb")


async def _answered(work: Awaitable[Result]) -> Result:
    """Errors of the work as answers."""
    try:
        return await work
    except WorkError as error:
        raise error.answer() from error


async def _growing(run: Run, source: BinaryIO) -> AsyncIterator[bytes]:
    """The bytes of the result as they become final.

    Raises:
        WorkError: the work failed part-way; the connection is then cut, so that the client notices.
    """
    sent = 0
    while True:
        run.changed.clear()
        over = run.is_over
        while sent < run.size:
            data = await run_in_threadpool(source.read, min(PIECE_BYTES, run.size - sent))
            sent += len(data)
            yield data
        if run.error is not None:
            raise run.error
        if over and sent >= run.size:
            return
        await run.changed.wait()
