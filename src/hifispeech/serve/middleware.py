"""Around every request: its id, its line in the log, its metrics, the API key, foreign pages, headers."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import time
from contextvars import ContextVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hifispeech.serve.errors import ApiError, WorkError, failure
from hifispeech.serve.metrics import Metrics
from hifispeech.serve.settings import Settings

log = logging.getLogger("hifispeech.serve.access")
request_id: ContextVar[str] = ContextVar("request_id", default="-")

OPEN_PATHS = ("/", "/healthz", "/docs", "/openapi.json", "/favicon.ico")  # without an API key
DRAIN_BYTES = 1 << 23  # of a refused body, so that the client gets to read the answer
DRAIN_S = 10.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The page is ours alone: no scripts, styles or requests but from here; audio it made itself plays as blob:.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "media-src 'self' blob:; connect-src 'self' blob:; worker-src 'self' blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


class Exchange:
    """One request: counts what goes through, so that the log and a refusal know."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.status = 0
        self.received = self.sent = 0
        self.is_complete = False  # the body of the request has been read
        self.is_answered = False  # the last byte of the answer is on its way
        self.expects_continue = False

    async def receive(self) -> Message:
        """`receive` of ASGI."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        elif message["type"] == "http.disconnect":
            self.is_complete = True
        return message

    async def send(self, message: Message) -> None:
        """`send` of ASGI; a client that is still sending its body is heard out before it is refused."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = request_id.get()
            for name, value in SECURITY.items():
                headers.setdefault(name, value)
            if self.status >= 400 and not self.is_complete and not self.expects_continue:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._drain(), DRAIN_S)
        elif message["type"] == "websocket.accept":
            self.status = 101
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.is_answered = not message.get("more_body", False)
        await self._send(message)

    async def _drain(self) -> None:
        end = self.received + DRAIN_BYTES
        while not self.is_complete and self.received < end:
            await self.receive()


class Guard:
    """The outermost layer of the application (pure ASGI, so that streams stay streams)."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [_digest(key) for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        token = request_id.set(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
        try:
            await self._handle(scope, headers, Exchange(receive, send))
        finally:
            request_id.reset(token)

    async def _handle(self, scope: Scope, headers: Headers, exchange: Exchange) -> None:
        started = time.monotonic()
        outcome: str | None = None
        exchange.expects_continue = "expect" in headers
        try:
            self._check(scope, headers)
            await self._app(scope, exchange.receive, exchange.send)
        except ApiError as error:
            await refuse(scope, exchange, error)
        except ClientDisconnect:
            outcome = "client gone"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            outcome = str(error) or type(error).__name__
            if not isinstance(error, (WorkError, asyncio.TimeoutError)):
                log.error("failed", exc_info=error)
            if exchange.status or scope["type"] == "websocket":
                raise CutError from error
            await refuse(scope, exchange, failure())
        finally:
            self._note(scope, exchange, time.monotonic() - started, outcome)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse foreign pages and wrong keys.

        A page of another site may send requests from the browser of somebody who can reach this server. The
        browser then tells the page's origin, or, where a name of that site leads here, that name.
        """
        host = headers.get("host", "").lower()
        allowed = self._settings.allowed_hosts
        if allowed and urlsplit(f"//{host}").hostname not in allowed:
            raise ApiError(400, "bad_host", "this server is not known by that name (--allowed-host)")
        origin = headers.get("origin")
        foreign = origin and urlsplit(origin).netloc.lower() != host
        if foreign and origin not in self._settings.cors_origins:
            raise ApiError(
                403, "foreign_origin", "pages of other sites may not use this server (--cors-origin)"
            )
        path = scope["path"]
        if not self._keys or path in OPEN_PATHS or path.startswith("/static/"):
            return
        if scope.get("method") == "OPTIONS" and origin:
            return  # browsers ask without the key
        kind, _, credentials = headers.get("authorization", "").partition(" ")
        key = credentials.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(key)
        # All keys are compared, each in constant time: the time tells nothing about any of them.
        if not any([hmac.compare_digest(digest, known) for known in self._keys]):
            raise ApiError(
                401,
                "unauthorized",
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                {"WWW-Authenticate": "Bearer"},
            )

    def _note(self, scope: Scope, exchange: Exchange, seconds: float, outcome: str | None) -> None:
        route = getattr(scope.get("route"), "path", None) or (
            "/static" if scope["path"].startswith("/static/") else "other"
        )
        method = scope.get("method", "WS")
        self._metrics.requests.labels(route, method, str(exchange.status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields = {
            "method": method,
            "path": scope["path"],
            "status": exchange.status,
            "seconds": round(seconds, 4),
            "received": exchange.received,
            "sent": exchange.sent,
            "client": (scope.get("client") or ["-"])[0],
        }
        if outcome is None and scope["type"] == "http" and not exchange.is_answered:
            outcome = "client gone"
        if outcome is not None:
            fields["outcome"] = outcome
        quiet = scope["path"] in ("/healthz", "/metrics")
        log.log(logging.DEBUG if quiet else logging.INFO, "request", extra=fields)


class CutError(Exception):
    """An answer that cannot be completed: the server closes the connection, which the client notices."""


async def refuse(scope: Scope, exchange: Exchange, error: ApiError) -> None:
    """Answer with an error."""
    if scope["type"] == "websocket":
        await exchange.receive()  # websocket.connect
        await exchange.send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    await error_answer(error)(scope, exchange.receive, exchange.send)


def error_answer(error: ApiError) -> JSONResponse:
    """The body of every error."""
    body = {"code": error.code, "message": error.message, "request_id": request_id.get()}
    return JSONResponse({"error": body}, error.status, error.headers)


def _digest(key: str) -> bytes:
    """Of one length whatever the key's."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
