"""The `hifispeech` command: each subcommand turns its arguments into calls of the Python API.

Exit codes: 0 done, 1 bad input or failed work (one line on stderr), 2 wrong usage, 130 interrupted. None of
them leaves a partial output. Heavy modules are imported inside the functions, so that `--help` is instant.
"""

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import hifispeech
import hifispeech.cli_train
from hifispeech.cli_output import print_error, print_inspection, print_report, print_table, progress_bar
from hifispeech.errors import HifispeechError

# ImportError: an extra that is not installed; the message then names the `pip install` that helps.
USER_ERRORS = (HifispeechError, ValueError, OSError, MemoryError, ImportError)

DEBUG_KEY = "hifispeech.debug"


class Program(TyperGroup):
    """The command group; with `Failures`, the place where errors become a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
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


Inputs = Annotated[list[Path], typer.Argument(metavar="IN", help="Audio files, or folders of them.")]
Peak = Literal["limit", "scale"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line instead of text.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the Python traceback of an error.")
]


@app.callback(
    epilog="Manual and source: see README.md. Exit codes: 0 done, 1 bad input or failed work, 2 wrong usage."
)
def program(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Speech super-resolution: turns narrow-band speech recordings into full-band 48 kHz speech.

    Start with:  hifispeech upscale call.wav -o call_48k.wav
    """


@app.command()
def upscale(
    inputs: Inputs,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT|DIR",
            help="File to write, or a folder for several inputs. Default: NAME_48k.wav beside each input.",
        ),
    ] = None,
    file_type: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="TYPE",
            help="wav, flac, ogg, opus or mp3. Default: the suffix of OUT, or wav.",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="pcm_16, pcm_24 or float (WAV); vorbis or opus (OGG). Default: as precise as the input."
        ),
    ] = None,
    cutoff: Annotated[
        str, typer.Option(metavar="HZ|auto", help="Where the content of the input ends; 'auto' measures it.")
    ] = "auto",
    model: Annotated[
        str, typer.Option(help="A packaged model (see 'hifispeech models') or a model file.")
    ] = "fast",
    peak: Annotated[
        Peak, typer.Option(help="What to do above full scale: cut such samples, or turn the whole file down.")
    ] = "limit",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace outputs that exist already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Upscale speech to full-band 48 kHz.

    The band that is there is kept, the missing one above it is generated; full-band speech stays as it is.
    Length, timing, level and channels do not change. Existing files are kept unless --force is given.

    [bold]Examples[/bold]

      hifispeech upscale call.wav -o call_48k.wav

      hifispeech upscale talk.mp3 -o talk.flac

      hifispeech upscale recordings/ -o upscaled/ --format flac
    """
    cutoff_hz = _parse_cutoff(cutoff)
    from hifispeech.infer.batch import plan_outputs

    _show_warnings(not quiet)
    jobs = plan_outputs(inputs, output, file_type)
    upscaler = hifispeech.Upscaler(model, threads=threads)
    failures = Failures(len(jobs), debug)
    for source, target in jobs:
        with failures.noted(source):
            if target != output:
                target.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            with progress_bar(source, hidden=quiet or as_json) as on_progress:
                report = upscaler.process_file(
                    source,
                    target,
                    force=force,
                    encoding=encoding,
                    cutoff_hz=cutoff_hz,
                    peak=peak,
                    on_progress=on_progress,
                )
            print_report(report, time.perf_counter() - started, as_json, quiet)
    failures.finish()


@app.command()
def inspect(
    inputs: Inputs,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG|SVG", help="Draw the spectrogram of the file too (needs the extra 'eval')."
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is in audio files: format, length, measured bandwidth, clipping.

    The bandwidth is measured from the signal: a phone call stored at 48 kHz shows about 3.4 kHz.

    [bold]Examples[/bold]

      hifispeech inspect call.wav

      hifispeech inspect call.wav --plot call.png

      hifispeech inspect recordings/ --json > report.jsonl
    """
    from hifispeech.infer.batch import list_audio

    _show_warnings(True)
    paths = [path for path, _ in list_audio(inputs)]
    if plot is not None and len(paths) != 1:
        raise typer.BadParameter(f"takes one input file, not {len(paths)}", param_hint="'--plot'")
    failures = Failures(len(paths), debug)
    for path in paths:
        with failures.noted(path):
            found = hifispeech.inspect(path)
            print_inspection(found, as_json)
            if plot is not None:
                _plot(found, plot)
    failures.finish()


@app.command()
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
            print_table(name, {key.replace("_", " "): value for key, value in card.items()})


app.add_typer(hifispeech.cli_train.app)


def _parse_cutoff(text: str) -> float | None:
    """`auto` is None; anything else must be a positive number of hertz, with or without a `k` for 1000."""
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


def _plot(found: hifispeech.Inspection, target: Path) -> None:
    from hifispeech.evaluate.plots import save_figure, spectrogram_figure

    audio, sample_rate = hifispeech.read(found.path)
    figure = spectrogram_figure(
        {Path(found.path).name: audio}, sample_rate, cutoff_hz=found.cutoff_hz or None
    )
    save_figure(figure, target)
