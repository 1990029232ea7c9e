"""The `hifispeech` command: each subcommand turns its arguments into calls of the Python API.

Exit codes: 0 done, 1 bad input or failed work (one line on stderr), 2 wrong usage, 130 interrupted by Ctrl-C,
143 ended by SIGTERM. None of them leaves a partial output. Heavy modules are imported inside the functions,
so that `--help` is instant.
"""

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import hifispeech
import hifispeech.cli_train
from hifispeech.cli_output import print_error, print_inspection, print_report, print_table, progress_bar
from hifispeech.cli_pipe import STREAM, local_files, plan
from hifispeech.errors import HifispeechError

# ImportError: an extra that is not installed; the message then names the `pip install` that helps.
USER_ERRORS = (HifispeechError, ValueError, OSError, MemoryError, ImportError)

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


app = typer.Typer(
    cls=Program,
    name="hifispeech",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line program and exit with its code."""
    # A polite kill unwinds the stack as Ctrl-C does, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app()


def _show_warnings(wanted: bool) -> None:
    """Send what the library logs, such as a truncated input, to stderr."""
    level = logging.WARNING if wanted else logging.CRITICAL
    logging.basicConfig(format="hifispeech: warning: %(message)s", level=level, force=True)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"hifispeech {hifispeech.__version__}")
        raise typer.Exit


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
        help="A model in the package (see 'hifispeech models') or an .onnx file made by 'hifispeech export'.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        help="Where the model runs. 'auto': on a GPU if onnxruntime-gpu is installed, else the CPU."
    ),
]
Peak = Annotated[
    Literal["limit", "scale"],
    typer.Option(help="Should the result exceed full scale: cut those samples off, or turn the file down."),
]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads. Default: all cores.")]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Replace outputs that exist (never an input of this run).")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of text.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the Python traceback of an error.")
]


@app.callback(epilog=EXIT_CODES)
def program(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Speech super-resolution: turns narrow-band speech recordings into full-band 48 kHz speech.

    [bold]Examples[/bold]

      hifispeech upscale call.wav -o call_48k.wav

      hifispeech inspect call.wav

      hifispeech upscale --help
    """


@app.command(epilog=EXIT_CODES)
def upscale(
    inputs: Inputs,
    output: Output = None,
    file_type: FileType = None,
    encoding: Encoding = None,
    cutoff: Cutoff = "auto",
    model: Model = "fast",
    device: Device = "auto",
    threads: Threads = None,
    peak: Peak = "limit",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Upscale speech to full-band 48 kHz.

    The band that is there is kept, the missing one above it is generated.
    Length, timing, level and channels do not change. Full-band speech and
    silence stay as they are.

    Reads WAV, FLAC, MP3, M4A, Opus, AMR, the sound of videos and more, writes
    what --format lists. Folders are searched for audio files; the results have
    the same structure.

    [bold]Examples[/bold]

      hifispeech upscale call.wav -o call_48k.wav

      hifispeech upscale talk.mp3 -o talk.flac

      hifispeech upscale recordings/ -o upscaled/ --format flac

      cat call.wav | hifispeech upscale - -o - --format flac > call.flac
    """
    cutoff_hz = _parse_cutoff(cutoff)
    _show_warnings(not quiet)
    jobs = plan(inputs, output, file_type)
    upscaler = hifispeech.Upscaler(model, device, threads=threads)
    failures = Failures(len(jobs), debug)
    for number, (source, target) in enumerate(jobs, 1):
        label = f"{number}/{len(jobs)} {source.name}" if len(jobs) > 1 else source.name
        with failures.noted(source):
            if target != output:
                target.parent.mkdir(parents=True, exist_ok=True)
            with (
                local_files(source, target, file_type) as (read, write),
                progress_bar(label, hidden=quiet or as_json) as on_progress,
            ):
                started = time.perf_counter()
                report = upscaler.process_file(
                    read,
                    write,
                    force=force,
                    encoding=encoding,
                    cutoff_hz=cutoff_hz,
                    peak=peak,
                    on_progress=on_progress,
                )
                seconds = time.perf_counter() - started
            if not quiet or as_json:
                print_report(replace(report, input=source, output=target), seconds, as_json)
    failures.finish()


@app.command(epilog=EXIT_CODES)
def inspect(
    inputs: Inputs,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG|SVG",
            help="Draw the spectrogram of the file into this picture too (needs the extra 'eval').",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is in audio files: format, length, measured bandwidth, clipping, silence.

    The bandwidth is measured from the signal, not read from the header: a phone
    call stored at 48 kHz shows about 3.4 kHz, so 'hifispeech upscale' would
    generate what is above.

    [bold]Examples[/bold]

      hifispeech inspect call.wav

      hifispeech inspect call.wav --plot call.png

      hifispeech inspect recordings/ --json > report.jsonl
    """
    from hifispeech.infer.batch import list_audio

    _show_warnings(True)
    if STREAM in inputs and len(inputs) > 1:
        raise typer.BadParameter("goes with no other input", param_hint="'-'")
    paths = [path for path, _ in list_audio(inputs)]
    if plot is not None and len(paths) != 1:
        raise typer.BadParameter(f"takes one input file, not {len(paths)}", param_hint="'--plot'")
    failures = Failures(len(paths), debug)
    for path in paths:
        with failures.noted(path), local_files(path) as (file,):
            found = hifispeech.inspect(file)._replace(path=str(path))
            print_inspection(found, as_json)
            if plot is not None:
                _plot(found, file, plot)
    failures.finish()


@app.command(epilog=EXIT_CODES)
def models(as_json: Json = False, debug: Debug = False) -> None:
    """List the models in the package: what they are, what they were trained on, their licence.

    [bold]Example[/bold]

      hifispeech models --json
    """
    from hifispeech.infer.backends import packaged_cards

    for name, card in packaged_cards():
        if as_json:
            typer.echo(json.dumps({"name": name, **card}))
        else:
            print_table(name, {key.replace("_", " "): card[key] for key in card if key != "data"})


app.add_typer(hifispeech.cli_train.app)


def _parse_cutoff(text: str) -> float | None:
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


def _plot(found: hifispeech.Inspection, file: Path, target: Path) -> None:
    from hifispeech.evaluate.plots import save_figure, spectrogram_figure

    audio, sample_rate = hifispeech.read(file)
    figure = spectrogram_figure(
        {Path(found.path).name: audio}, sample_rate, cutoff_hz=found.cutoff_hz or None
    )
    save_figure(figure, target)
