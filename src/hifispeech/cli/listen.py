"""The commands `abx create`, `abx serve`, `abx results`: listening tests. Mounted by `hifispeech.cli`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hifispeech.cli.common import EXIT_CODES, Debug, Json, needs_extra
from hifispeech.cli.progress import counting

if TYPE_CHECKING:
    from hifispeech.listening.create import Summary
    from hifispeech.listening.results import Results

EVAL_EXTRA = {"pyloudnorm", "scipy", "matplotlib"}
SERVE_EXTRA = {"fastapi", "uvicorn", "pydantic", "starlette"}

app = typer.Typer()
group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(group, name="abx")


@group.callback(epilog=EXIT_CODES)
def abx() -> None:
    """Listening tests (ABX, MUSHRA): make one, open its page to listeners, count the answers.

    [bold]Examples[/bold]

      hifispeech abx create --reference truth --system fast --system nvsr -o test

      hifispeech abx serve test

      hifispeech abx results test
    """


Test = Annotated[Path, typer.Argument(metavar="TEST", help="A folder made by 'hifispeech abx create'.")]


@group.command(epilog=EXIT_CODES)
@needs_extra("eval", EVAL_EXTRA)
def create(
    reference: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the true recordings: X, the reference.")
    ],
    system: Annotated[
        list[str],
        typer.Option(metavar="[NAME=]DIR", help="Folder of a system's outputs; once for each system."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="TEST", help="Folder to write.")],
    kind: Annotated[
        Literal["abx", "mushra"], typer.Option(help="Which of A and B is closer to X, or ratings of all.")
    ] = "abx",
    items: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Files to draw, evenly from the conditions. Default: all."),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,NAME", help="ABX: compare these two; repeatable. Default: every pair."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="N", help="ABX: ask each question so often, A and B exchanged.")
    ] = 1,
    anchor: Annotated[
        list[float] | None,
        typer.Option(
            metavar="HZ",
            help="MUSHRA: low-pass anchor; repeatable, at most two. Default: 3500 and 7000, as in BS.1534-3.",
        ),
    ] = None,
    loudness: Annotated[
        float, typer.Option(metavar="LUFS", help="Bring every stimulus to this loudness (BS.1770).")
    ] = -23.0,
    title: Annotated[
        str, typer.Option(help="Heading of the page. The listeners see it: do not name a system.")
    ] = "Listening test",
    seed: Annotated[int, typer.Option(help="Of the drawing and of all orders.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a test that has no answers yet.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a listening test from folders of outputs.

    Files match by their path below the folders, without suffix. Where they are
    sorted into folders (4000/, 8000/, ...), the first folder is the condition:
    results are shown for each. The reference may have the same folders or none.

    [bold]Examples[/bold]

      hifispeech abx create --reference truth --system fast --system nvsr -o test

      hifispeech abx create --kind mushra --reference truth --system a=out/a -o test
    """
    from hifispeech.listening import create as listening

    options = listening.Options(
        kind=kind,
        title=title,
        seed=seed,
        items=items,
        pairs=[_parse_pair(text) for text in pair or []],
        repeats=repeats,
        anchors_hz=anchor or (listening.LOW_ANCHOR_HZ, listening.MID_ANCHOR_HZ),
        loudness_lufs=loudness,
    )
    if kind == "mushra" and (pair or repeats > 1):
        raise typer.BadParameter("goes with --kind abx", param_hint="'--pair' / '--repeats'")
    if kind == "abx" and anchor:
        raise typer.BadParameter("goes with --kind mushra", param_hint="'--anchor'")
    with counting("files") as on_item:
        made = listening.create(
            reference, _parse_systems(system), output, options, force=force, on_item=on_item
        )
    _print_summary(made, output, as_json)


@group.command(epilog=EXIT_CODES)
@needs_extra("serve", SERVE_EXTRA)
def serve(
    test: Test,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8766,
    debug: Debug = False,
) -> None:
    """Open a test to listeners in the browser, until Ctrl-C.

    Each gives a name or code, and goes on under it where they were. Every answer
    is on the disk (TEST/answers.sqlite) before the next question is shown.

    [bold]Example[/bold]

      hifispeech abx serve test --port 8766
    """
    import uvicorn

    from hifispeech.listening.server import create_app

    is_local = host in ("127.0.0.1", "localhost", "::1")
    app = create_app(test, None if is_local else ["*"])
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"{test}: listening at http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False)).run(sockets=[listener])


