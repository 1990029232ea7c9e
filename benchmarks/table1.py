"""Table 1 of the paper from training runs of our own: what multi-band discriminator and mel loss are worth.

    hifispeech train configs/hifisr_small.yaml --data DATASET -o runs/small --max-steps 400 ...
    python benchmarks/table1.py --data ../shared/data --every 8 \\
        --runs "HiFi-SR small=runs/small" "without MBD=runs/without_mbd" "without mel=runs/without_mel"

Scores `best.safetensors` of each run's folder on DATA/eval/<set>/<speaker>/*.flac at the paper's input rates,
beside plain resampling and the packaged model, and draws the curves of the runs' `log.jsonl`. The docs
(Training) have the commands of the whole table. Needs the extras `train` and `eval`. Writes
docs/benchmarks/table1.md, its figure and, for who wants to draw it anew, the curves as CSV.
"""

import argparse
import csv
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from common import report
from matplotlib.figure import Figure

from hifispeech.evaluate.report import plots
from hifispeech.evaluate.runner import Options, evaluate
from hifispeech.evaluate.summary import Summary
from hifispeech.evaluate.systems import System, parse_systems
from hifispeech.models.artefact import config_to_dict, load_artefact
from hifispeech.train.checkpoint import BEST
from hifispeech.train.config import load
from hifispeech.train.monitor import LOG_FILE

RATES = (4000, 8000, 16000, 24000)
VALUES = {"lsd_p2": "LSD (P2, as the paper)", "lsd": "LSD (P1)", "lsd_high": "LSD-HF (P1)"}
CURVES = {
    "valid/lsd": "validation LSD (P1)",
    "mel": "mel distance, training",
    "feature/mpd": "feature distance (MPD), training",
}
SMOOTHED = 10  # reports that a training curve's points are the mean of


