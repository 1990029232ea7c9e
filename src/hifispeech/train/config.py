"""Training configurations: frozen dataclasses read from one YAML file; unknown or ill-typed keys are errors.

The key `task` chooses the dataclass. Everything that decides the numbers of a run is here; where data and
results lie, the device and the time limit are options of the command.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from hifispeech.models.artefact import config_from_dict
from hifispeech.models.fast.config import FastConfig
from hifispeech.models.hifisr import HiFiSRConfig
from hifispeech.models.offline.config import OfflineConfig
from hifispeech.train.losses.adversarial import GanLossConfig
from hifispeech.train.losses.discriminators import DiscriminatorsConfig, MBDConfig
from hifispeech.train.losses.frames import FrameLossConfig
from hifispeech.train.losses.maps import (
    FINE,
    WIDE_IN_BANDS,
    WIDE_IN_TIME,
    MapDiscriminatorConfig,
    MapLossConfig,
)
from hifispeech.train.simulate import SimulateConfig
from hifispeech.train.simulate_powers import PowerSimulationConfig

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with linear warm-up and cosine decay to `final_share` of the rate over `total_steps`."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warm_up_steps: int = 200
    total_steps: int = 8000
    final_share: float = 0.02
    clip_norm: float = 1.0


@dataclass(frozen=True)
class GanOptimiserConfig:
    """The paper's rates: `learning_rate` for decoder and discriminators, another for the encoder."""

    learning_rate: float = 1e-4
    encoder_learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warm_up_steps: int = 1000
    total_steps: int = 500_000
    final_share: float = 0.02
    clip_norm: float = 10.0


@dataclass(frozen=True)
class FastTrainConfig:
    """A run of the fast model. `batch_size` is that of all processes together."""

    kind: ClassVar[str] = "fast"  # of the model's files
    task: Literal["fast"] = "fast"
    seed: int = 1
    batch_size: int = 12
    segment_frames: int = 282
    precision: Precision = "bf16-mixed"
    compile: bool = False
    accumulate: int = 1
    ema_decay: float = 0.999
    validate_every: int = 500
    checkpoint_every: int = 250
    model: FastConfig = field(default_factory=FastConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    simulate: SimulateConfig = field(default_factory=SimulateConfig)
    loss: FrameLossConfig = field(default_factory=FrameLossConfig)


@dataclass(frozen=True)
class FastGanTrainConfig(FastTrainConfig):
    """An adversarial run of the fast model, after one of `fast`.

    The same batches, and the paper's losses on the last `wave_frames` frames of each segment beside the frame
    losses.
    """

    task: Literal["fast_gan"] = "fast_gan"  # type: ignore[assignment]
    wave_frames: int = 64
    frame_weight: float = 3.0
    discriminator_warm_up: int = 50
    adversarial: GanLossConfig = field(default_factory=GanLossConfig)
    discriminators: DiscriminatorsConfig = field(
        default_factory=lambda: DiscriminatorsConfig(mpd=None, msd=None, mbd=MBDConfig(channels=8))
    )


@dataclass(frozen=True)
class LowRateConfig:
    """Low-rate simulation on waveforms: a random filter, down to a rate in this range, and up again."""

    min_rate: int = 4000
    max_rate: int = 32000
    noise_probability: float = 0.0


@dataclass(frozen=True)
class HiFiSRTrainConfig:
    """An adversarial run of the paper's model. `batch_size` is that of all processes together.

    Clips whose band ends below `min_bandwidth_hz` are left out: a waveform loss cannot look past their edge.
    The discriminators join at step `adversarial_from`; where a checkpoint without them is resumed, new ones
    train alone for `discriminator_warm_up` steps first.
    """

    kind: ClassVar[str] = "hifisr"
    task: Literal["hifisr"] = "hifisr"
    seed: int = 1
    batch_size: int = 16
    segment_samples: int = 24_576
    min_bandwidth_hz: float = 20_000.0
    precision: Precision = "bf16-mixed"
    compile: bool = False
    accumulate: int = 1
    ema_decay: float = 0.999
    validate_every: int = 5000
    checkpoint_every: int = 1000
    adversarial_from: int = 0
    discriminator_warm_up: int = 500
    model: HiFiSRConfig = field(default_factory=HiFiSRConfig)
    discriminators: DiscriminatorsConfig = field(default_factory=DiscriminatorsConfig)
    optimiser: GanOptimiserConfig = field(default_factory=GanOptimiserConfig)
    low_rate: LowRateConfig = field(default_factory=LowRateConfig)
    loss: GanLossConfig = field(default_factory=GanLossConfig)


@dataclass(frozen=True)
class OfflineTrainConfig:
    """Stage (a) of the offline model: regression of band powers."""

    kind: ClassVar[str] = "offline"
    task: Literal["offline"] = "offline"
    seed: int = 1
    batch_size: int = 8
    segment_frames: int = 470
    min_bandwidth_hz: float = 0.0
    source_fractions: tuple[tuple[str, float], ...] = ()
    full_band_weight: float = 1.5
    precision: Precision = "bf16-mixed"
    compile: bool = False
    accumulate: int = 1
    ema_decay: float = 0.998
    validate_every: int = 500
    checkpoint_every: int = 250
    model: OfflineConfig = field(default_factory=OfflineConfig)
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=2e-3))
    simulate: PowerSimulationConfig = field(default_factory=PowerSimulationConfig)
    loss: MapLossConfig = field(default_factory=MapLossConfig)


