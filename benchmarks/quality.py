"""Quality of the systems on an evaluation set: LSD and ViSQOL per set, input rate and system.

    python benchmarks/quality.py --data ../shared/data --visqol

A run of `hifispeech.evaluate.runner` over DATA/eval/<set>/<speaker>/*.flac (48 kHz) with low-rate inputs by
soxr VHQ, and a page about it: writes docs/benchmarks/quality.md, quality.csv (one line a file, which
readme.py reads) and spectrograms of three clips. Results are kept in --cache, so an interrupted run goes on
where it stopped. Exit code 1 if a file failed: means are then over the others, and the page says which are
missing.
"""

import argparse
import csv
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common import report

from hifispeech import Upscaler, read
from hifispeech.evaluate.lowrate import low_rate
from hifispeech.evaluate.report import plots
from hifispeech.evaluate.results import Row, read_rows
from hifispeech.evaluate.runner import DEFAULT_RATES, Options, evaluate
from hifispeech.evaluate.summary import Summary
from hifispeech.evaluate.systems import baselines, parse_systems

SYSTEMS = ("offline", "fast", "resample", "mirror", "mirror12")
METRICS = ("lsd", "lsd_p2", "lsd_hf", "lsd_activity", "envelope", "contrast", "floor", "texture", "kept_snr")
VALUES = (
    "lsd",
    "lsd_low",
    "lsd_high",
    "lsd_p2",
    "lsd_hf_512",
    "lsd_hf_4096",
    "lsd_quiet",
    "lsd_active",
    "envelope",
    "contrast_time",
    "contrast_frequency",
    "floor_bias",
    "texture",
    "nisqa",
    "visqol",
)
FIELDS: tuple[str, ...] = ("file", "set", "speaker", "rate", "system", *VALUES, "real_time_factor", "error")
# Chosen once: the clip with most fricative energy of each kind, so that hiss above the cutoff can be judged.
CLIPS = (
    ("fricatives", "ravdess_speech/actor23/03-01-07-02-02-02-23.flac", "male speech, strong s and z"),
    ("speech", "ravdess_speech/actor20/03-01-03-01-02-02-20.flac", "female speech"),
    ("song", "ravdess_song/actor04/03-02-04-02-02-02-04.flac", "female song"),
)


