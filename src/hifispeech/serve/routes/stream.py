"""`WS /v1/stream`: PCM in, PCM at 48 kHz out, as it comes."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, WebSocket
from starlette.datastructures import QueryParams
from starlette.websockets import WebSocketDisconnect

from hifispeech.audio.io.encode import quantise
from hifispeech.errors import AudioError, HifispeechError
from hifispeech.infer.live.stream import Stream
from hifispeech.serve.errors import ApiError
from hifispeech.serve.routes.audio import parse_cutoff, service_of
from hifispeech.serve.state import SHUTTING_DOWN, Service

router = APIRouter()

BAD_DATA, WENT_WRONG, GOING_AWAY, TRY_LATER = 1007, 1011, 1001, 1013
SAMPLE_TYPES = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
PARAMETERS = ("rate", "channels", "format", "output", "cutoff")


class RefusedError(Exception):
    """Ends a stream with a message and a close code of WebSocket."""

    def __init__(self, message: str, code: int = BAD_DATA) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Options:
    """The query of a stream."""

    rate: int
    channels: int
    format: str
    output: str
    cutoff_hz: float | None


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Binary messages are interleaved PCM, in and out; the text `{"type": "flush"}` asks for the rest."""
    service = service_of(socket)
    await socket.accept()
    try:
        options = parse(socket.query_params, service.settings.max_channels)
        with service.stream_slot():
            await _converse(socket, service, options)
    except WebSocketDisconnect:
        return
    except (RefusedError, HifispeechError) as error:
        await _end(socket, {"type": "error", "message": str(error)}, getattr(error, "code", BAD_DATA))
    except ApiError as error:
        code = GOING_AWAY if error.status == 503 else TRY_LATER if error.status == 429 else BAD_DATA
        await _end(socket, {"type": "error", "message": error.message}, code)


def parse(query: QueryParams, max_channels: int) -> Options:
    """The options in a query.

    Raises:
        RefusedError: naming what is wrong and what is allowed.
        ApiError: the cutoff is no frequency.
    """
    unknown = sorted(set(query) - set(PARAMETERS))
    if unknown:
        raise RefusedError(f"unknown parameter {unknown[0][:40]!r}; known are {', '.join(PARAMETERS)}")
    sample_formats = {name: query.get(name, "s16le") for name in ("format", "output")}
    for name, value in sample_formats.items():
        if value not in SAMPLE_TYPES:
            raise RefusedError(f"{name}={value[:40]!r} is unknown; pass one of {', '.join(SAMPLE_TYPES)}")
    rate, channels = query.get("rate", ""), query.get("channels", "1")
    if not rate.isdecimal():
        raise RefusedError(f"rate={rate[:40]!r} is no sample rate; pass the input's in Hz, such as rate=8000")
    if not channels.isdecimal() or not 1 <= int(channels) <= max_channels:
        raise RefusedError(f"channels={channels[:40]!r} is out of range; pass 1 to {max_channels}")
    cutoff_hz = parse_cutoff(query.get("cutoff", "auto"))
    return Options(int(rate), int(channels), sample_formats["format"], sample_formats["output"], cutoff_hz)


async def _converse(socket: WebSocket, service: Service, options: Options) -> None:
    """Messages in and out, until the client flushes, stalls or goes."""
    loop = asyncio.get_running_loop()
    threads = service.stream_threads
    work = Stream(options.rate, options.channels, service.stream_model(), cutoff_hz=options.cutoff_hz)
    frame_bytes = SAMPLE_TYPES[options.format].itemsize * options.channels
    held = b""
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), service.settings.stall_s)
        except asyncio.TimeoutError:
            raise RefusedError(f"no message came for {service.settings.stall_s:g} s", GOING_AWAY) from None
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes") is None:
            _check_flush(message["text"])
            break
        data = held + message["bytes"]
        whole = len(data) - len(data) % frame_bytes
        held = data[whole:]
        block = decode(data[:whole], options)
        await _send(socket, await loop.run_in_executor(threads, work.push, block), options)
        if service.gate.is_closed:
            raise RefusedError(SHUTTING_DOWN, GOING_AWAY)
    if held:
        raise RefusedError(f"{len(held)} bytes are left over; a frame has {frame_bytes}")
    await _send(socket, await loop.run_in_executor(threads, work.flush), options)
    await _end(socket, {"type": "end"}, 1000)


def decode(data: bytes, options: Options) -> npt.NDArray[np.float32]:
    """Interleaved PCM to float32 `[channels, time]`.

    Raises:
        AudioError: NaN or infinite samples.
    """
    samples = np.frombuffer(data, SAMPLE_TYPES[options.format])
    scale = np.float32(1 / 32768 if options.format == "s16le" else 1.0)
    block = np.ascontiguousarray(samples.reshape(-1, options.channels).T).astype(np.float32) * scale
    if not np.isfinite(block).all():
        raise AudioError("the message holds NaN or infinite samples; send finite ones")
    return block


def encode(block: npt.NDArray[np.float32], options: Options) -> bytes:
    """Float32 `[channels, time]` to interleaved PCM; 16-bit samples never wrap."""
    if options.output == "f32le":
        return block.T.astype("<f4").tobytes()
    return quantise(block, 16).T.astype("<i2").tobytes()


def _check_flush(text: str) -> None:
    try:
        message: Any = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict) or message.get("type") != "flush":
        raise RefusedError(
            'the text message is not known; send {"type": "flush"}, or PCM as a binary message'
        )


async def _send(socket: WebSocket, block: npt.NDArray[np.float32], options: Options) -> None:
    if block.shape[-1]:
        await socket.send_bytes(encode(block, options))


async def _end(socket: WebSocket, message: dict[str, str], code: int) -> None:
    await socket.send_json(message)
    await socket.close(code)
