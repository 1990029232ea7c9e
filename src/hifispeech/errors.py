"""Errors a user can cause and repair; the command line shows them as one line without a traceback."""

import errno

_ADVICE = {
    errno.ENOSPC: "free some space or write to another disk",
    errno.EACCES: "check the permissions or pass another path",
    errno.EROFS: "pass a path on another disk",
    errno.ENOENT: "check the path",
    errno.EISDIR: "pass a file name",
    errno.ENOTDIR: "pass another path",
}


class HifispeechError(Exception):
    """Base class: the message says what is wrong, what is allowed and what to do."""


class AudioError(HifispeechError, ValueError):
    """The audio (a file or an array) cannot be used as it is."""


class ModelError(HifispeechError, ValueError):
    """A model file is missing, damaged or of another layout than this version reads."""


# What a user can meet. ImportError: an extra that is not installed; its message names the `pip install`.
USER_ERRORS = (HifispeechError, ValueError, OSError, MemoryError, ImportError)


def explain(error: BaseException) -> str:
    """One line about any error: what is wrong and, where it is known, what to do."""
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs or work on a shorter file"
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
        return f"{where}{(error.strerror or 'input or output error').lower()}{advice}"
    return " ".join(str(error).split()) or type(error).__name__
