"""Progress on terminals: bars over seconds of audio, counts of things, training steps. Rich when needed."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # not 0 in the second and later processes of a run


@contextmanager
def progress_bar(label: str, hidden: bool) -> Iterator[Callable[[float, float | None], None] | None]:
    """A bar with the real-time factor, on terminals only; yields the callback `(done_s, total_s)` or None."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[factor]}"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, factor="")

        def on_progress(done_s: float, total_s: float | None) -> None:
            elapsed_s = max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=done_s, total=total_s, factor=f"{done_s / elapsed_s:.0f}x real time")

        yield on_progress


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar over a number of things with the time left, on terminals only."""
    with _bar() as bar:
        if bar is None:
            yield None
            return
        task = bar.add_task(what, total=None, note="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training_display() -> Iterator[tuple[Callable[[int, int], None] | None, Callable[[int, Any], None]]]:
    """A bar with steps/s, time left and the loss on terminals, else a line per report; none in a copy."""
    if any(os.environ.get(name, "0") != "0" for name in RANKS):
        yield None, _print_report
        return
    with _bar() as bar:
        if bar is None:
            yield None, _print_report
            return
        task = bar.add_task("step", total=None, note="")
        note = {"loss": "", "speed": "", "valid": ""}

        def on_report(step: int, values: dict[str, float]) -> None:
            if "loss" in values:
                note["loss"] = f"loss {values['loss']:.3f}"
            if "steps_per_s" in values:
                note["speed"] = f"{values['steps_per_s']:.2f} steps/s"
            scores = [value for key, value in values.items() if key.startswith("valid/")]
            if scores:
                note["valid"] = f"valid {scores[-1]:.3f}"
            bar.update(task, note=" ".join(text for text in note.values() if text))

        yield lambda step, end: bar.update(task, completed=step, total=end), on_report


def _print_report(step: int, values: dict[str, float]) -> None:
    words = [f"{key} {value:.4g}" for key, value in values.items()]
    typer.echo(f"step {step}: {', '.join(words)}", err=True)


@contextmanager
def _bar() -> Iterator[Any]:
    """A rich progress bar on stderr, or None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar
