"""Commands around training: `prepare`, `train`, `export`, `convert`. Mounted by `hifispeech.cli`.

PyTorch and its friends are imported inside the functions; where they are missing, the message says which
`pip install` brings them.
"""

import math
import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from hifispeech.cli.common import needs_extra
from hifispeech.cli.progress import counting, training_display

EXTRA = {"torch", "lightning_fabric", "safetensors", "tensorboard", "yaml", "scipy", "onnx", "onnxscript"}


app = typer.Typer()


class SplitBy(str, Enum):
    """Where the speaker of a file is told."""

    FOLDER = "folder"
    PATTERN = "pattern"
    CSV = "csv"


class Release(str, Enum):
    """Projects whose weights can be converted."""

    CLEARVOICE = "clearvoice"


Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output if it exists.")]


@app.command()
@needs_extra("train", EXTRA)
def prepare(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DATASET", help="Folder to write.")],
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR", help="Folders of audio, searched recursively.")
    ] = None,
    split_by: Annotated[
        SplitBy, typer.Option(help="The speaker is the folder, in the file name, or in a CSV.")
    ] = SplitBy.FOLDER,
    pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="For 'pattern': has a group (?P<speaker>...).")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="For 'csv': columns path, speaker[, split, source, ...]."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Corpus layout: auto, none, vctk, ravdess, ears, hifitts, daps, libritts-r.")
    ] = "auto",
    licence: Annotated[
        str, typer.Option(help="Licence of the recordings, for the model's card.")
    ] = "unknown",
    min_bandwidth: Annotated[
        float | None, typer.Option(metavar="HZ", help="Reject files whose band ends below. Default: 19700.")
    ] = None,
    keep_narrow: Annotated[
        bool, typer.Option("--keep-narrow", help="Reject none: mark them, losses then stop at their edge.")
    ] = False,
    trim: Annotated[bool, typer.Option(help="Cut silence at both ends.")] = True,
    valid_speakers: Annotated[
        str, typer.Option(metavar="A,B", help="Speakers to validate on. Default: one in twenty.")
    ] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.")] = None,
) -> None:
    """Turn folders of audio into a data set to train on.

    Measures where the band of each file really ends, rejects or marks what is
    not full-band, trims silence, resamples to 48 kHz, splits by speaker. Writes
    shards and manifest.csv; goes on where it was interrupted.

    [bold]Examples[/bold]

      hifispeech prepare VCTK-Corpus-0.92 -o vctk --preset vctk

      hifispeech prepare recordings/ -o dataset --licence "CC BY 4.0" --keep-narrow
    """
    from hifispeech.datasets import corpora
    from hifispeech.datasets.prepare import Options
    from hifispeech.datasets.prepare import prepare as run

    if keep_narrow and min_bandwidth is not None:
        raise typer.BadParameter("excludes --min-bandwidth; pass one of them", param_hint="'--keep-narrow'")
    if (split_by is SplitBy.PATTERN) != (pattern is not None):
        raise typer.BadParameter("goes with --split-by pattern", param_hint="'--pattern'")
    if (split_by is SplitBy.CSV) != (manifest is not None):
        raise typer.BadParameter("goes with --split-by csv", param_hint="'--manifest'")
    if not folders and manifest is None:
        raise typer.BadParameter("pass at least one folder, or --manifest", param_hint="'DIR'")
    if manifest:
        sources = corpora.sources_of_manifest(manifest, licence, folders or [])
    else:
        sources = [
            source
            for folder in folders or []
            for source in corpora.sources_in(folder, preset, pattern, licence, output)
        ]
    limit_hz = 0.0 if keep_narrow else min_bandwidth
    options = Options(trim=trim) if limit_hz is None else Options(limit_hz, trim)
    names = [name for name in valid_speakers.split(",") if name]
    with counting("files") as on_file:
        summary = run(
            sources, output, options, valid_speakers=names, workers=workers or _cores(), on_file=on_file
        )
    _print_summary(summary, output / "manifest.csv")


def _cores() -> int:
    return os.cpu_count() or 1


def _print_summary(summary: Any, manifest: Path) -> None:
    """What `prepare` kept and rejected, and what is missing."""
    for split, hours in sorted(summary.hours.items()):
        typer.echo(f"{split}: {60 * hours:.1f} minutes, speakers: {summary.speakers[split]}")
    typer.echo(f"{summary.kept} files kept ({summary.narrow} marked as narrow)")
    for reason, count in sorted(summary.rejected.items()):
        typer.echo(f"{count} rejected: {reason}; see {manifest}")
    if "valid" not in summary.hours:
        typer.echo("no speaker is held out, so training will not be validated; see --valid-speakers")


