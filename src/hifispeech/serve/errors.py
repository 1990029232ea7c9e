"""Errors the service answers with: `{"error": {"code", "message", "request_id"}}` and an HTTP status."""

from collections.abc import Mapping

# What a worker says, as an HTTP status. Other codes are the server's own failures.
STATUS_OF = {
    "bad_audio": 400,
    "bad_parameter": 422,
    "too_long": 413,
    "memory": 413,
    "timeout": 504,
    "stalled": 504,
}


class ApiError(Exception):
    """Ends a request; `message` says what is wrong, what is allowed and what to do."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


class WorkError(Exception):
    """A task failed; `code` and the text are the worker's, or say how the worker ended."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def answer(self) -> ApiError:
        """As the answer to a request."""
        status = STATUS_OF.get(self.code)
        if status is None:
            return failure()
        code = {"memory": "too_large", "stalled": "timeout"}.get(self.code, self.code)
        return ApiError(status, code, str(self))


class WorkerDiedError(WorkError):
    """The process is gone: crashed, killed, or never started. Another one may do better."""


def failure() -> ApiError:
    """The answer when it is the server's own fault."""
    return ApiError(500, "internal", "the server failed; the log has the reason under this request id")
