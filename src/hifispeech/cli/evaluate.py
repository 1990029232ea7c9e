"""Commands around measuring: `evaluate`, `report`, `plot`. Mounted by `hifispeech.cli`."""

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hifispeech.cli.common import EXIT_CODES, Debug, Force, Quiet, needs_extra, show_warnings
from hifispeech.cli.progress import counting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hifispeech.evaluate.summary import Summary

EXTRA = {"visqol", "pesq", "pystoi", "matplotlib", "scipy", "torchmetrics", "librosa"}

app = typer.Typer()


class Picture(str, Enum):
    """What `plot` draws."""

    SPECTROGRAM = "spectrogram"
    COMPARISON = "comparison"
    BARS = "bars"
    SPEED = "speed"


class Embedded(str, Enum):
    """How `report` embeds audio."""

    OPUS = "opus"
    FLAC = "flac"


def _list_metrics(wanted: bool) -> None:
    """Print every metric, the values it gives, what it hears and what it cannot."""
    if not wanted:
        return
    from hifispeech.evaluate.metrics import MEASURES
    from hifispeech.evaluate.tables import direction

    for name, metric in MEASURES.items():
        typer.echo(f"{name}: {metric.hears} ({metric.rate})")
        typer.echo(f"    cannot hear: {metric.deaf_to}")
        for value in metric.values:
            typer.echo(f"    {value}: {metric.values[value].title}; {direction(value)}")
    raise typer.Exit


