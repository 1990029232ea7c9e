"""The web page of a test: questions out, answers in. What a slot is called never leaves this process.

Sound has the address of its question and slot, so that nobody can tell one file in two questions; it is sent
without the headers that would (ETag, Last-Modified), and all slots of a question are of one size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

import hifispeech
from hifispeech.listening import definition as test
from hifispeech.listening.definition import REFERENCE
from hifispeech.listening.plan import Trial
from hifispeech.listening.store import ConflictError, Session, Store
from hifispeech.serve.errors import ApiError

OWN = Path(__file__).parent / "static"
SHARED = Path(hifispeech.__file__).parent / "serve" / "static"
STATIC = {  # the only files there are: no address leads anywhere else
    "abx.js": (OWN, "text/javascript"),
    "questions.js": (OWN, "text/javascript"),
    "abx.css": (OWN, "text/css"),
    "player.js": (SHARED, "text/javascript"),
    "timeline.js": (SHARED, "text/javascript"),
    "style.css": (SHARED, "text/css"),
    "icon.svg": (SHARED, "image/svg+xml"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]
X = "x"  # the slot of the reference in an ABX question; in MUSHRA it is "reference"


Number = Annotated[int, PathPart(ge=1, le=1_000_000)]


class Join(BaseModel):
    """A listener's name or code."""

    listener: str = Field(max_length=200)


class GivenAnswer(BaseModel):
    """ABX: the slot found closer to X. MUSHRA: a rating for every slot."""

    choice: str | None = None
    ratings: dict[str, int] | None = None
    seconds: float = Field(ge=0, allow_inf_nan=False)


def create_app(folder: Path, hosts: list[str] | None = None) -> FastAPI:
    """The application for one test folder.

    Args:
        hosts: the host names that a browser may use; None: those of this machine alone, so that no foreign
            page can reach the test by a name of its own that resolves to 127.0.0.1. `["*"]`: any.

    Raises:
        HifispeechError: no test, damaged, or its answers belong to another one.
    """
    definition = test.load(folder)
    store = Store(folder, definition)
    app = FastAPI(title="hifispeech listening test", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or LOOPBACK)
    _add_errors(app)
    _add_page(app)

    @app.get("/api/test")
    def about() -> dict[str, Any]:
        return {"title": definition.title, "kind": definition.kind}

    @app.post("/api/sessions")
    def join(body: Join) -> dict[str, Any]:
        try:
            return _state(definition, store, store.join(body.listener))
        except ValueError as error:
            raise ApiError(422, "bad_name", str(error)) from error

    @app.get("/api/sessions/{token}")
    def resume(token: str) -> dict[str, Any]:
        return _state(definition, store, _session(store, token))

    @app.get("/api/sessions/{token}/questions/{number}/{slot}")
    def sound(token: str, number: Number, slot: str) -> Response:
        trial = store.trial(_session(store, token).listener, number)
        stimulus = _stimulus(definition.kind, trial, slot) if trial else None
        if trial is None or stimulus is None:
            raise ApiError(404, "not_found", "there is no such sound in this test")
        path = folder / test.AUDIO / definition.items[trial.item].files[stimulus]
        return Response(path.read_bytes(), media_type="audio/wav")

    @app.put("/api/sessions/{token}/questions/{number}")
    def answer(token: str, number: Number, body: GivenAnswer) -> dict[str, Any]:
        session = _session(store, token)
        trial = store.trial(session.listener, number)
        if trial is None:
            raise ApiError(404, "not_found", "there is no such question in this test")
        value = _value(definition.kind, trial, body)
        try:
            store.record(session.listener, number, value, body.seconds)
        except ConflictError as error:
            raise ApiError(409, "conflict", str(error)) from error
        return _state(definition, store, _session(store, token))

    return app


def _session(store: Store, token: str) -> Session:
    session = store.session(token)
    if session is None:
        raise ApiError(
            404, "no_session", "this session is not known here; start again with your name or code"
        )
    return session


def _state(definition: test.Definition, store: Store, session: Session) -> dict[str, Any]:
    """What the page shows: how far the listener is, and the slots of the next question."""
    trial = store.trial(session.listener, session.done + 1)
    values = {"session": session.token, "listener": session.name, "kind": definition.kind}
    values |= {"title": definition.title, "done": session.done, "total": session.total, "slots": None}
    return values | ({"slots": _slots(definition.kind, trial)} if trial else {})


def _slots(kind: str, trial: Trial) -> list[str]:
    """What the page may ask for: the open reference first."""
    if kind == "abx":
        return [X, "a", "b"]
    return [REFERENCE, *(str(slot) for slot in range(1, len(trial.stimuli) + 1))]


def _stimulus(kind: str, trial: Trial, slot: str) -> str | None:
    """What is behind a slot; None if there is no such slot."""
    slots = _slots(kind, trial)
    return [REFERENCE, *trial.stimuli][slots.index(slot)] if slot in slots else None


def _value(kind: str, trial: Trial, body: GivenAnswer) -> str | dict[str, int]:
    """The answer to keep.

    Raises:
        ApiError: it is no answer to this question.
    """
    asked = _slots(kind, trial)[1:]
    if kind == "abx":
        if body.choice not in asked or body.ratings is not None:
            raise ApiError(422, "bad_answer", "'choice' must be 'a' or 'b'")
        return body.choice
    ratings = body.ratings or {}
    if {*ratings} != {*asked} or not all(0 <= value <= 100 for value in ratings.values()):
        raise ApiError(
            422, "bad_answer", f"'ratings' must give {', '.join(asked)} a number from 0 to 100 each"
        )
    return ratings


def _add_page(app: FastAPI) -> None:
    """The page itself."""

    @app.get("/")
    def index() -> Response:
        return Response((OWN / "index.html").read_bytes(), media_type="text/html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise ApiError(404, "not_found", "there is no such file")
        place, kind = STATIC[name]
        return Response((place / name).read_bytes(), media_type=kind)

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response


def _add_errors(app: FastAPI) -> None:
    """Every error as `{"error": {"code", "message"}}`, without an inside of the server."""

    def reply(status: int, code: str, message: str) -> JSONResponse:
        return JSONResponse({"error": {"code": code, "message": message}}, status)

    @app.exception_handler(ApiError)
    def known(request: Request, error: ApiError) -> JSONResponse:
        return reply(error.status, error.code, error.message)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return reply(422, "bad_request", f"{where}: {first['msg']}" if where else str(first["msg"]))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        return reply(
            error.status_code, "not_found" if error.status_code == 404 else "bad_request", error.detail
        )

    @app.exception_handler(Exception)
    def unknown(request: Request, error: Exception) -> JSONResponse:
        return reply(500, "internal", "the server failed; ask who runs the test to look at its log")
