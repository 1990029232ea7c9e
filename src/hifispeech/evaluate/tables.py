"""Tables of a run: Markdown for people, LaTeX for papers, CSV for comparisons."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hifispeech.evaluate.metrics import badness, value_of
from hifispeech.evaluate.results import Row, failure_lines
from hifispeech.evaluate.score import BITS
from hifispeech.evaluate.summary import Entry, Summary
from hifispeech.files import write_atomic

SIGNIFICANT = 0.05
_FAILURES_SHOWN = 50
_TEX = {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}


@dataclass(frozen=True)
class Pictures:
    """Links, relative to the folder of the run: figures by caption, spectrograms by `picture_key`."""

    figures: dict[str, str] = field(default_factory=dict)
    clips: dict[str, str] = field(default_factory=dict)


def write_tables(folder: Path, summary: Summary, run: Mapping[str, Any], pictures: Pictures) -> None:
    """Write tables.md, tables.tex and comparisons.csv."""
    write_atomic(folder / "tables.md", "\n".join(markdown(summary, run, pictures)).rstrip() + "\n")
    write_atomic(folder / "tables.tex", "\n".join(latex(summary, run)) + "\n")
    write_atomic(folder / "comparisons.csv", comparisons_csv(summary))


def markdown(summary: Summary, run: Mapping[str, Any], pictures: Pictures) -> list[str]:
    """The page of a run: how it was made, a table per set and value, costs, worst clips, failures."""
    lines = ["# Evaluation", "", *how(summary, run), "", *missing(summary), ""]
    for set_name in summary.sets:
        clips = summary.clips[set_name]
        lines += [
            f"## {set_name}",
            "",
            f"{clips} clips; intervals by {summary.units[set_name]}; outputs as {BITS[run['bits']]}.",
            "",
        ]
        lines += [silence_line(summary, set_name), ""] if summary.silence[set_name][0] else []
        for value in summary.values:
            lines += [
                f"{heading(value)} ({BITS[run['bits']]}):",
                "",
                *value_table(summary, set_name, value),
                "",
            ]
    lines += ["## Cost", "", *cost_table(summary), ""]
    if summary.alignment:
        lines += ["## Alignment", "", *alignment_table(summary), ""]
    if pictures.figures:
        lines += ["## Figures", ""]
        for name, link in pictures.figures.items():
            lines += [f"{name}:", "", f"![{name}]({link})", ""]
    lines += ["## Worst clips", "", *worst_lists(summary, pictures.clips)]
    return lines


def how(summary: Summary, run: Mapping[str, Any]) -> list[str]:
    """What a reader needs to judge the numbers."""
    shown = [f"`{name}` = `{spec}`" if name != spec else f"`{name}`" for name, spec in run["systems"].items()]
    return [
        *([f"Command: `{run['command']}`", ""] if run["command"] else []),
        f"- systems: {', '.join(shown)}",
        f"- low-rate inputs by {run['degrade']}",
        f"- outputs of all systems rounded to {BITS[run['bits']]} before they are measured",
        f"- aligned to the truth (delay and gain): {'yes' if run['align'] else 'no'}",
        f"- seed {run['seed']}; processes: {run['workers']}, of one thread; {run['machine']}",
        f"- software: {', '.join(f'{name} {number}' for name, number in run['software'].items())}",
        "",
        "Means over clips [95 % bootstrap interval]. (n of m): n of m clips have the value. **Bold**: the",
        "best of the column, among the systems with the most clips. †: not shown to be worse than the best",
        "(Wilcoxon signed-rank test on the clips both have, Holm-corrected over all pairs and rates of a set",
        f"and measure, p ≥ {SIGNIFICANT}). Plain resampling cannot be compared between papers: both LSD",
        "protocols measure there a distance to a floor.",
    ]


def missing(summary: Summary) -> list[str]:
    """What failed, or that nothing did."""
    if not summary.failures:
        return ["Failures: none."]
    told = failure_lines(summary.failures, summary.rates, summary.systems)
    lines = [f"**Failed or incomplete results: {len(summary.failures)}.** What is missing is in no mean:", ""]
    lines += [f"- {line}" for line in told[:_FAILURES_SHOWN]]
    if len(told) > _FAILURES_SHOWN:
        lines.append(f"- and {len(told) - _FAILURES_SHOWN} more, see scores.csv")
    return lines


def silence_line(summary: Summary, set_name: str) -> str:
    """How much of the truth is digital silence, which protocol P2 leaves out."""
    silent, frames, clips = summary.silence[set_name]
    where = f"{silent} of {frames} frames of the truth, in {clips} clips"
    return f"{where}, are digital silence and left out of LSD P2."


def heading(value: str) -> str:
    """Name of a value and the direction of better."""
    return f"{value_of(value).title}, {direction(value)}"


def direction(value: str) -> str:
    """Which numbers of a value are good ones."""
    words = {"low": "lower is better", "high": "higher is better", "one": "1 is best", "zero": "0 is best"}
    return words[value_of(value).best]


def value_table(summary: Summary, set_name: str, value: str) -> list[str]:
    """Systems by rates, with the mean over the rates, as Table 1 of the paper."""
    empty = _nothing(summary, set_name, value)
    rows = [
        [system, *(_markdown_cell(summary, entry) if entry else empty for entry in entries), average]
        for system, entries, average in _cells(summary, set_name, value)
    ]
    return table(["system", *(f"{rate / 1000:g} kHz" for rate in summary.rates), "mean"], rows)


def _cells(summary: Summary, set_name: str, value: str) -> list[tuple[str, list[Entry | None], str]]:
    """Per system its entries by rate and the mean of their means: "-" unless all are there."""
    found = []
    for system in summary.systems:
        entries = [summary.entry(set_name, rate, system, value) for rate in summary.rates]
        means = [entry.mean.mean for entry in entries if entry is not None]
        whole = len(means) == len(summary.rates)
        average = _number(sum(means) / len(means), value) if whole else "-"
        if whole and any(entry is not None and entry.mean.count < entry.expected for entry in entries):
            average += " (incomplete)"
        found.append((system, entries, average))
    return found


def _nothing(summary: Summary, set_name: str, value: str) -> str:
    """The cell of a system that has a value for no clip: it stays in the table."""
    asked = [e.expected for e in summary.entries if (e.set, e.value) == (set_name, value)]
    return f"- (0 of {max(asked, default=summary.clips[set_name])})"


def _markdown_cell(summary: Summary, entry: Entry) -> str:
    mean = entry.mean
    text = _number(mean.mean, entry.value)
    if entry.system in best(summary, entry):
        text = f"**{text}**"
    elif entry.system in level_with_best(summary, entry):
        text = f"{text}†"
    text += f" [{_number(mean.low, entry.value)}, {_number(mean.high, entry.value)}]"
    return text if mean.count == entry.expected else f"{text} ({mean.count} of {entry.expected})"


def best(summary: Summary, entry: Entry) -> set[str]:
    """The systems with the best mean beside `entry`, of those with the most clips: to skip is not to win."""
    beside = [summary.entry(entry.set, entry.rate, name, entry.value) for name in summary.systems]
    most = max(found.mean.count for found in beside if found is not None)
    means = {f.system: f.mean.mean for f in beside if f is not None and f.mean.count == most}
    top = min(badness(entry.value, mean) for mean in means.values())
    return {name for name, mean in means.items() if badness(entry.value, mean) == top}


def level_with_best(summary: Summary, entry: Entry) -> set[str]:
    """The systems whose difference to the best is not significant."""
    tops = best(summary, entry)
    return {
        name
        for versus in summary.comparisons
        if (versus.set, versus.rate, versus.value) == (entry.set, entry.rate, entry.value)
        and versus.p >= SIGNIFICANT
        and tops & {versus.first, versus.second}
        for name in (versus.first, versus.second)
    }


def cost_table(summary: Summary) -> list[str]:
    """Speed and memory of each system."""
    rows = []
    for name, cost in summary.costs.items():
        factor, memory = cost["real_time_factor"], cost["peak_memory_mb"]
        rows.append(
            [
                name,
                "-" if factor is None else f"{factor:.3g} x",
                "-" if memory is None else f"{memory:.0f} MB",
            ]
        )
    note = (
        "Seconds of audio per second of computing over all clips, in one thread (a command: with its start,"
        " in as many threads as it takes), while the other processes of the run were at work. Memory: peak"
        " of a process of its own; of a command, its largest process."
    )
    return [note, "", *table(["system", "real-time factor", "peak memory"], rows)]


def alignment_table(summary: Summary) -> list[str]:
    """What `--align` found and undid, by system."""
    rows = []
    for name, found in summary.alignment.items():
        delays, gains = found["delay_samples"], found["gain"]
        rows.append(
            [
                name,
                "{:.0f} [{:.0f}, {:.0f}]".format(*delays),
                "{:.3f} [{:.3f}, {:.3f}]".format(*gains),
            ]
        )
    note = (
        "Found by cross-correlation below the input's Nyquist frequency and undone before measuring: by how"
        " many samples at 48 kHz the outputs were late, and how much louder than the truth. Median [least,"
        " most]."
    )
    return [note, "", *table(["system", "delay in samples", "gain"], rows)]


def worst_lists(summary: Summary, pictures: Mapping[str, str]) -> list[str]:
    """The worst clips of each system by the first value, with links to their spectrograms."""
    lines = []
    for system, rows in summary.worst.items():
        if not rows:
            continue
        value = summary.values[0]
        lines += [f"{system}, by {value_of(value).title}:", ""]
        for row in rows:
            name = _row_name(row)
            link = pictures.get(picture_key(row))
            shown = f"[{name}]({link})" if link else name
            lines.append(f"1. {shown}: {_number(row.values[value], value)}")
        lines.append("")
    return lines


def picture_key(row: Row) -> str:
    """What a clip's spectrogram is called among the pictures of a run."""
    return f"{row.clip} {row.rate}"


