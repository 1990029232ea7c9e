"""Sizes of the offline model."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """Sizes of `OfflineNetwork`. A frame is one of the STFT grid 2048/512 at 48 kHz.

    Attributes:
        channels: width of all layers.
        blocks: convolution blocks; after every `context_every` of them comes a context block.
        dilations: of the blocks in turn, in frames.
        heads: attention-pooling heads of a context block.
        detail_blocks: convolution blocks after the noise has joined.
        noise: random numbers per frame, for what the input does not determine.
    """

    channels: int = 224
    blocks: int = 10
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 1, 2, 2, 4)
    expansion: int = 2
    context_every: int = 2
    heads: int = 8
    detail_blocks: int = 2
    detail_kernel: int = 5
    noise: int = 32
