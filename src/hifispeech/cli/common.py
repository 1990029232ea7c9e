"""What the subcommands share: options, failures as one line on stderr and an exit code, runs over files."""

import functools
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

from hifispeech.cli.console import print_error
from hifispeech.errors import USER_ERRORS

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

DEBUG_KEY = "hifispeech.debug"
EXIT_CODES = (
    "[bold]Exit codes[/bold]  0: done. 1: bad input or failed work; one line on stderr says what to do. "
    "2: wrong usage. 130, 143: interrupted. No code but 0 leaves an output behind for the file that failed."
)


class Program(TyperGroup):
    """The command group; with `Failures`, the place where errors become a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has what it wants; the library below ends quietly with exit code 1
        except USER_ERRORS as error:
            if ctx.find_root().meta.get(DEBUG_KEY):
                raise
            print_error(error)
            raise typer.Exit(1) from error


def needs_extra(
    extra: str, packages: Collection[str]
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A missing package of an extra becomes an error that says how to install it."""

    def decorate(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(command)
        def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            try:
                return command(*args, **kwargs)
            except ModuleNotFoundError as error:
                package = (error.name or "").split(".")[0]
                if package not in packages:
                    raise
                raise ImportError(
                    f'this command needs {package}; install it with: pip install "hifispeech[{extra}]"'
                ) from error

        return wrapped

    return decorate


def parse_cutoff(text: str) -> float | None:
    """`auto` is None; anything else must be a positive number of hertz."""
    if text == "auto":
        return None
    try:
        cutoff_hz = float(text)
    except ValueError:
        cutoff_hz = -1.0
    if not 0 < cutoff_hz < 1e6:
        raise typer.BadParameter(
            f"{text!r} is not a frequency; pass hertz, such as 3400, or 'auto'", param_hint="'--cutoff'"
        )
    return cutoff_hz


def show_warnings(wanted: bool) -> None:
    """Send what the library logs, such as a truncated input, to stderr."""
    level = logging.WARNING if wanted else logging.CRITICAL
    logging.basicConfig(format="hifispeech: warning: %(message)s", level=level, force=True)


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    if value:  # given before or after the subcommand
        ctx.find_root().meta[DEBUG_KEY] = True
    return value


Inputs = Annotated[
    list[Path], typer.Argument(metavar="IN", help="Audio files, folders of them, or - for a pipe.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT|DIR|-",
        help="The file to write, or - for a pipe; for folders and several files, the folder to write to. "
        "Default: NAME_48k.wav beside each file, FOLDER_48k beside each folder, - for the input -.",
    ),
]
FileType = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="TYPE",
        help="Type of the output: wav, flac, ogg, opus or mp3. Default: the suffix of OUT, or wav.",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How samples are stored: pcm_16, pcm_24 or float (WAV), pcm_16 or pcm_24 (FLAC), vorbis or opus "
        "(OGG). Default: as precise as the input.",
    ),
]
Cutoff = Annotated[
    str,
    typer.Option(
        metavar="HZ|auto",
        help="Frequency at which the content of the input ends, such as 3400; all above it is generated. "
        "'auto' measures it.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="A model in the package (see 'hifispeech models'), an .onnx file made by 'hifispeech export', "
        "or a .safetensors file of the paper's model (needs the extra 'train').",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(
        help="Where the model runs. 'auto': on a GPU if onnxruntime-gpu is installed (for .safetensors: "
        "PyTorch with one), else the CPU."
    ),
]
Peak = Annotated[
    Literal["limit", "scale"],
    typer.Option(help="Should the result exceed full scale: cut those samples off, or turn the file down."),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads. Default: all cores; for a folder, one a worker."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="For a folder: parallel processes. Default: one for each core."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="For a folder: pass over files done before and unchanged since."),
]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Replace outputs that exist (never an input of this run).")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of text.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the Python traceback of an error.")
]


class Failures:
    """One bad file does not stop a run over several: it is reported, the run goes on, the exit code tells."""

    def __init__(self, total: int, debug: bool) -> None:
        self.total, self.failed, self.debug = total, 0, debug

    @contextmanager
    def noted(self, source: Path) -> Iterator[None]:
        """Work on `source`; with a single input, errors go to `Program`."""
        try:
            yield
        except BrokenPipeError:
            raise
        except USER_ERRORS as error:
            if self.total == 1 or self.debug:
                raise
            self.failed += 1
            print_error(error, source)

    def finish(self) -> None:
        """Exit with code 1 if any file failed."""
        if self.failed:
            typer.echo(f"hifispeech: {self.failed} of {self.total} files failed", err=True)
            raise typer.Exit(1)