def _row_name(row: Row) -> str:
    return f"{row.clip}, {row.rate / 1000:g} kHz"


def latex(summary: Summary, run: Mapping[str, Any]) -> list[str]:
    r"""A `table` with booktabs rules per set and value; needs `\usepackage{booktabs}`."""
    lines = ["% needs \\usepackage{booktabs}"]
    for set_name in summary.sets:
        for value in summary.values:
            empty = _nothing(summary, set_name, value).replace("-", "--").replace(" of ", "/")
            title = f"{heading(value)}, {set_name}, {summary.clips[set_name]} clips, {BITS[run['bits']]}"
            rates = " & ".join(f"{rate / 1000:g} kHz" for rate in summary.rates)
            lines += ["", "\\begin{table}", "\\centering", f"\\caption{{{_tex(title)}.}}"]
            lines += [f"\\begin{{tabular}}{{l{'c' * len(summary.rates)}c}}", "\\toprule"]
            lines += [f"system & {rates} & mean \\\\", "\\midrule"]
            for system, entries, average in _cells(summary, set_name, value):
                cells = [_tex_cell(summary, entry) if entry else empty for entry in entries]
                lines.append(" & ".join([_tex(system), *cells, average]) + " \\\\")
            lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return lines


def _tex_cell(summary: Summary, entry: Entry) -> str:
    text = _number(entry.mean.mean, entry.value)
    if entry.system in best(summary, entry):
        text = f"\\textbf{{{text}}}"
    elif entry.system in level_with_best(summary, entry):
        text += "$^\\dagger$"
    half = (entry.mean.high - entry.mean.low) / 2
    text += f" {{\\footnotesize$\\pm${_number(half, entry.value)}}}"
    return text if entry.mean.count == entry.expected else f"{text} ({entry.mean.count}/{entry.expected})"


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def comparisons_csv(summary: Summary) -> str:
    """Every pair of systems: mean difference, interval, corrected p."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = ("difference", "low", "high", "p", "p_holm", "clips", "units")
    writer.writerow(["set", "rate", "value", "first", "second", *names])
    for v in summary.comparisons:
        c = v.comparison
        numbers = (c.difference, c.low, c.high, c.p, v.p)
        writer.writerow(
            [v.set, v.rate, v.value, v.first, v.second, *(f"{x:.6g}" for x in numbers), c.count, c.units]
        )
    return text.getvalue()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; columns after the first are right-aligned."""
    marks = ["---", *(["---:"] * (len(header) - 1))]
    return ["| " + " | ".join(cells) + " |" for cells in (header, marks, *rows)]


def _number(number: float, value: str) -> str:
    return f"{number:.{value_of(value).decimals}f}"
