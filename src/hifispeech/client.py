"""Client of a `hifispeech serve` server (extra `serve`: httpx, and websockets for streams).

from hifispeech.client import Client

with Client("http://127.0.0.1:8000") as client:
    client.upscale("call.wav", "call_48k.wav")
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hifispeech import Inspection
from hifispeech.errors import AudioError, HifispeechError
from hifispeech.files import atomic_file

if TYPE_CHECKING:
    import httpx

StrPath = str | os.PathLike[str]
Block = npt.NDArray[np.float32]

POLL_S = (0.1, 2.0)  # between two questions about a job: first, and at most


class ServiceError(HifispeechError):
    """The server refused or failed; `status` is HTTP's, `code` the server's, `request_id` is in its log."""

    def __init__(self, status: int, code: str, message: str, request_id: str = "-") -> None:
        super().__init__(message)
        self.status, self.code, self.request_id = status, code, request_id


@dataclass(frozen=True)
class Upscaled:
    """What the server measured in a file, one value a channel, and where the result was written."""

    path: Path
    cutoff_hz: tuple[float, ...]
    is_full_band: bool
    request_id: str


@dataclass(frozen=True)
class JobStatus:
    """A job: `status` is queued, running, done, failed or cancelled, `progress` 0 to 1."""

    id: str
    status: str
    progress: float
    error: str | None
    details: dict[str, Any]  # all that the server tells, such as cutoff_hz and duration_s once it is done

    @property
    def is_over(self) -> bool:
        """Neither waiting nor running."""
        return self.status not in ("queued", "running")


class Client:
    """Talks to one server; use as a context manager, or `close` it.

    Args:
        base_url: of the server.
        api_key: if the server wants one.
        timeout_s: longest silence of the server.
        patience_s: how long in all a busy server (429) is asked again before that becomes an error.

    Every method raises `ServiceError` for what the server refuses, and for a server that cannot be reached.

    Raises:
        ImportError: httpx is not installed.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        timeout_s: float = 300.0,
        patience_s: float = 60.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.patience_s, self._timeout_s = patience_s, timeout_s
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._httpx = _need("httpx")
        self._http: httpx.Client = self._httpx.Client(
            base_url=self.base_url, headers=self._headers, timeout=timeout_s
        )

    def upscale(
        self, source: StrPath, target: StrPath, *, cutoff_hz: float | None = None, force: bool = False
    ) -> Upscaled:
        """Upscale a file; the format follows the suffix of `target`, which appears whole or not at all.

        Raises:
            AudioError: the source is missing, or the target exists and `force` is not set.
        """
        path = _check_target(target, force)
        query = _query(path, cutoff_hz)
        with self._sending(source) as upload, self._ask("POST", "/v1/upscale", upload, query) as answer:
            _save(answer, path)
            return _upscaled(path, answer)

    def inspect(self, source: StrPath) -> Inspection:
        """What is in a file, as `hifispeech.inspect` says it.

        Raises:
            AudioError: the source is missing.
        """
        with self._sending(source) as upload, self._ask("POST", "/v1/inspect", upload) as answer:
            found = json.loads(answer.read())
        for key in ("channel_cutoffs_hz", "warnings"):
            found[key] = tuple(found[key])
        return Inspection(**found)

    def models(self) -> list[dict[str, Any]]:
        """Name and card of each model in the server's package."""
        return self._json("GET", "/v1/models")["models"]

    def submit(self, source: StrPath, *, format: str = "wav", cutoff_hz: float | None = None) -> JobStatus:
        """Hand in a file as a job and return at once.

        Raises:
            AudioError: the source is missing.
        """
        query = _query(Path(f"result.{format}"), cutoff_hz)
        with self._sending(source) as upload, self._ask("POST", "/v1/jobs", upload, query) as answer:
            return _job(json.loads(answer.read()))

    def job(self, id: str) -> JobStatus:
        """How far a job is."""
        return _job(self._json("GET", f"/v1/jobs/{id}"))

    def wait(self, id: str, timeout_s: float | None = None) -> JobStatus:
        """Ask until the job is over.

        Raises:
            TimeoutError: it is not over after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = POLL_S[0]
        while not (status := self.job(id)).is_over:
            if deadline is not None and time.monotonic() + pause_s > deadline:
                raise TimeoutError(f"job {id} is {status.status} after {timeout_s:g} s; wait longer")
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, POLL_S[1])
        return status

    def result(self, id: str, target: StrPath, *, force: bool = False) -> Upscaled:
        """Fetch the result of a job that is done; `target` appears whole or not at all.

        Raises:
            AudioError: the target exists and `force` is not set.
        """
        path = _check_target(target, force)
        with self._ask("GET", f"/v1/jobs/{id}/result") as answer:
            _save(answer, path)
            return _upscaled(path, answer)

    def delete(self, id: str) -> None:
        """Cancel a job that waits or runs; remove one that is over."""
        with self._ask("DELETE", f"/v1/jobs/{id}"):
            pass

    def stream(self, sample_rate: int, channels: int = 1, *, cutoff_hz: float | None = None) -> LiveStream:
        """Open a stream; use as a context manager.

        Raises:
            ImportError: websockets is not installed.
        """
        cutoff = "auto" if cutoff_hz is None else f"{cutoff_hz:g}"
        query = f"rate={sample_rate}&channels={channels}&format=f32le&output=f32le&cutoff={cutoff}"
        url = f"ws{self.base_url.removeprefix('http')}/v1/stream?{query}"
        return LiveStream(url, self._headers, channels, self._timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _json(self, method: str, path: str) -> Any:
        with self._ask(method, path) as answer:
            return json.loads(answer.read())

    @contextlib.contextmanager
    def _sending(self, source: StrPath) -> Iterator[dict[str, Any]]:
        """The arguments that make httpx send the file."""
        try:
            file = open(source, "rb")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise AudioError(f"{source}: cannot be read ({error.strerror}); check the path") from error
        with file:
            yield {"files": {"file": (Path(source).name, file, "application/octet-stream")}}

    @contextlib.contextmanager
    def _ask(
        self,
        method: str,
        path: str,
        upload: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request, again while the server is busy; the answer is read by the caller."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                with self._http.stream(method, path, params=query, **(upload or {})) as answer:
                    wait_s = _wait_s(answer)
                    if wait_s is None or time.monotonic() + wait_s > deadline:
                        _check(answer)
                        yield answer
                        return
                    answer.read()
            except self._httpx.HTTPError as error:
                raise ServiceError(
                    0,
                    "unreachable",
                    f"{self.base_url}: {error or type(error).__name__}; is the server running?",
                ) from error
            if upload is not None:
                upload["files"]["file"][1].seek(0)
            time.sleep(wait_s)


class LiveStream:
    """`WS /v1/stream` as a `hifispeech.infer.live.stream.Stream`: push blocks, get blocks at 48 kHz.

    What a push returns is what has arrived by then; all of it has after `flush`.
    """

    def __init__(self, url: str, headers: dict[str, str], channels: int, timeout_s: float) -> None:
        _need("websockets")
        from websockets.exceptions import InvalidHandshake
        from websockets.sync.client import connect

        self._channels, self._timeout_s = channels, timeout_s
        opening = connect(
            url,
            additional_headers=headers,
            open_timeout=timeout_s,
            max_size=None,
            max_queue=None,  # the server must not wait for us to read while we wait for it to read
            compression=None,
        )
        self._stack = contextlib.ExitStack()
        try:
            self._socket = self._stack.enter_context(opening)
        except (OSError, InvalidHandshake) as error:
            raise ServiceError(0, "unreachable", f"{url.partition('?')[0]}: {error}") from error
        self._is_over = False

    def push(self, block: npt.NDArray[np.floating]) -> Block:
        """Shape: `[channels, time]` in, `[channels, what has arrived]` at 48 kHz out."""
        samples = np.atleast_2d(np.asarray(block, np.float32))
        if samples.shape[0] != self._channels:
            raise AudioError(f"block has shape {np.shape(block)}; pass [{self._channels}, time]")
        from websockets.exceptions import ConnectionClosed

        arrived: list[Block] = []
        with contextlib.suppress(TimeoutError):
            with contextlib.suppress(ConnectionClosed):  # the reason is among what has arrived
                self._socket.send(samples.T.astype("<f4").tobytes())
            while (part := self._receive(0)) is not None:
                arrived.append(part)
        return self._joined(arrived)

    def flush(self) -> Block:
        """End the stream; the rest of the output. Shape: `[channels, rest]`."""
        self._socket.send(json.dumps({"type": "flush"}))
        arrived: list[Block] = []
        while (part := self._receive(self._timeout_s)) is not None:
            arrived.append(part)
        return self._joined(arrived)

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, timeout_s: float) -> Block | None:
        """The next block; None at the end. TimeoutError if none came."""
        from websockets.exceptions import ConnectionClosed

        if self._is_over:
            return None
        try:
            message = self._socket.recv(timeout_s)
        except ConnectionClosed as error:
            raise ServiceError(0, "cut_off", f"the server closed the stream ({error})") from error
        if isinstance(message, bytes):
            return np.ascontiguousarray(np.frombuffer(message, "<f4").reshape(-1, self._channels).T)
        self._is_over = True
        told = json.loads(message)
        if told["type"] == "error":
            raise ServiceError(0, "stream", told["message"])
        return None

    def _joined(self, blocks: list[Block]) -> Block:
        return np.concatenate([np.zeros((self._channels, 0), np.float32), *blocks], axis=1)


def _need(package: str) -> ModuleType:
    """Import a package of the extra `serve`."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'the client needs {package}; install it with: pip install "hifispeech[serve]"'
        ) from error


