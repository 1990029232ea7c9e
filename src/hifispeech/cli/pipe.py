"""Pipes: `-` as an input is standard input, as an output standard output.

Decoding needs to seek, so standard input is copied to a temporary file first; standard output gets the
finished file, never half of one. The temporary folder is removed however the run ends.
"""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from hifispeech.errors import AudioError, HifispeechError

if TYPE_CHECKING:
    from hifispeech.paths import Plan

STREAM = Path("-")
STDIN, STDOUT = "standard input", "standard output"


def make_plan(inputs: list[Path], output: Path | None, file_type: str | None) -> "Plan":
    """`Plan.make` that knows `-`; without an output, the result of standard input is standard output.

    Raises:
        typer.BadParameter: `-` beside other inputs or for a folder, or standard output is a terminal.
    """
    from hifispeech.paths import Plan, suffix_of

    if STREAM not in (*inputs, output):
        return Plan.make(inputs, output, file_type)
    source, target = inputs[0], output or STREAM
    if len(inputs) > 1 or (source != STREAM and source.is_dir()):
        raise typer.BadParameter("is for one input file; pass a folder to write to", param_hint="'-'")
    if target == STREAM:
        check_stream(sys.stdout, STDOUT, "hifispeech upscale call.wav -o - > call_48k.wav")
        return Plan([(source, STREAM)], suffix=suffix_of(file_type))
    if not target.suffix or target.is_dir():
        raise typer.BadParameter(
            f"{target} is no file name with a suffix; a pipe has no name to take over",
            param_hint="'--output'",
        )
    return Plan.make([source], target, file_type)


@contextmanager
def local_files(source: Path, target: Path | None = None, suffix: str = ".wav") -> Iterator[list[Path]]:
    """The files to read and to write for `source` and `target`: temporary ones where these are `-`.

    `suffix` is that of the file in place of an output `-`, and so its format.

    On a clean exit, the file written in place of `-` goes to standard output. Errors and warnings name the
    pipe, not the temporary file.

    Raises:
        AudioError: standard input is closed, or whatever the block raises.
        typer.BadParameter: standard input is a terminal.
        OSError: the disk of the temporary folder is full, or the reader of the pipe is gone.
    """
    if STREAM not in (source, target):
        yield [source] if target is None else [source, target]
        return
    with tempfile.TemporaryDirectory(prefix="hifispeech-") as name:
        folder = Path(name)
        names = {str(folder / "in"): STDIN, str(folder / f"out{suffix}"): STDOUT}
        read, write = (Path(path) for path in names)
        if source == STREAM:
            _spool(read)
        files = [read if source == STREAM else source]
        if target is not None:
            files.append(write if target == STREAM else target)
        with _renamed(names):
            yield files
        if target == STREAM:
            _send(write)


def _spool(path: Path) -> None:
    """Copy standard input to `path`."""
    check_stream(sys.stdin, STDIN, "cat call.wav | hifispeech upscale - -o call_48k.wav")
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)


def _send(path: Path) -> None:
    """Copy `path` to standard output."""
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AudioError(
            f"{STDOUT}: cannot be written ({error.strerror}); what it got is incomplete; write to a file"
        ) from error


def check_stream(stream: TextIO | None, name: str, example: str) -> None:
    """Refuse a closed stream, and a terminal: nobody types audio or reads it."""
    if stream is None:
        raise AudioError(f"{name} is closed; for example: {example}")
    if stream.isatty():
        raise typer.BadParameter(
            f"{name} is a terminal, not a pipe; for example: {example}", param_hint="'-'"
        )


@contextmanager
def _renamed(names: dict[str, str]) -> Iterator[None]:
    """Show the value in place of each key in the errors and log messages of the block."""

    def rename(text: str) -> str:
        for old, new in names.items():
            text = text.replace(old, new)
        return text

    def filter_record(record: logging.LogRecord) -> bool:
        record.msg, record.args = rename(record.getMessage()), ()
        return True

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(filter_record)
    try:
        yield
    except HifispeechError as error:
        raise type(error)(rename(str(error))) from error
    finally:
        for handler in handlers:
            handler.removeFilter(filter_record)
