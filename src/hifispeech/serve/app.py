"""The application: routes, errors, the web page, the reference of the API; nothing comes from elsewhere."""

import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

import hifispeech
from hifispeech.serve.errors import ApiError
from hifispeech.serve.middleware import Guard, error_answer
from hifispeech.serve.routes import audio, jobs, stream
from hifispeech.serve.routes.audio import service_of
from hifispeech.serve.routes.reference import reference_page
from hifispeech.serve.schemas import Health
from hifispeech.serve.settings import Settings
from hifispeech.serve.state import Service

DESCRIPTION = "Speech super-resolution: narrow-band speech recordings to full-band 48 kHz speech."


def create_app(settings: Settings, upscaler: hifispeech.Upscaler) -> FastAPI:
    """The ASGI application of one server.

    Args:
        settings: limits and the data directory, which it holds until it is shut down.
        upscaler: the model of the streams; the workers load their own.

    Raises:
        HifispeechError: another server uses the data directory.
        OSError: the data directory cannot be made or written.
    """
    service = Service(settings, upscaler)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="hifispeech",
        version=hifispeech.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the usual pages fetch scripts from a CDN
        redoc_url=None,
        license_info={"name": "Apache-2.0"},
    )
    app.state.service = service
    for module in (audio, jobs, stream):
        app.include_router(module.router)
    _add_pages(app)
    _add_errors(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Api-Key", "X-Request-Id"],
            expose_headers=[
                "X-Request-Id",
                "X-Hifispeech-Cutoff-Hz",
                "X-Hifispeech-Full-Band",
                "Content-Disposition",
                "Retry-After",
            ],
        )
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    return app


def _add_pages(app: FastAPI) -> None:
    """The web page, health, metrics and the reference."""
    static = Path(str(files("hifispeech.serve") / "static"))

    @app.get("/healthz")
    def healthz(request: Request) -> Health:
        """Whether the server takes work; 503 while it shuts down."""
        service_of(request).gate.check_open()
        return Health(status="ok", version=hifispeech.__version__)

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        service = service_of(request)
        for status, count in service.jobs.counts().items():
            service.metrics.jobs.labels(status).set(count)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(static / "index.html")

    app.mount("/static", StaticFiles(directory=static), name="static")


def _add_errors(app: FastAPI) -> None:
    """One shape for every error."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return error_answer(error)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        texts = [f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors()]
        return error_answer(ApiError(422, "bad_parameter", "; ".join(texts)))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "bad_method"}.get(error.status_code, "bad_request")
        return error_answer(ApiError(error.status_code, code, str(error.detail), error.headers))
