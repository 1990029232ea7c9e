"""Errors a user can cause and repair; the command line shows them as one line without a traceback."""


class HifispeechError(Exception):
    """Base class: the message says what is wrong, what is allowed and what to do."""


class AudioError(HifispeechError, ValueError):
    """The audio (a file or an array) cannot be used as it is."""


class ModelError(HifispeechError, ValueError):
    """A model file is missing, damaged or of another layout than this version reads."""
