"""Hook of MkDocs: fills `<!-- commands -->` with the options of every command, as the program knows them."""

from typing import Any

import typer
from rich.text import Text

from hifispeech.cli import app

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark, where a page has it."""
    return markdown.replace(MARK, "\n".join(describe())) if MARK in markdown else markdown


def describe() -> list[str]:
    """A section for each command, subcommands included."""
    return _sections(typer.main.get_command(app), "hifispeech")


def _sections(group: Any, name: str) -> list[str]:
    lines: list[str] = []
    for key, command in group.commands.items():
        words = f"{name} {key}"
        lines += [f"## {words}", "", (command.help or "").split("\n\n")[0].replace("\n", " "), ""]
        if hasattr(command, "commands"):
            lines += _sections(command, words)
            continue
        lines += ["| argument or option | what it does | default |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in command.params if parameter.name not in ("help", "debug")]
        lines.append("")
    return lines


def _row(parameter: Any) -> str:
    names = (
        parameter.opts
        if parameter.param_type_name == "option"
        else [(parameter.metavar or parameter.name).strip("{}.")]
    )
    default = parameter.default
    shown = "" if default in (None, False, (), []) or callable(default) else f"`{default}`"
    text = Text.from_markup(parameter.help or "").plain.replace("|", "\\|")
    return f"| {' '.join(f'`{name}`' for name in names)} | {text} | {shown} |"
