"""The program, run by tests, and what they say about it."""

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from hifispeech.cli import app

PROGRAM = [sys.executable, "-m", "hifispeech"]


def run(*arguments: object) -> Result:
    """The program within this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_program(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The program as a process of its own."""
    words = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]


def assert_one_line(stderr: str) -> None:
    """An error is one line that starts with the program's name."""
    assert stderr.startswith("hifispeech: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert_one_line(result.stderr)
    for word in words:
        assert word in result.stderr


def files_in(folder: Path) -> set[str]:
    """All files, hidden temporary ones included, as paths below the folder."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
