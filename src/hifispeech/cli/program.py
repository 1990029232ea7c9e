"""The `hifispeech` command: each subcommand turns its arguments into calls of the Python API.

Exit codes: 0 done, 1 bad input or failed work (one line on stderr), 2 wrong usage, 130 interrupted by Ctrl-C,
143 ended by SIGTERM. None of them leaves a partial output. Heavy modules are imported inside the functions,
so that `--help` is instant.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

import hifispeech
from hifispeech.cli import corpus, evaluate, listen, serve, stream, train
from hifispeech.cli import upscale as runs
from hifispeech.cli.common import (
    EXIT_CODES,
    Cutoff,
    Debug,
    Device,
    Encoding,
    Failures,
    FileType,
    Force,
    Inputs,
    Json,
    Model,
    Output,
    Peak,
    Program,
    Quiet,
    Resume,
    Threads,
    Workers,
    parse_cutoff,
    show_warnings,
)
from hifispeech.cli.console import print_inspection, print_table
from hifispeech.cli.pipe import STREAM, local_files, make_plan
from hifispeech.weights.packaged import DEFAULT

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


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"hifispeech {hifispeech.__version__}")
        raise typer.Exit


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
    model: Model = DEFAULT,
    device: Device = "auto",
    threads: Threads = None,
    peak: Peak = "limit",
    workers: Workers = None,
    resume: Resume = False,
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
    the same structure and a manifest, hifispeech.jsonl.

    [bold]Examples[/bold]

      hifispeech upscale call.wav -o call_48k.wav

      hifispeech upscale talk.mp3 -o talk.flac

      hifispeech upscale recordings/ -o upscaled/ --workers 4 --resume

      cat call.wav | hifispeech upscale - -o - --format flac > call.flac
    """
    cutoff_hz = parse_cutoff(cutoff)
    show_warnings(not quiet)
    common = {"encoding": encoding, "cutoff_hz": cutoff_hz, "peak": peak, "force": force}
    shown = runs.Shown(quiet=quiet, as_json=as_json, debug=debug)
    plan = make_plan(inputs, output, file_type)
    if plan.folder is not None:
        choice = {"model": model, "device": device, "threads": threads or 1}
        runs.upscale_folder(plan, shown, workers=workers, resume=resume, **choice, **common)
        return
    if workers is not None or resume:
        raise typer.BadParameter(
            "goes with a folder, or several files and a folder to write to (-o DIR)",
            param_hint="'--resume'" if resume else "'--workers'",
        )
    upscaler = hifispeech.Upscaler(model, device, threads=threads)
    runs.upscale_each(upscaler, plan, shown, **common)


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
    from hifispeech.paths import list_audio

    show_warnings(True)
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
    from hifispeech.weights.packaged import packaged_cards

    for name, card in packaged_cards():
        if as_json:
            typer.echo(json.dumps({"name": name, **card}))
        else:
            print_table(name, {key.replace("_", " "): card[key] for key in card if key != "data"})


app.add_typer(listen.app)
app.add_typer(corpus.app)
app.add_typer(evaluate.app)
app.add_typer(serve.app)
app.add_typer(stream.app)
app.add_typer(train.app)


def _plot(found: "hifispeech.Inspection", file: Path, target: Path) -> None:
    from hifispeech.evaluate.report.plots import save_figure, spectrogram_figure

    audio, sample_rate = hifispeech.read(file)
    figure = spectrogram_figure(
        {Path(found.path).name: audio}, sample_rate, cutoff_hz=found.cutoff_hz or None
    )
    save_figure(figure, target)
