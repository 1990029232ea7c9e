"""Put the measured tables into README.md and the model card, from what quality.py and speed.py wrote.

python benchmarks/readme.py
"""

import csv
import re
import sys
from collections import defaultdict

from common import report

PAGES = report.ROOT / "docs" / "benchmarks"
SYSTEMS = {
    "offline": "`offline` (default)",
    "fast": "`fast` (streams)",
    "resample": "plain resampling",
    "mirror": "spectral mirroring",
}


def main() -> int:
    readme = report.ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = report.between(
        text, "picture", ["![Input, output and truth](docs/benchmarks/quality-fricatives.png)"]
    )
    text = report.between(text, "quality", quality())
    text = report.between(text, "speed", speed())
    readme.write_text(text, encoding="utf-8")
    card = report.ROOT / "src" / "hifispeech" / "weights" / "offline.md"
    card.write_text(
        report.between(card.read_text(encoding="utf-8"), "quality", quality()[:-2]), encoding="utf-8"
    )
    return 0


def quality() -> list[str]:
    """LSD and ViSQOL per input rate on the speech set, means over clips."""
    sums: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (PAGES / "quality.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["set"] != "ravdess_speech" or row["system"] not in SYSTEMS:
                continue
            for name in ("lsd", "nisqa", "visqol"):
                if row[name]:
                    sums[row["system"], int(row["rate"])][name].append(float(row[name]))
    rates = sorted({rate for _, rate in sums})
    judged = max(len(values["visqol"]) for values in sums.values())
    rows = []
    for system, label in SYSTEMS.items():
        cells = []
        for rate in rates:
            values = (sums[system, rate][name] for name in ("nisqa", "lsd", "visqol"))
            cells.append(" / ".join(f"{sum(found) / len(found):.2f}" if found else "-" for found in values))
        rows.append([label, *cells])
    return [
        "NISQA (opinion predicted without a reference, higher is better) / LSD (P1, lower is better) /",
        "ViSQOL (48 kHz audio mode, higher is better) by input rate, on RAVDESS speech, whose speakers were",
        f"not trained on; ViSQOL on {judged} of the clips only.",
        "",
        *report.table(["", *(f"{rate / 1000:g} kHz" for rate in rates)], rows),
        "",
        "How it was measured, song, low and high band, pictures: [quality](docs/benchmarks/quality.md).",
    ]


def speed() -> list[str]:
    """The first two tables of the speed page."""
    page = (PAGES / "speed.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", page, flags=re.M)
    origin = [line.lstrip("- ") for line in page.splitlines() if line.startswith(("- commit", "- CPU"))]
    return [
        *tables[0].splitlines(),
        "",
        *tables[1].splitlines(),
        "",
        f"Ten seconds of 16 kHz speech; {'; '.join(origin)}.",
        "More, with memory: [speed](docs/benchmarks/speed.md).",
    ]


if __name__ == "__main__":
    sys.exit(main())
