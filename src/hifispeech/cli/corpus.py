"""The command `corpus`: a whole corpus through Ray Data. Mounted by `hifispeech.cli`."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hifispeech.cli.common import (
    EXIT_CODES,
    Cutoff,
    Debug,
    Encoding,
    Json,
    Model,
    Peak,
    Quiet,
    needs_extra,
    parse_cutoff,
)
from hifispeech.cli.progress import counting
from hifispeech.weights.packaged import DEFAULT

if TYPE_CHECKING:
    from hifispeech.runs.corpus.run import CorpusSummary
    from hifispeech.runs.corpus.worker import Row

EXTRA = {"ray", "fsspec", "pyarrow"}
LISTED = 20  # failures shown at the end; the manifest has all

app = typer.Typer()


Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Folder, or list of files (.parquet, .csv, .jsonl with a column 'path'), as a path or a URL "
        "such as s3://bucket/calls.",
    ),
]
Target = Annotated[
    str, typer.Option("--output", "-o", metavar="DIR|URL", help="Folder for results and manifest.")
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="local|ADDRESS", help="This machine, or a Ray cluster: HOST:6379, ray://HOST:10001, auto."
    ),
]
Actors = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Model actors. Default: one per GPU, or per CPU.")
]
Threads = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="CPU threads of each actor. On a GPU: as many as there are for it, they decode and measure.",
    ),
]
ResultType = Annotated[
    str, typer.Option("--format", metavar="TYPE", help="Of the results: wav, flac, ogg, opus or mp3.")
]
ActorDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where the model runs. 'auto': on GPUs if the cluster has any, else on CPUs."),
]


@app.command(epilog=EXIT_CODES)
@needs_extra("dist", EXTRA)
def corpus(
    source: Source,
    output: Target,
    cluster: Cluster = "local",
    workers: Actors = None,
    threads: Threads = 1,
    file_type: ResultType = "flac",
    encoding: Encoding = None,
    cutoff: Cutoff = "auto",
    model: Model = DEFAULT,
    device: ActorDevice = "auto",
    peak: Peak = "limit",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Upscale a corpus of any size on one machine or a Ray cluster.

    Results are named by the content of their input, audio/3f/3f9a....flac, each
    with its row beside it; hifispeech.jsonl has a row for every input. The
    same command again goes on after an interruption and retries what failed.
    Needs the extra 'dist' on every machine.

    [bold]Examples[/bold]

      hifispeech corpus calls/ -o upscaled/

      hifispeech corpus s3://bucket/calls -o s3://bucket/upscaled --cluster 10.0.0.1:6379

      hifispeech corpus files.parquet -o upscaled/ --device cuda --threads 8
    """
    from hifispeech.runs.corpus.run import Machines, run_corpus

    options: dict[str, Any] = {"encoding": encoding, "cutoff_hz": parse_cutoff(cutoff), "peak": peak}
    machines = Machines(cluster, workers, device, threads)
    started = time.perf_counter()
    # Ray prints what happens to its workers on standard output, which is ours.
    with _rows(quiet, as_json) as on_row, redirect_stdout(sys.stderr):
        summary = run_corpus(
            source, output, machines, model=model, file_type=file_type, on_row=on_row, **options
        )
    if not (quiet or as_json):
        _print_summary(summary, time.perf_counter() - started)
    _print_failures(summary, output)
    if summary.failed:
        raise typer.Exit(1)


@contextmanager
def _rows(quiet: bool, as_json: bool) -> Iterator[Callable[["Row", int, int], None] | None]:
    """What happens with each row of the manifest: JSON, a bar on terminals, or nothing."""
    if as_json:
        out = sys.stdout
        yield lambda row, done, total: typer.echo(json.dumps(asdict(row)), file=out)
        return
    if quiet:
        yield None
        return
    with counting("files") as on_file:
        yield None if on_file is None else lambda row, done, total: on_file(done, total)


def _print_summary(summary: "CorpusSummary", seconds: float) -> None:
    factor = summary.duration_s / max(seconds, 1e-9)
    typer.echo(
        f"{summary.done} files done, {summary.skipped} done before, {summary.failed} failed; "
        f"{summary.duration_s / 3600:.3f} hours of audio in {seconds:.1f} s ({factor:.0f}x real time)"
    )


def _print_failures(summary: "CorpusSummary", output: str) -> None:
    from hifispeech.runs.manifest import NAME

    for _, message in summary.errors[:LISTED]:
        typer.echo(f"hifispeech: {message}", err=True)
    if summary.failed:
        total = summary.done + summary.failed + summary.skipped
        manifest = f"{output.rstrip('/')}/{NAME}"
        typer.echo(f"hifispeech: {summary.failed} of {total} files failed; see {manifest}", err=True)
