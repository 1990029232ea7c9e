"""Every size of the paper's network, and the named configurations. No PyTorch here."""

from dataclasses import dataclass, field
from math import prod


@dataclass(frozen=True)
class MelConfig:
    """The log-mel spectrogram the encoder reads (48 kHz audio whose upper band may be empty)."""

    sample_rate: int = 48000
    n_mels: int = 80
    n_fft: int = 1024
    hop: int = 256
    f_min_hz: float = 0.0
    f_max_hz: float = 8000.0
    power_floor: float = 1e-9
    mel_floor: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.f_min_hz < self.f_max_hz <= self.sample_rate / 2:
            raise ValueError(
                f"mel band {self.f_min_hz}-{self.f_max_hz} Hz must rise and end "
                f"at or below {self.sample_rate / 2} Hz"
            )
        if self.n_fft < self.hop or (self.n_fft - self.hop) % 2:
            raise ValueError(f"n_fft={self.n_fft} must exceed hop={self.hop} by an even number of samples")


@dataclass(frozen=True)
class EncoderConfig:
    """MossFormer2: `depth` times gated single-head attention followed by a gated FSMN.

    `hidden` is twice the value width (v and u side by side); `group` is the span in frames within which
    attention is quadratic; `fsmn_order` N means a memory of N - 1 frames on either side.
    """

    depth: int = 24
    width: int = 512
    hidden: int = 2048
    query_key: int = 128
    group: int = 256
    rotary: int = 32
    kernel: int = 17
    fsmn_width: int = 256
    fsmn_order: int = 20
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % 2 or self.hidden % 2 or self.kernel % 2 == 0:
            raise ValueError(
                f"width={self.width} and hidden={self.hidden} must be even "
                f"and kernel={self.kernel} odd; change them"
            )
        if self.rotary % 2 or self.rotary > self.query_key:
            raise ValueError(f"rotary={self.rotary} must be even and at most query_key={self.query_key}")


@dataclass(frozen=True)
class DecoderConfig:
    """HiFi-GAN generator with Snake. `width` halves at each upsampling; the rates multiply to the mel hop."""

    latent: int = 80
    width: int = 1024
    kernel: int = 7
    rates: tuple[int, ...] = (8, 8, 2, 2)
    rate_kernels: tuple[int, ...] = (16, 16, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.rate_kernels):
            raise ValueError(
                f"rates={self.rates} and rate_kernels={self.rate_kernels} must have the same length"
            )
        if any(k < r or (k - r) % 2 for r, k in zip(self.rates, self.rate_kernels, strict=True)):
            raise ValueError(
                f"each of rate_kernels={self.rate_kernels} must exceed its rate by an even number"
            )
        if self.width % 2 ** len(self.rates):
            raise ValueError(
                f"width={self.width} must divide by {2 ** len(self.rates)}: it halves at each upsampling"
            )


@dataclass(frozen=True)
class HiFiSRConfig:
    """The whole generator: low-rate audio -> mel -> encoder -> latent -> decoder -> 48 kHz audio."""

    mel: MelConfig = field(default_factory=MelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        if prod(self.decoder.rates) != self.mel.hop:
            raise ValueError(
                f"rates={self.decoder.rates} multiply to {prod(self.decoder.rates)}, not hop={self.mel.hop}"
            )


def hifisr_paper() -> HiFiSRConfig:
    """The sizes of the public release: 54.5 M + 55.2 M parameters."""
    return HiFiSRConfig()


def hifisr_small() -> HiFiSRConfig:
    """The same structure with about 4 M parameters, shared evenly, for CPUs and tests."""
    return HiFiSRConfig(
        encoder=EncoderConfig(depth=6, width=192, hidden=768, query_key=64, fsmn_width=96),
        decoder=DecoderConfig(width=192),
    )


HIFISR_CONFIGS = {"hifisr": hifisr_paper, "hifisr_small": hifisr_small}