@app.command(epilog=EXIT_CODES)
@needs_extra("eval", EXTRA)
def evaluate(
    data: Annotated[
        list[str],
        typer.Option(
            metavar="SET",
            help="True recordings: a folder, a CSV (path,speaker) or PRESET:DIR with vctk, expresso, "
            "vocalset, ravdess-speech, ravdess-song, ears or daps. LABEL= before it names the set. "
            "Can be repeated.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RESULTS", help="Folder to write.")],
    systems: Annotated[
        list[str],
        typer.Option(
            metavar="A,B,...",
            help="fast, a .onnx or .safetensors file, resample, mirror, mirror12, dir:PATH (ready outputs), "
            "cmd:'PROGRAM {in} {out}'. LABEL= before one names it; a comma inside is written \\,",
        ),
    ] = ["fast,resample,mirror"],  # noqa: B006 (Typer copies it)
    rates: Annotated[
        str, typer.Option(metavar="HZ,...", help="Input rates.")
    ] = "4000,8000,12000,16000,24000",
    measures: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B,...",
            help="Names of --list-metrics, or all. The first ranks the worst clips.",
        ),
    ] = "lsd,lsd_p2,si_sdr",
    list_metrics: Annotated[
        bool,
        typer.Option(
            "--list-metrics",
            is_eager=True,
            callback=_list_metrics,
            help="List all metrics, what each hears and what it cannot hear, and exit.",
        ),
    ] = False,
    degrade: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="How inputs are made: sinc, hann-sinc, stft, fft, butter, cheby, ellip, bessel.",
        ),
    ] = "sinc",
    bits: Annotated[
        str,
        typer.Option(
            metavar="16|24|float",
            help="What all outputs are rounded to before they are measured, ready files and our own alike.",
        ),
    ] = "16",
    align: Annotated[
        bool,
        typer.Option(
            "--align", help="Undo delay, gain and cut ends of outputs; refuse those of another clip."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes, one thread each.")] = 1,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Every Nth clip of a set only.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N clips of a set.")] = None,
    visqol_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="ViSQOL on every Nth clip only: it takes 0.8 s a second.")
    ] = 1,
    nisqa_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="TAR",
            help="The public checkpoint nisqa.tar for nisqa. Default: HIFISPEECH_NISQA_WEIGHTS, or "
            "~/.torchmetrics/NISQA/nisqa.tar.",
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Of longer recordings, score the first S seconds.")
    ] = 30.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Longest time of a cmd: on one clip.")
    ] = 600.0,
    pictures: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Spectrograms of the N worst clips a system; 0: no figures."),
    ] = 10,
    save_audio: Annotated[
        bool, typer.Option("--save-audio", help="Keep all inputs and outputs in RESULTS/audio.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RESULTS: what is known is not done again.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score super-resolution systems, ours or others', against true recordings.

    Makes low-rate inputs, runs each system on them and measures the outputs.
    Writes scores.csv, summary.json, tables.md and tables.tex (means with 95 %
    intervals, significance), figures and spectrograms of the worst clips. What
    fails is listed per file, is in no mean, and makes the exit code 1.

    [bold]Examples[/bold]

      hifispeech evaluate --data recordings/ --systems fast,resample,mirror -o results

      hifispeech evaluate --data recordings/ --systems peer=dir:outputs/ --rates 8000 --align -o results

      hifispeech evaluate --data vctk:VCTK-Corpus-0.92 --metrics lsd,visqol --workers 8 -o results
    """
    from hifispeech.evaluate.metrics import all_metrics
    from hifispeech.evaluate.runner import Options
    from hifispeech.evaluate.runner import evaluate as run
    from hifispeech.evaluate.systems import parse_systems

    show_warnings(not quiet)
    options = Options(
        tuple(data),
        output,
        tuple(parse_systems(systems, timeout_s=timeout)),
        _rates(rates),
        all_metrics(nisqa_weights) if measures == "all" else tuple(measures.split(",")),
        degrade,
        align,
        workers,
        every,
        limit,
        visqol_every,
        max_seconds,
        seed,
        save_audio,
        pictures,
        resume,
        shlex.join(["hifispeech", *sys.argv[1:]]),
        nisqa_weights,
        bits,
    )
    with counting("clips") as on_clip:
        summary = run(options, on_clip)
    if not quiet:
        typer.echo(_overview(summary, output))
    if summary.failures:
        total = sum(summary.clips.values()) * len(summary.rates) * len(summary.systems)
        typer.echo(
            f"hifispeech: {len(summary.failures)} of {total} results failed or are incomplete; "
            f"see {output / 'scores.csv'}",
            err=True,
        )
        raise typer.Exit(1)


def _rates(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no list of sample rates; pass hertz, such as 8000,16000", param_hint="'--rates'"
        ) from error


def _overview(summary: "Summary", output: Path) -> str:
    """The first value's tables, and where the rest is."""
    from hifispeech.evaluate.tables import heading, value_table

    lines = []
    for name in summary.sets if summary.values else []:
        lines += [
            f"{name}, {heading(summary.values[0])}:",
            "",
            *value_table(summary, name, summary.values[0]),
            "",
        ]
    return "\n".join(
        [*lines, f"{output / 'tables.md'}: all tables; hifispeech report {output} -o report.html"]
    )


@app.command(epilog=EXIT_CODES)
@needs_extra("eval", EXTRA)
def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder made by 'evaluate'.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="HTML", help="File to write.")],
    audio: Annotated[
        Embedded,
        typer.Option(help="Opus is small and ends at 20 kHz; FLAC is exact and four times as large."),
    ] = Embedded.OPUS,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Turn the results of an evaluation into one HTML file that needs no network.

    Holds the tables and figures, and for the typical and worst clips the
    spectrograms with players that switch between systems at the same place.

    [bold]Example[/bold]

      hifispeech report results -o report.html
    """
    from hifispeech.evaluate.report.page import write_report

    size = write_report(results, output, codec=audio.value, force=force)
    typer.echo(f"{output}: {size / 1e6:.1f} MB")


@app.command(epilog=EXIT_CODES)
@needs_extra("eval", EXTRA)
def plot(
    kind: Annotated[
        Picture,
        typer.Argument(
            help="spectrogram: files side by side. comparison: input, outputs, truth (in this order), "
            "and errors. bars, speed: of the RESULTS of 'evaluate'."
        ),
    ],
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Audio files, or one RESULTS.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PNG|SVG", help="Picture to write. Default: KIND.png, here."),
    ] = None,
    value: Annotated[
        str, typer.Option(metavar="NAME", help="For bars and speed: a value of the tables.")
    ] = "lsd",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Draw spectrograms of files on one scale, or figures of an evaluation.

    [bold]Examples[/bold]

      hifispeech plot spectrogram call.wav call_48k.wav

      hifispeech plot comparison call.wav call_48k.wav truth.wav -o errors.svg

      hifispeech plot bars results -o visqol.png --value visqol
    """
    from hifispeech.errors import AudioError
    from hifispeech.evaluate.report import plots

    output = output or Path(f"{kind.value}.png")
    if output.suffix.lower() not in plots.FORMATS:
        raise typer.BadParameter(f"{output} is neither .png nor .svg", param_hint="'--output'")
    if output.exists() and not force:
        raise AudioError(f"{output}: exists already; choose another name, or replace it with --force")
    if kind in (Picture.BARS, Picture.SPEED) and len(inputs) != 1:
        raise typer.BadParameter(f"takes one folder of results, not {len(inputs)}", param_hint="'IN...'")
    if kind is Picture.COMPARISON and len(inputs) < 3:
        raise typer.BadParameter("takes the input, at least one output, and the truth", param_hint="'IN...'")
    typer.echo(plots.save_figure(_figure(kind, inputs, value), output))


def _figure(kind: Picture, inputs: list[Path], value: str) -> "Figure":
    from hifispeech.audio.io.reader import open_reader
    from hifispeech.evaluate.report import figures, plots

    if kind is Picture.BARS or kind is Picture.SPEED:
        from hifispeech.evaluate.runner import load

        summary = load(inputs[0])[0]
        draw = figures.value_bars if kind is Picture.BARS else figures.speed_scatter
        return draw(summary, value)
    if kind is Picture.SPECTROGRAM:
        return plots.spectrogram_figure({name: plots.at_48k(path) for name, path in _names(inputs).items()})
    outputs = {name: plots.at_48k(path) for name, path in _names(inputs[1:-1]).items()}
    with open_reader(inputs[0]) as reader:
        half_hz = reader.info.sample_rate / 2
    edge_hz = half_hz if half_hz < 24000 else None  # where the input's band ends, if its rate tells
    source, truth = plots.at_48k(inputs[0]), plots.at_48k(inputs[-1])
    return figures.comparison_figure(source, outputs, truth, cutoff_hz=edge_hz)


def _names(paths: list[Path]) -> dict[str, Path]:
    """File names as labels, with their folders where two are alike."""
    names = [path.name for path in paths]
    return {str(path) if names.count(path.name) > 1 else path.name: path for path in paths}
