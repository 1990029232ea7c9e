"""The body of a request into a file, piece by piece: multipart or raw, never more than the limit."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from hifispeech.serve.errors import ApiError

NAME_LENGTH = 100
WRITE_BYTES = 1 << 18  # collected before a thread writes them
FRAMING_BYTES = 1 << 14  # of a multipart body, beside the file
TYPES = "multipart/form-data with the field 'file', audio/*, video/* or application/octet-stream"


@dataclass(frozen=True)
class Upload:
    """A received file: where it lies, what the client calls it (sanitised: for showing only)."""

    path: Path
    name: str
    size: int


async def receive(request: Request, path: Path, limit: int, patience_s: float) -> Upload:
    """Write the file in the body of `request` to `path`.

    Raises:
        ApiError: 400 no file or damaged multipart, 408 the client stalled, 413 too large, 415 wrong type.
        ClientDisconnect: the client is gone.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    with path.open("xb") as file:
        if kind == b"multipart/form-data" and options.get(b"boundary"):
            sink: Sink = MultipartSink(file, limit, options[b"boundary"])
        elif kind.startswith((b"audio/", b"video/")) or kind == b"application/octet-stream":
            sink = Sink(file, limit)
            sink.name = _name_in(request.headers.get("content-disposition", ""))
        else:
            told = kind.decode("latin-1") or "missing"
            raise ApiError(415, "bad_type", f"the content type is {told[:80]!r}; send {TYPES}")
        _check_length(request, limit)
        try:
            async for data in patiently(request, patience_s):
                sink.push(data)
                await sink.write(WRITE_BYTES)
            sink.finish()
        except FormParserError as error:
            raise ApiError(400, "bad_request", f"the multipart body is damaged ({error})") from error
        await sink.write(1)
    if not sink.size:
        raise ApiError(400, "bad_audio", "the file is empty; a file with audio is needed")
    return Upload(path, safe_name(sink.name), sink.size)


async def patiently(request: Request, patience_s: float) -> AsyncIterator[bytes]:
    """The pieces of the body; 408 when none comes for `patience_s`."""
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), patience_s)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise ApiError(
                408, "timeout", f"no data came for {patience_s:g} s; send the file again"
            ) from None


def safe_name(name: str) -> str:
    """A file name that is safe to show and to echo in a header; it never names a file of the server.

    >>> safe_name("../../etc/passwd"), safe_name('C:\\\\calls\\\\a"b.wav'), safe_name(" ")
    ('passwd', 'a_b.wav', 'audio')
    """
    base = re.split(r"[/\\]", name)[-1]
    kept = "".join(char if char.isprintable() and char not in '"<>|*?:;' else "_" for char in base)
    kept = kept.strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    if dot and len(suffix) < 10:
        kept = stem[: NAME_LENGTH - len(suffix) - 1] + dot + suffix
    return kept[:NAME_LENGTH] or "audio"


class Sink:
    """A raw body: all of it is the file."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit = file, limit
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.size = 0
        self.name = ""

    def push(self, data: bytes) -> None:
        """Take a piece of the body."""
        self.keep(data)

    def finish(self) -> None:
        """The body is complete."""

    def keep(self, data: bytes) -> None:
        """Take a piece of the file."""
        self.size += len(data)
        if self.size > self._limit:
            raise too_large(self._limit)
        self._held.append(data)
        self._held_bytes += len(data)

    async def write(self, least: int) -> None:
        """Write what is held, if it is `least` bytes; the disk may be slow, so in a thread."""
        if self._held_bytes < least:
            return
        data, self._held, self._held_bytes = b"".join(self._held), [], 0
        await asyncio.to_thread(self._file.write, data)


class MultipartSink(Sink):
    """A multipart body: its field `file` is the file, other fields are ignored."""

    def __init__(self, file: IO[bytes], limit: int, boundary: bytes) -> None:
        super().__init__(file, limit)
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )
        self._received = 0
        self._field = self._value = self._disposition = b""
        self._wanted = self._found = self._complete = False

    def push(self, data: bytes) -> None:
        """See `Sink.push`."""
        self._received += len(data)  # other fields count too
        if self._received > self._limit + FRAMING_BYTES:
            raise too_large(self._limit)
        self._parser.write(data)

    def finish(self) -> None:
        """See `Sink.finish`."""
        self._parser.finalize()
        if not self._complete:
            raise ApiError(400, "bad_request", "the multipart body is cut off; send it again")
        if not self._found:
            raise ApiError(400, "bad_request", "the multipart body has no field 'file' with a file")

    def _begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._wanted = options.get(b"name") == b"file" and not self._found
        if self._wanted:
            self._found = True
            self.name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.keep(data[start:end])

    def _end(self) -> None:
        self._complete = True


def too_large(limit: int) -> ApiError:
    """The answer to a body beyond the limit."""
    return ApiError(
        413, "too_large", f"the file is larger than {limit / 1e6:g} MB, the limit here; send less"
    )


def _check_length(request: Request, limit: int) -> None:
    """Refuse at once what says that it is too large."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit + FRAMING_BYTES:
        raise too_large(limit)


def _name_in(disposition: str) -> str:
    """The file name of a Content-Disposition header, also in its RFC 5987 form."""
    message = Message()
    message["Content-Disposition"] = re.sub(r"[\r\n]", "", disposition)
    return message.get_filename("")