def _wait_s(answer: httpx.Response) -> float | None:
    """How long a busy server wants to be left alone; None if it is not busy."""
    if answer.status_code != 429:
        return None
    text = answer.headers.get("Retry-After", "1")
    return float(text) if text.isdecimal() else 1.0


def _check(answer: httpx.Response) -> None:
    """Raise what the server refused."""
    if answer.status_code < 400:
        return
    text = answer.read().decode("utf-8", "replace")
    try:
        told = json.loads(text)["error"]
        raise ServiceError(answer.status_code, told["code"], told["message"], told["request_id"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code}: {text[:200]}"
        raise ServiceError(answer.status_code, "unknown", message) from None


def _query(target: Path, cutoff_hz: float | None) -> dict[str, str]:
    file_type = target.suffix.lower().removeprefix(".")
    return {"format": file_type or "wav", "cutoff": "auto" if cutoff_hz is None else f"{cutoff_hz:g}"}


def _check_target(target: StrPath, force: bool) -> Path:
    path = Path(target)
    if path.exists() and not force:
        raise AudioError(f"{path}: exists already; choose another name, or replace it with force=True")
    return path


def _save(answer: httpx.Response, target: Path) -> None:
    """Write the body beside the target, then give it the target's name."""
    try:
        with atomic_file(target) as file:
            for data in answer.iter_bytes():
                file.write(data)
    except OSError as error:
        raise AudioError(
            f"{target}: cannot be written ({error.strerror or error}); check the path"
        ) from error


def _upscaled(path: Path, answer: httpx.Response) -> Upscaled:
    headers = answer.headers
    cutoffs = tuple(float(text) for text in headers["X-Hifispeech-Cutoff-Hz"].split(","))
    return Upscaled(path, cutoffs, headers["X-Hifispeech-Full-Band"] == "true", headers["X-Request-Id"])


def _job(told: dict[str, Any]) -> JobStatus:
    return JobStatus(told["id"], told["status"], told["progress"], told["error"], told)
