"""Every size of the fast model. No PyTorch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FastConfig:
    """Sizes of the fast model. Units: frames of `hop / sample_rate` seconds, bins of `sample_rate /
    n_fft` hertz.
    """

    sample_rate: int = 48000
    n_fft: int = 2048
    hop: int = 512
    channels: int = 192
    blocks: int = 8
    kernel: int = 5
    expansion: int = 2
    memory_every: int = 2
    look_ahead: int = 2
    analysis_bands: int = 128
    gain_bands: int = 96
    edge_bins: int = 64
    pass_bins: int = 32
    level_frames: float = 280.0
    context_frames: tuple[float, ...] = (24.0, 240.0)
    memory_frames: tuple[float, ...] = (3.0, 8.0, 20.0, 50.0, 120.0, 300.0, 700.0, 1500.0)
    source_share: float = 0.55
    excitation: Literal["mixed", "predicted"] = "mixed"

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def features(self) -> int:
        own = self.analysis_bands * (2 + len(self.context_frames)) + self.edge_bins + 2 * self.cutoff_features
        return own + (2 * self.edge_bins if self.excitation == "predicted" else 0)

    @property
    def cutoff_features(self) -> int:
        return 16