@group.command(epilog=EXIT_CODES)
@needs_extra("eval", EVAL_EXTRA)
def results(
    test: Test,
    csv: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Write every answer (MUSHRA: every rating) there.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG|SVG", help="Draw bars with 95 % intervals there.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Count only listeners who came to the end.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Count the answers of a test, also while it runs.

    ABX: for each pair the share of answers with its exact (Clopper-Pearson) 95 %
    interval, the two-sided binomial test against one half, and Holm's correction.
    MUSHRA: means with 95 % t intervals after the post-screening of BS.1534-3.

    [bold]Example[/bold]

      hifispeech abx results test --csv answers.csv --plot abx.png
    """
    from hifispeech.listening import results as listening

    found = listening.results(test, complete_only=complete)
    if as_json:
        typer.echo(json.dumps(listening.as_json(found)))
    else:
        _print_results(found)
    if csv is not None:
        listening.save_csv(found, csv, force=force)
    if plot is not None:
        listening.save_plot(found, plot, force=force)


def _parse_systems(texts: list[str]) -> dict[str, Path]:
    """`NAME=DIR` or `DIR`, whose last part is the name then."""
    systems: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text)
        name = name if equals else path.resolve().name
        if name in systems:
            raise typer.BadParameter(
                f"two systems are named {name!r}; pass NAME=DIR", param_hint="'--system'"
            )
        systems[name] = path
    return systems


def _parse_pair(text: str) -> tuple[str, str]:
    names = text.split(",")
    if len(names) != 2:
        raise typer.BadParameter(f"{text!r} is no pair; pass NAME,NAME", param_hint="'--pair'")
    return names[0], names[1]


def _print_summary(made: Summary, output: Path, as_json: bool) -> None:
    definition = made.definition
    if as_json:
        values = {"test": str(output), "kind": definition.kind, "items": len(definition.items)}
        values |= {"questions": made.questions, "seconds": round(made.seconds, 1)}
        typer.echo(json.dumps(values | {"cut": made.cut, "turned_down": made.turned_down}))
        return
    typer.echo(
        f"{output}: {definition.kind} test, {len(definition.items)} items ({made.seconds:.0f} s of audio), "
        f"{made.questions} questions for each listener"
    )
    if made.cut:
        typer.echo(f"{made.cut} items had outputs of slightly different length, and were cut to the shortest")
    if made.turned_down:
        typer.echo(f"{made.turned_down} items are quieter than the others, so that their peaks fit")


def _print_results(found: Results) -> None:
    from hifispeech.listening.definition import MID_ANCHOR

    done = sum(session.done == session.total for session in found.sessions)
    typer.echo(
        f"{found.definition.title}: {len(found.sessions)} listeners ({done} finished), "
        f"{len(found.answers)} answers"
    )
    for row in found.preferences:
        typer.echo(
            f"{row.first} against {row.second}, {row.condition}: {row.wins} of {row.total} found {row.first} "
            f"closer: {100 * row.share:.1f} % (95 % interval {100 * row.low:.1f} to {100 * row.high:.1f}), "
            f"p = {row.p:.3g}, after Holm {row.p_holm:.3g}"
        )
    for score in found.scores:
        typer.echo(
            f"{score.stimulus}, {score.condition}: mean {score.mean:.1f} (95 % interval {score.low:.1f} to "
            f"{score.high:.1f}), median {score.median:.1f}, quartiles {score.lower_quartile:.1f} to "
            f"{score.upper_quartile:.1f}, {score.count} ratings"
        )
    for listener, missed in found.left_out.items():
        why = f"the hidden reference below 90 in {100 * missed.reference:.0f} %"
        if missed.mid_anchor is not None:
            why += f", the 7 kHz anchor above 90 in {100 * missed.mid_anchor:.0f} %"
        typer.echo(f"left out: {listener}, who rated {why} of items")
    if found.definition.kind == "mushra" and MID_ANCHOR not in found.definition.anchors:
        typer.echo("this test has no 7 kHz anchor, so listeners were screened by the hidden reference alone")
