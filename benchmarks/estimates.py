"""Put what each training configuration needs on several machines into docs/training.md.

python benchmarks/estimates.py
"""

import sys

from common import report

from hifispeech.train.config import load
from hifispeech.train.estimate import DEVICES, estimate

PAGE = report.ROOT / "docs" / "training.md"
CONFIGURATIONS = ("fast", "hifisr_small", "hifisr", "hifisr_without_mbd", "hifisr_without_mel")
# Device, devices per node, nodes.
MACHINES = (("rtx4090", 1, 1), ("a100", 1, 1), ("a100", 8, 1), ("a100", 8, 2), ("h100", 8, 1))


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(report.between(text, "estimates", table()), encoding="utf-8")
    return 0


def table() -> list[str]:
    """Memory per device and hours of the whole run, for each configuration and machine."""
    rows = []
    for name in CONFIGURATIONS:
        config = load(report.ROOT / "configs" / f"{name}.yaml")
        cells = [f"`{name}`", f"{config.optimiser.total_steps}"]
        for device, devices, nodes in MACHINES:
            if config.batch_size % (devices * nodes):
                cells.append("-")
                continue
            need = estimate(config, DEVICES[device], devices, nodes)
            cells.append(f"{need.memory_gb:.0f} GB, {need.hours:.2g} h" if need.fits else "too large")
        rows.append(cells)
    names = [f"{nodes} x {devices} {device}" for device, devices, nodes in MACHINES]
    return report.table(["configuration", "steps", *names], rows)


if __name__ == "__main__":
    sys.exit(main())
