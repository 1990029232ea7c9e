"""External programs as systems: run without a shell, in a session of their own, with a time-out."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hifispeech.errors import AudioError

_TAIL = 300  # characters of a failed program's last words that are shown


@dataclass(frozen=True)
class Command:
    """A program with the placeholders {in}, {out} and perhaps {rate} in its words."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Command":
        """Words as a POSIX shell splits them; no shell is involved, so `|`, `>` and `$X` mean nothing.

        Raises:
            ValueError: unbalanced quotes, or no {in} and {out}.
        """
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise ValueError(f"command {text!r} cannot be split into words: {error}") from error
        for placeholder in ("{in}", "{out}"):
            if not any(placeholder in word for word in words):
                raise ValueError(
                    f"command {text!r} has no {placeholder}; write it as in cmd:'tool {{in}} {{out}}'"
                )
        return cls(words)

    def filled(self, source: Path, target: Path, rate: int) -> list[str]:
        """The words with the placeholders replaced."""
        values = {"{in}": str(source), "{out}": str(target), "{rate}": str(rate)}
        filled = []
        for word in self.words:
            for placeholder, value in values.items():
                word = word.replace(placeholder, value)
            filled.append(word)
        return filled

    def run(self, source: Path, target: Path, rate: int, timeout_s: float) -> "Ran":
        """Run the program on one file; it has to write `target` at 48 kHz.

        Everything it started is killed when it ends, after the time-out, and when this process ends.

        Raises:
            AudioError: it cannot be started, fails, hangs, or leaves no output.
        """
        ran = _run(self.filled(source, target, rate), timeout_s, target.parent)
        if not target.is_file() or not target.stat().st_size:
            raise AudioError(f"{self.words[0]} ended well but wrote nothing to {{out}}; check its options")
        return ran


@dataclass(frozen=True)
class Ran:
    """What a program took."""

    seconds: float
    peak_memory_mb: float | None


def _run(words: list[str], timeout_s: float, folder: Path) -> Ran:
    """Run a program under `supervise.py` until it ends; raises AudioError as `Command.run`."""
    result, log = folder / "ran.json", folder / "log.txt"
    supervisor = [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervise.py")), str(result)]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*supervisor, *words], stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
        )
    assert process.stdin is not None
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise AudioError(
            f"{words[0]} did not end within {timeout_s:g} s and was killed; see --timeout"
        ) from error
    finally:
        process.stdin.close()  # the supervisor kills what is left
        process.wait()
    answer = json.loads(result.read_text(encoding="utf-8"))
    if "error" in answer:
        raise AudioError(f"{words[0]} cannot be started ({answer['error'].lower()}); check the command")
    if answer["code"]:
        tail = " ".join(log.read_bytes()[-_TAIL:].decode(errors="replace").split())
        raise AudioError(f"{words[0]} failed with exit code {answer['code']}: {tail or 'it said nothing'}")
    return Ran(answer["seconds"], answer["peak_memory_mb"])


def files_of(text: str) -> list[Path]:
    """The files a command names, the program first: what it calls beyond them is not known."""
    words = shlex.split(text)
    program = shutil.which(words[0])
    paths = [Path(program)] if program else []
    return paths + [Path(word) for word in words[1:] if len(word) < 4096 and Path(word).is_file()]
