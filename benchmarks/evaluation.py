"""The full table: every measure of every system on both evaluation sets, with all figures.

    python benchmarks/evaluation.py --data ../shared/data --visqol-every 12 --workers 2

Runs `hifispeech evaluate` on RAVDESS speech and song below DATA into --results (resumable), then writes
docs/benchmarks/evaluation.md, its LaTeX tables and its figures. Recordings are not copied: RAVDESS is
CC BY-NC-SA 4.0. Exit code 1 if a result failed; the page lists it.
"""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

from common import report

from hifispeech.evaluate.metrics import all_metrics
from hifispeech.evaluate.runner import DEFAULT_RATES, Options, evaluate
from hifispeech.evaluate.systems import parse_systems

PAGE = report.ROOT / "docs" / "benchmarks" / "evaluation.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds RAVDESS")
    parser.add_argument("--systems", default="fast,resample,mirror,mirror12", help="see hifispeech evaluate")
    parser.add_argument("--results", type=Path, default=report.ROOT / "runs" / "evaluation")
    parser.add_argument("--visqol-every", type=int, default=12, metavar="N", help="ViSQOL on every Nth clip")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth clip of a set only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=3, metavar="N", help="worst clips a system to draw")
    args = parser.parse_args()
    options = Options(
        data=tuple(f"{name}:{args.data / 'eval'}" for name in ("ravdess-speech", "ravdess-song")),
        output=args.results,
        systems=tuple(parse_systems([args.systems])),
        rates=DEFAULT_RATES,
        metrics=all_metrics(),
        workers=args.workers,
        every=args.every,
        visqol_every=args.visqol_every,
        pictures=args.pictures,
        resume=True,
        command=shlex.join(["python", *sys.argv]),
    )

    def on_progress(done: int, total: int) -> None:
        print(f"\r{done}/{total} clips", end="", file=sys.stderr, flush=True)

    summary = evaluate(options, on_progress)
    print(file=sys.stderr)
    publish(args.results)
    return 1 if summary.failures else 0


def publish(results: Path) -> None:
    """Copy tables and pictures of a run into the docs, and write the page."""
    folder = PAGE.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("figures", "spectrograms"):
        shutil.copytree(results / name, folder / name)
    for name in ("tables.tex", "comparisons.csv", "scores.csv"):
        shutil.copy(results / name, folder / name)
    text = (results / "tables.md").read_text(encoding="utf-8")
    body = [line for line in text.splitlines()[1:] if not line.startswith("Command: ")]
    for name in ("figures/", "spectrograms/"):
        body = [line.replace(f"]({name}", f"]({folder.name}/{name}") for line in body]
    lines = ["# Evaluation", "", *report.provenance(seed=0), *body]
    examples = json.loads((results / "examples.json").read_text(encoding="utf-8"))
    lines += ["", "## Typical clips", ""]
    for example in [example for example in examples if example["why"].startswith("typical")]:
        caption = f"{example['clip']}, {example['rate'] / 1000:g} kHz"
        lines += [f"![{caption}]({folder.name}/{example['picture']})", ""]
    lines += [
        f"LaTeX: [tables.tex]({folder.name}/tables.tex). All pairs of systems: "
        f"[comparisons.csv]({folder.name}/comparisons.csv). Per file: [scores.csv]({folder.name}/scores.csv)."
    ]
    report.write_page(PAGE, lines)


if __name__ == "__main__":
    sys.exit(main())
