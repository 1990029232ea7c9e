"""Each rearranged convolution of the trained networks against PyTorch's own, forward and backward.

    python benchmarks/conv_layers.py                       # hifisr_small and hifisr
    python benchmarks/conv_layers.py hifisr_small --grouped

CPU time on one thread, the best of some runs: PyTorch's / channels innermost, each layer alone, also those
that `hifispeech.models.conv` leaves to PyTorch. Needs the extra `train`. Prints a table.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from common import report
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hifispeech.models import conv
from hifispeech.models.hifisr import HiFiSR
from hifispeech.train.config import HiFiSRTrainConfig, load
from hifispeech.train.losses.discriminators import Discriminators

LAYERS: dict[str, Any] = {"Conv1d": conv.Conv1d, "ConvTranspose1d": conv.ConvTranspose1d}
NAMES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
LIMIT_S = 120
HUNG = "never ends"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("configurations", nargs="*", default=["hifisr_small", "hifisr"])
    parser.add_argument("--batch", type=int, help="default: 4, in the full-size ones 1")
    parser.add_argument("--grouped", action="store_true", help="only the grouped ones")
    args = parser.parse_args()
    rows, child = [], Child()
    for name in args.configurations:
        batch = args.batch or (4 if name == "hifisr_small" else 1)
        for kind, sizes, shape in layers(name, batch):
            if sizes["groups"] > 1 or not args.grouped:
                cells = [child.cell(kind, sizes, shape, low) for low in (False, True)]
                rows.append([name, kind, *(str(sizes[key]) for key in NAMES), str(shape[-1]), *cells])
    print(
        "\n".join(
            report.table(["configuration", "layer", *NAMES, "time", "float32, ms", "bfloat16, ms"], rows)
        )
    )
    return 0


def layers(name: str, batch: int) -> list[tuple[str, dict[str, int], tuple[int, ...]]]:
    """Kind, sizes and input shape of the layers that can be rearranged, each once, in the order of use."""
    config = load(report.ROOT / "configs" / f"{name}.yaml")
    assert isinstance(config, HiFiSRTrainConfig)
    found: dict[str, tuple[str, dict[str, int], tuple[int, ...]]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kind = type(layer).__name__.removeprefix("Parametrized")
        values = {key: getattr(layer, key) for key in NAMES}
        sizes = {key: value[0] if isinstance(value, tuple) else value for key, value in values.items()}
        entry = (kind, sizes, tuple(inputs[0].shape))
        found[repr(entry)] = entry

    with FakeTensorMode(), conv.plain_layers():
        audio = torch.zeros(batch, 1, config.segment_samples)
        for network in (HiFiSR(config.model), Discriminators(config.discriminators)):
            for layer in network.modules():
                if isinstance(layer, (conv.Conv1d, conv.ConvTranspose1d)):
                    layer.register_forward_pre_hook(note)
            network(audio)
    return list(found.values())


class Child:
    """A process that measures, and is replaced when it hangs: some kernels never end."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()

    def cell(self, *layer: Any) -> str:
        """Both times of `measure(*layer)` and their ratio."""
        self.pipe.send(layer)
        if not self.pipe.poll(LIMIT_S):
            self.process.kill()
            self.start()
            return HUNG
        plain, rearranged = self.pipe.recv()
        return f"{1000 * plain:.3g} / {1000 * rearranged:.3g} = {plain / rearranged:.2f}x"


def serve(pipe: Any) -> None:
    torch.set_num_threads(1)
    while True:
        pipe.send(measure(*pipe.recv()))


def measure(kind: str, sizes: dict[str, int], shape: tuple[int, ...], low: bool) -> tuple[float, float]:
    """Seconds of PyTorch's layer and of the rearranged one."""
    layer, x = LAYERS[kind](**sizes), torch.randn(shape, requires_grad=True)
    best = []
    for context in (conv.plain_layers(), everywhere()):
        with context:
            run(layer, x, low)
            first = run(layer, x, low)
            best.append(min(first, *(run(layer, x, low) for _ in range(10 if first < 0.1 else 3))))
    return best[0], best[1]


def run(layer: nn.Module, x: Tensor, low: bool) -> float:
    started = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
        y = layer(x)
    y.backward(y.detach())
    return time.thread_time() - started


@contextmanager
def everywhere() -> Iterator[None]:
    """Inside, every layer is rearranged, however wide, safe or not."""
    decision = conv._is_rearranged
    conv._is_rearranged = lambda layer, x: True
    try:
        yield
    finally:
        conv._is_rearranged = decision


if __name__ == "__main__":
    raise SystemExit(main())