def main() -> int:
    args = parse_args()
    sets = sorted(path for path in (args.data / "eval").glob("*") if path.is_dir())
    if not sets:
        raise SystemExit(f"no eval/<set>/<speaker>/*.flac in {args.data}; pass the folder that holds eval/")
    specs = [f"offline={args.model}" if name == args.model_name else name for name in args.systems]
    options = Options(
        data=tuple(str(path) for path in sets),
        output=args.cache,
        systems=tuple(parse_systems(specs)),
        rates=args.rates,
        metrics=(*METRICS, *(["nisqa"] if args.nisqa else []), *(["visqol"] if args.visqol else [])),
        workers=args.processes,
        every=args.every,
        visqol_every=args.visqol_every,
        pictures=0,
        resume=True,
        command=shlex.join(["python", *sys.argv]),
    )
    started = time.perf_counter()

    def on_progress(done: int, total: int) -> None:
        seconds = time.perf_counter() - started
        print(f"\r{done}/{total} files, {seconds:.0f} s", end="", file=sys.stderr, flush=True)

    summary = evaluate(options, on_progress)
    print(file=sys.stderr)
    rows = read_rows(args.cache / "scores.csv")
    write_csv(args.out / "quality.csv", rows)
    figures = draw_figures(args)
    report.write_page(args.out / "quality.md", page(args, summary, rows, figures))
    for row in summary.failures[:10]:
        print(f"failed: {row.clip} {row.rate} Hz {row.system}: {row.error}", file=sys.stderr)
    return 1 if summary.failures else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds eval/<set>/<speaker>/*.flac"
    )
    parser.add_argument("--systems", type=_names, default=SYSTEMS, help=f"default: {','.join(SYSTEMS)}")
    parser.add_argument("--rates", type=_rates, default=DEFAULT_RATES, help="input rates, comma-separated")
    parser.add_argument(
        "--visqol", action="store_true", help="also ViSQOL: about 0.8 s of CPU per second of audio"
    )
    parser.add_argument(
        "--visqol-every", type=int, default=1, metavar="N", help="ViSQOL on every Nth file of a set only"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth file of a set only")
    parser.add_argument(
        "--nisqa", action="store_true", help="also NISQA, from the weights in its usual place"
    )
    parser.add_argument(
        "--model", default="offline", help='weights (.onnx) that "offline" stands for; default: the packaged'
    )
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "benchmarks")
    parser.add_argument("--cache", type=Path, default=report.ROOT / "runs" / "quality")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure-rate", type=int, default=8000, help="input rate of the spectrograms in Hz")
    args = parser.parse_args()
    args.model_name = None if args.model == "offline" else "offline"
    return args


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in SYSTEMS:
            raise argparse.ArgumentTypeError(f"unknown system {name!r}; choose from {', '.join(SYSTEMS)}")
    return names


def _rates(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line a file, rate and system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            line: dict[str, object] = {name: row.values[name] for name in VALUES if name in row.values}
            if row.facts.get("seconds"):
                line["real_time_factor"] = round(row.facts["duration_s"] / row.facts["seconds"], 2)
            keys = {"file": row.clip, "set": row.set, "speaker": row.speaker, "rate": row.rate}
            writer.writerow(line | keys | {"system": row.system, "error": row.error})


def draw_figures(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Spectrograms of the fixed clips (input, systems, truth). Returns file name and caption."""
    makers = {
        "offline": lambda low, rate: Upscaler(args.model, threads=1).process(low, rate),
        "fast": lambda low, rate: Upscaler("fast", threads=1).process(low, rate),
        "mirror": baselines.mirrored,
        "mirror12": lambda low, rate: baselines.mirrored(low, rate, slope_db=12.0),
    }
    figures = []
    for label, name, what in CLIPS:
        path = args.data / "eval" / name
        if not path.is_file():
            continue
        rate = args.figure_rate
        truth, _ = read(path)
        low = low_rate(truth, rate)
        panels = {f"input ({rate / 1000:g} kHz)": baselines.resampled(low, rate)}
        panels |= {system: makers[system](low, rate) for system in args.systems if system in makers}
        panels["truth"] = truth
        figure = plots.spectrogram_figure(panels, 48000, cutoff_hz=rate / 2, columns=len(panels), title=what)
        target = plots.save_figure(figure, args.out / f"quality-{label}.png", dpi=90)
        figures.append((target.name, f"{what} (`{name}`)"))
    return figures


def page(
    args: argparse.Namespace, summary: Summary, rows: Sequence[Row], figures: Sequence[tuple[str, str]]
) -> list[str]:
    """The Markdown page."""
    threads = f"{args.processes} processes of 1"
    lines = ["# Quality", "", *report.provenance(threads=threads)]
    if args.model != "offline":
        lines.append(f"- `offline` is `{Path(args.model).name}`, not shipped")
    lines += ["", *EXPLANATION]
    for set_name in summary.sets:
        speakers = len({row.speaker for row in rows if row.set == set_name})
        lines += ["", f"## {set_name}", "", f"{summary.clips[set_name]} clips, {speakers} speakers.", ""]
        lines += report.table(
            ("input", "system", *TITLES.values(), "clips (ViSQOL)"), table_rows(summary, set_name)
        )
    if summary.failures:
        count = len(summary.failures)
        lines += ["", f"**{count} results are missing above**, because these failed:", ""]
        lines += [f"- {row.clip}, {row.rate} Hz, {row.system}: {row.error}" for row in summary.failures[:50]]
    if figures:
        shown = f"Input {args.figure_rate / 1000:g} kHz; one colour scale a row."
        lines += ["", "## Spectrograms", "", shown]
    for file_name, caption in figures:
        lines += ["", f"{caption}:", "", f"![{caption}]({file_name})"]
    return lines


EXPLANATION = [
    "Input: the 48 kHz recording brought to the input rate by soxr VHQ (linear-phase sinc). Truth: the",
    "recording. LSD: protocol P1 (n_fft 2048, hop 512), whole band, below (LF) and above (HF) the input's",
    "Nyquist frequency; LSD P2 is that of ssr_eval; lower is better. ViSQOL: audio mode, 48 kHz, 1 to 4.73,",
    "higher is better. NISQA: predicted MOS at 48 kHz without a reference, higher is better. HF 512 and HF",
    "4096: LSD-HF at other frame sizes; quiet and active: LSD-HF of the frames without and with speech;",
    "envelope: error of the power smoothed over 1/3 octave and 20 ms; contrast: spread of the cells against",
    "the truth's, 1 is right; floor: level of the quietest frames against the truth's, 0 is right; texture:",
    "distance of the modulation spectra, lower is better. All outputs are rounded to 16 bits. Means over",
    "clips. LSD likes mirrored spectra more than listeners do: read it beside ViSQOL. Rows of plain",
    "resampling cannot be compared with other papers: both protocols measure there a distance to a floor.",
    "LSD-LF of plain resampling is all in the resampler's transition band, the last 7 % below the edge.",
    "",
    "`resample`: soxr VHQ to 48 kHz. `mirror`: the low band folded up around the cutoff until 24 kHz.",
    "`mirror12`: the same, falling by 12 dB per octave. Per-file numbers: `quality.csv`. RAVDESS (CC BY-NC-",
    "SA 4.0) is used for evaluation only.",
]
TITLES = {
    "lsd": "LSD",
    "lsd_low": "LSD-LF",
    "lsd_high": "LSD-HF",
    "lsd_p2": "LSD P2",
    "lsd_hf_512": "HF 512",
    "lsd_hf_4096": "HF 4096",
    "lsd_quiet": "quiet",
    "lsd_active": "active",
    "envelope": "envelope, dB",
    "contrast_time": "contrast, time",
    "contrast_frequency": "contrast, frequency",
    "floor_bias": "floor, dB",
    "texture": "texture",
    "nisqa": "NISQA",
    "visqol": "ViSQOL",
}


def table_rows(summary: Summary, set_name: str) -> list[list[str]]:
    """Means per rate and system over the files that have the value; the last column counts them."""
    cells = []
    for rate in summary.rates:
        for system in summary.systems:
            found = [summary.entry(set_name, rate, system, value) for value in VALUES]
            means = [f"{entry.mean.mean:.3f}" if entry else "-" for entry in found]
            counts = [entry.mean.count if entry else 0 for entry in found]
            cells.append([f"{rate / 1000:g} kHz", system, *means, f"{counts[0]} ({counts[-1]})"])
    return cells


if __name__ == "__main__":
    sys.exit(main())