def main() -> int:
    args = parse_args()
    sets = sorted(path for path in (args.data / "eval").glob("*") if path.is_dir())
    if not sets:
        raise SystemExit(f"no eval/<set>/<speaker>/*.flac in {args.data}; pass the folder that holds eval/")
    ours = [System(name, "model", str(folder / BEST)) for name, folder in args.runs.items()]
    options = Options(
        data=tuple(map(str, sets)),
        output=args.cache,
        systems=(*parse_systems(["resample"]), *ours, *parse_systems(["fast"])),
        rates=RATES,
        metrics=("lsd", "lsd_p2"),
        workers=args.processes,
        every=args.every,
        pictures=0,
        resume=True,
        command=shlex.join(["python", *sys.argv]),
    )
    summary = evaluate(options)
    points = {name: curves(folder / LOG_FILE) for name, folder in args.runs.items()}
    plots.save_figure(figure(points), args.out / "table1.png", dpi=90)
    write_csv(args.out / "table1.csv", points)
    report.write_page(args.out / "table1.md", page(args, summary))
    for row in summary.failures[:10]:
        print(f"failed: {row.clip} {row.rate} Hz {row.system}: {row.error}", file=sys.stderr)
    return 1 if summary.failures else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/<set>/<speaker>/*.flac")
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="NAME=FOLDER", help="a row of the table each"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth file of a set only")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    parser.add_argument("--cache", type=Path, default=report.ROOT / "runs" / "table1")
    args = parser.parse_args()
    named = [text.partition("=") for text in args.runs]
    args.runs = {name: Path(folder) for name, _, folder in named}
    for name, folder in args.runs.items():
        if not (folder / BEST).is_file() or not (folder / LOG_FILE).is_file():
            parser.error(
                f"{name}: {BEST} or {LOG_FILE} is not in {folder}; give NAME=FOLDER of a training run"
            )
    return args


def curves(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve; a resumed run says some steps twice, the last counts."""
    found: dict[str, dict[int, float]] = {name: {} for name in CURVES}
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name in CURVES.keys() & values.keys():
            found[name][values["step"]] = values[name]
    return {name: sorted(points.items()) for name, points in found.items()}


def figure(points: dict[str, dict[str, list[tuple[int, float]]]]) -> Figure:
    """One panel per curve, one line per run."""
    drawn = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, (name, title) in zip(drawn.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        for number, (run, own) in enumerate(points.items()):
            look = {"label": run, "color": f"C{number}"}
            steps, values = zip(*own[name], strict=True) if own[name] else ((), ())
            if name == "valid/lsd":
                axis.plot(steps, values, marker="o", markersize=3, **look)
            elif values:
                means = [
                    sum(values[max(0, i - SMOOTHED + 1) : i + 1]) / min(i + 1, SMOOTHED)
                    for i in range(len(values))
                ]
                axis.plot(steps, means, **look)
        axis.set(xlabel="step", title=title)
        axis.grid(alpha=0.3)
        axis.legend()
    return drawn


def write_csv(path: Path, points: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """A line per point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "curve", "step", "value"))
        for run, own in points.items():
            for name, pairs in own.items():
                writer.writerows((run, name, step, value) for step, value in pairs)


def page(args: argparse.Namespace, summary: Summary) -> list[str]:
    """The Markdown page."""
    cards = {name: card(folder) for name, folder in args.runs.items()}
    lines = ["# Table 1, small", "", *report.provenance(threads=f"{args.processes} processes of 1"), ""]
    lines += [
        "The paper's Table 1 with the paper's structure at 4 M parameters and hours of a CPU instead of days",
        "of GPUs: what the multi-band discriminator and the multi-scale mel loss add. Inputs by soxr VHQ;",
        "the rows are the averaged weights with the best validation score, on speakers that none of the runs",
        "nor the packaged model has seen. The paper's own figures (VCTK, 101 M): 0.82 on average,",
        "0.83 without MBD, 0.84 without the mel loss. Lower is better.",
    ]
    for set_name in summary.sets:
        for value, title in VALUES.items():
            lines += ["", f"## {set_name}: {title}", ""]
            header = ["system", "steps", *(f"{rate // 1000} kHz" for rate in summary.rates), "mean"]
            rows = [
                [
                    system,
                    str(cards.get(system, {}).get("steps", "-")),
                    *cells(summary, set_name, system, value),
                ]
                for system in summary.systems
            ]
            lines += report.table(header, rows)
        lines += ["", f"{summary.clips[set_name]} clips."]
    lines += ["", "## Curves", "", "![Validation LSD, mel and feature distance of the runs](table1.png)", ""]
    lines += [
        "Validation: held-out training speakers, mean of inputs at 8, 16 and 24 kHz. Points: `table1.csv`."
    ]
    lines += ["", "## Configurations", "", "`configs/hifisr_small.yaml` with these changes:", ""]
    usual = flat(config_to_dict(load(report.ROOT / "configs" / "hifisr_small.yaml")))
    for name, own in cards.items():
        hours, speakers = (sum(source[key] for source in own["data"]) for key in ("hours", "speakers"))
        used = flat(own["config"])
        off = tuple(f"{key}." for key, value in used.items() if value is None and key not in usual)
        changes = [
            f"{key}={used[key]}" if key in used else f"{key} left out"
            for key in sorted(usual | used)
            if used.get(key, off) != usual.get(key, off) and not key.startswith(off)
        ]
        lines += [f"- {name}: `{' '.join(changes)}`; {hours:.2f} h of {speakers} speakers"]
    return lines


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys as `--set` takes them; those below a part that is switched off are gone with it."""
    found = {}
    for key, value in config.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        found |= inner
    return found


def card(folder: Path) -> dict[str, Any]:
    """What the trainer wrote into the weights: steps, configuration, data."""
    return json.loads(load_artefact(folder / BEST).notes["card"])


def cells(summary: Summary, set_name: str, system: str, value: str) -> list[str]:
    """Means per rate, and the mean of these."""
    found = [summary.entry(set_name, rate, system, value) for rate in summary.rates]
    means = [entry.mean.mean for entry in found if entry]
    texts = [f"{entry.mean.mean:.3f}" if entry else "-" for entry in found]
    return [*texts, f"{sum(means) / len(means):.3f}" if len(means) == len(found) else "-"]


if __name__ == "__main__":
    raise SystemExit(main())