@dataclass(frozen=True)
class OfflineAdversarialConfig(OfflineTrainConfig):
    """Stage (b): discriminators on band-power maps; they learn `discriminator_rate` times as fast."""

    task: Literal["offline_adversarial"] = "offline_adversarial"  # type: ignore[assignment]
    batch_size: int = 6
    segment_frames: int = 282
    ema_decay: float = 0.995
    discriminator_warm_up: int = 60
    discriminator_rate: float = 1.5
    discriminators: tuple[MapDiscriminatorConfig, ...] = (WIDE_IN_BANDS, WIDE_IN_TIME, FINE)
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=3e-4, betas=(0.8, 0.98))
    )
    loss: MapLossConfig = field(
        default_factory=lambda: MapLossConfig(distance=0.5, absolute=0.0, pooled=1.0, floor=0.5, feature=1.0)
    )


TrainConfig = FastTrainConfig | HiFiSRTrainConfig | OfflineTrainConfig

CONFIGS: dict[str, type[TrainConfig]] = {
    "fast": FastTrainConfig,
    "fast_gan": FastGanTrainConfig,
    "hifisr": HiFiSRTrainConfig,
    "offline": OfflineTrainConfig,
    "offline_adversarial": OfflineAdversarialConfig,
}


def parse(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that `values` (JSON data with the key `task`) describe.

    Raises:
        ValueError: for an unknown task or key, or a value of the wrong type, naming it.
    """
    task = values.get("task")
    if task not in CONFIGS:
        raise ValueError(f"task={task!r} in the config; one of {', '.join(CONFIGS)} is needed")
    config = config_from_dict(CONFIGS[task], values)
    for name in ("batch_size", "accumulate", "validate_every", "checkpoint_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} in the config; pass 1 or more")
    if isinstance(config, HiFiSRTrainConfig):
        _check_losses(config)
    return config


def _check_losses(config: HiFiSRTrainConfig) -> None:
    """Every step needs a loss of the generator."""
    loss = config.loss
    if loss.mel or loss.stft:
        return
    if not (loss.adversarial or loss.feature):
        raise ValueError("all weights of the loss are 0 in the config; one must be above 0")
    if config.adversarial_from > 0:
        raise ValueError(
            f"adversarial_from={config.adversarial_from} in the config leaves the steps before it without a "
            f"loss, since loss.mel and loss.stft are 0; set adversarial_from to 0"
        )


def load(path: Path | str) -> TrainConfig:
    """Read a YAML configuration file.

    Raises:
        ValueError: if it is no YAML mapping, and for the reasons of `parse`; the message names the file.
        OSError: if the file cannot be read.
    """
    import yaml

    text = Path(path).read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no configuration; a mapping with the key `task` is needed")
    try:
        return parse(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
