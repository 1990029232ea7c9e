"""What `hifispeech upscale` does: files one by one, or a folder in parallel and with a summary."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

import typer

from hifispeech.cli.common import Failures
from hifispeech.cli.console import print_report
from hifispeech.cli.pipe import local_files
from hifispeech.cli.progress import progress_bar

if TYPE_CHECKING:
    from hifispeech import Upscaler
    from hifispeech.paths import Plan
    from hifispeech.runs.folder import FileResult, FolderProgress

_MOST_NAMED = 20


class Shown(TypedDict):
    """What is printed."""

    quiet: bool
    as_json: bool
    debug: bool


def upscale_each(upscaler: "Upscaler", plan: "Plan", shown: Shown, **options: Any) -> None:
    """Upscale files or pipes one after the other; `options` are those of `Upscaler.process_file`.

    Raises:
        typer.Exit: with code 1, if one of several files failed.
    """
    is_silent = shown["quiet"] or shown["as_json"]
    total = len(plan.jobs)
    failures = Failures(total, shown["debug"])
    for number, (source, target) in enumerate(plan.jobs, 1):
        label = f"{number}/{total} {source.name}" if total > 1 else source.name
        with failures.noted(source):
            if not plan.is_named:
                target.parent.mkdir(parents=True, exist_ok=True)
            with (
                local_files(source, target, plan.suffix) as (read, write),
                progress_bar(label, hidden=is_silent) as on_progress,
            ):
                started = time.perf_counter()
                report = upscaler.process_file(read, write, on_progress=on_progress, **options)
                seconds = time.perf_counter() - started
            if not shown["quiet"] or shown["as_json"]:
                print_report(replace(report, input=source, output=target), seconds, shown["as_json"])
    failures.finish()


def upscale_folder(plan: "Plan", shown: Shown, **options: Any) -> None:
    """Upscale into the folder of a plan; `options` are those of `runs.folder.upscale_folder`.

    Raises:
        typer.Exit: with code 1, if any file failed.
    """
    from hifispeech.runs.folder import upscale_folder as run

    started, results = time.perf_counter(), []
    is_silent = shown["quiet"] or shown["as_json"]
    with _bar(hidden=is_silent) as on_progress:
        try:
            with closing(run(plan, on_progress=on_progress, **options)) as found:
                for result in found:
                    results.append(result)
                    _print_result(result, shown)
        except (KeyboardInterrupt, SystemExit):
            typer.echo("hifispeech: interrupted; the same command with --resume goes on from here", err=True)
            raise
    if not is_silent:
        typer.echo(_summary(results, time.perf_counter() - started))
    _print_failures([result for result in results if result.status == "failed"], len(results))


def _print_result(result: "FileResult", shown: Shown) -> None:
    if result.report is not None and (shown["as_json"] or not shown["quiet"]):
        print_report(result.report, result.seconds, shown["as_json"])
    if result.status == "failed":
        typer.echo(f"hifispeech: {_failure(result)}", err=True)
        if shown["debug"] and result.details:
            typer.echo(result.details, err=True)


def _failure(result: "FileResult") -> str:
    """The error in a line that names the input."""
    error = result.error or "failed"
    return error if str(result.input) in error else f"{result.input}: {error}"


def _summary(results: "list[FileResult]", seconds: float) -> str:
    reports = [result.report for result in results if result.report is not None]
    duration_s = sum(report.duration_s for report in reports)
    parts = [f"{len(reports)} of {len(results)} files upscaled"]
    if unchanged := sum(result.status == "unchanged" for result in results):
        parts.append(f"{unchanged} done before and unchanged")
    if reports:
        factor = duration_s / max(seconds, 1e-9)
        parts.append(f"{duration_s:.1f} s of audio in {seconds:.1f} s ({factor:.0f}x real time)")
    return ", ".join(parts)


def _print_failures(failed: "list[FileResult]", total: int) -> None:
    if not failed:
        return
    typer.echo(f"hifispeech: {len(failed)} of {total} files failed:", err=True)
    for result in failed[:_MOST_NAMED]:
        typer.echo(f"  {_failure(result)}", err=True)
    if len(failed) > _MOST_NAMED:
        typer.echo(f"  and {len(failed) - _MOST_NAMED} more; the manifest has them all", err=True)
    raise typer.Exit(1)


@contextmanager
def _bar(hidden: bool) -> "Iterator[Callable[[FolderProgress], None] | None]":
    """A bar over the whole run with the time left, on terminals only."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[files]}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    # What is printed meanwhile goes above the bar, unless it goes elsewhere.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("", total=None, files="")

        def on_progress(now: "FolderProgress") -> None:
            files = f"{now.files}/{now.total_files} files" + (f", {now.failed} failed" if now.failed else "")
            bar.update(task, completed=now.done_bytes, total=now.total_bytes, files=files)

        yield on_progress