@app.command()
@needs_extra("train", EXTRA)
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; see configs/.")],
    data: Annotated[Path, typer.Option(metavar="DATASET", help="A folder made by 'hifispeech prepare'.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder of the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN/last.pt if there is one.")] = False,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="Start from 'fast' or a .pt, .safetensors or .onnx file."),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop at this step.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes (GPUs) on each node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes per device that make batches.")] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of CONFIG, such as batch_size=4."),
    ] = None,
) -> None:
    """Train a model as a configuration says.

    RUN gets last.pt (to resume), best.safetensors (averaged weights), log.jsonl
    and TensorBoard files. SIGTERM and Ctrl-C end the run after the current step
    with a checkpoint and exit code 0.

    [bold]Examples[/bold]

      hifispeech train configs/fast.yaml --data dataset -o runs/fast --max-minutes 60

      hifispeech train configs/fast.yaml --data dataset -o runs/tuned --init-from fast

      hifispeech train configs/hifisr.yaml --data vctk -o runs/paper --devices 8 --workers 8 --resume
    """
    from hifispeech.train.run import Machine, run

    machine = Machine(accelerator, devices, nodes, workers)
    with training_display() as (on_step, on_report):
        outcome = run(
            config,
            data,
            output,
            machine,
            changes=changes or [],
            resume=resume,
            init_from=init_from,
            max_steps=max_steps,
            max_minutes=max_minutes,
            on_step=on_step,
            on_report=on_report,
        )
    if outcome.is_first:
        score = f"best score {outcome.best:.4g}" if math.isfinite(outcome.best) else "not validated"
        typer.echo(f"{output}: step {outcome.step}, {score}")


@app.command()
@needs_extra("train", EXTRA)
def estimate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; see configs/.")],
    device: Annotated[
        str, typer.Option(help="'here' (measured, some seconds), rtx4090, a100, a800, h100 or h200.")
    ] = "here",
    devices: Annotated[int, typer.Option(min=1, help="Of them on each node.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of CONFIG, such as batch_size=4."),
    ] = None,
) -> None:
    """Say what a training run will need: memory per device, time per step, hours for all steps.

    Operations and kept bytes are counted exactly; the speed of the named devices
    is a share of their makers' figures, so take the hours as an order.

    [bold]Example[/bold]

      hifispeech estimate configs/hifisr.yaml --device a100 --devices 8
    """
    from hifispeech.train.config import load
    from hifispeech.train.estimate import device_of
    from hifispeech.train.estimate import estimate as run
    from hifispeech.train.run import with_changes

    chosen = with_changes(load(config), changes or [])
    found = device_of(device)
    need = run(chosen, found, devices, nodes)
    verdict = "fits" if need.fits else "does not fit"
    typer.echo(
        f"{config}: {need.memory_gb:.1f} GB of {found.memory_gb:.0f} GB per device ({verdict}), "
        f"{need.step_s:.3g} s per step, {need.hours:.3g} hours for {chosen.optimiser.total_steps} steps"
    )


@app.command()
@needs_extra("train", EXTRA)
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="last.pt or best.safetensors.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL.onnx", help="File to write.")],
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="For checkpoints that do not hold their own.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="What it was trained on, where it does not say.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model, for its card.")] = None,
    force: Force = False,
) -> None:
    """Write the averaged weights of a run as ONNX, with a card of their training beside it.

    [bold]Example[/bold]

      hifispeech export runs/fast/best.safetensors -o mine.onnx
    """
    from hifispeech.datasets.shards import Shards
    from hifispeech.train.checkpoint import find_weights
    from hifispeech.train.config import load
    from hifispeech.train.export import export as run

    weights = find_weights(checkpoint, load(config) if config else None)
    weights.card.update({"name": name or output.stem})
    if data:
        weights.card["data"] = Shards(data, "train").summary()
    run(weights, output, force=force)
    typer.echo(
        f"{checkpoint} -> {output}: {sum(t.numel() for t in weights.tensors.values()) / 1e6:.2f} M values"
    )


@app.command()
@needs_extra("train", EXTRA)
def convert(
    release: Annotated[Release, typer.Argument(help="Where the weights come from.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the download.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL.safetensors", help="File to write.")
    ],
    force: Force = False,
) -> None:
    """Convert the weights of another project to a model file of this one.

    'clearvoice' reads MossFormer2_SR_48K of ClearerVoice-Studio, the public
    HiFi-SR model.

    [bold]Example[/bold]

      hifispeech convert clearvoice MossFormer2_SR_48K -o hifisr-paper.safetensors
    """
    from hifispeech.models.hifisr.convert import convert_clearvoice

    assert release is Release.CLEARVOICE
    checksum = convert_clearvoice(directory, output, force=force)
    typer.echo(f"{directory} -> {output}: sha256 {checksum}")
