"""Uvicorn around the application: signals, limits of the protocol, logs as JSON lines."""

import json
import logging
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn

from hifispeech import Upscaler
from hifispeech.serve.app import create_app
from hifispeech.serve.middleware import CutError, request_id
from hifispeech.serve.settings import Settings

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 1 << 20  # of a WebSocket, bytes
HEADER_BYTES = 1 << 15
IDLE_S = 15  # of a connection between two requests
MOST_CONNECTIONS = 1000
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, event, request id, and what `extra` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        now = time.gmtime(record.created)
        fields = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', now)}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "request_id": request_id.get(),
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _PLAIN})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class Server(uvicorn.Server):
    """Refuses new work as soon as it is told to stop, while what it has begun is finished."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`; tells where it listens."""
        await super().startup(sockets)
        for listener in self.servers if self.started else []:
            for each in listener.sockets:
                address = each.getsockname()
                log.info("listening", extra={"host": address[0], "port": address[1]})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See `uvicorn.Server`; comes with SIGTERM and Ctrl-C."""
        self.config.app.state.service.drain()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def serve(settings: Settings, upscaler: Upscaler, host: str, port: int, log_level: str) -> bool:
    """Serve until SIGTERM or Ctrl-C; False if the server could not start (the log says why).

    Raises:
        HifispeechError: another server uses the data directory.
        OSError: the data directory cannot be made or written.
    """
    set_up_logging(log_level)
    config = uvicorn.Config(
        create_app(settings, upscaler),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws_max_size=LARGEST_MESSAGE,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE_S,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
    )
    server = Server(config)
    # Uvicorn raises the signal again once it has stopped; a stop that was asked for is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    server.run()
    return server.started


def set_up_logging(level: str) -> None:
    """JSON lines on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # An answer that is cut off has its line already.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not _is_cut(record))
    logging.getLogger("uvicorn").setLevel(max(logging.getLogger().level, logging.WARNING))
    logging.getLogger("websockets").setLevel(logging.WARNING)


def _is_cut(record: logging.LogRecord) -> bool:
    return bool(record.exc_info) and isinstance(record.exc_info[1], CutError)
