"""The fast network equals the direct one: each kind of convolution, and all of it."""

import pytest
import torch
from torch import nn

from hifispeech.models.conv import plain_layers
from hifispeech.models.hifisr import DecoderConfig, EncoderConfig, HiFiSR, HiFiSRConfig, fast_conv
from hifispeech.models.hifisr.decoder import Decoder, Snake, Upsample
from hifispeech.models.hifisr.fast_conv import (
    TILE,
    FastConv,
    FastDecoder,
    FastUpsample,
    speed_up,
    transforms,
)


def random_snake(channels: int) -> Snake:
    snake = Snake(channels)
    nn.init.uniform_(snake.alpha, 0.2, 2.0)
    return snake


@pytest.mark.parametrize("tile", [16, TILE])
def test_transforms_multiply_polynomials(tile: int) -> None:
    """Exact in float64, for one tile against the sum it stands for."""
    generator = torch.Generator().manual_seed(1)
    for kernel in (3, 7, 11):
        x = torch.randn(tile, generator=generator, dtype=torch.float64)
        w = torch.randn(kernel, generator=generator, dtype=torch.float64)
        signal, weight, output = transforms(kernel, tile)
        expected = torch.stack([(x[i : i + kernel] * w).sum() for i in range(tile - kernel + 1)])
        torch.testing.assert_close(output.T @ ((signal @ x) * (weight @ w)), expected)
        # Three multiplications for each frequency but the first and the last.
        assert len(signal) == len(weight) == len(output) == 3 * tile // 2 - 1


@pytest.mark.parametrize("kernel", [3, 7, 11])
@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("time", [1, 26, 1003])
@pytest.mark.parametrize("transformed", [True, False], ids=["transformed", "direct"])
@torch.no_grad()
def test_equals_the_direct_convolution(
    kernel: int, dilation: int, time: int, transformed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in several pieces, the last of them short, and with the skip connection."""
    monkeypatch.setattr(fast_conv, "DIRECT_CHANNELS", 0 if transformed else 128)
    monkeypatch.setattr(fast_conv, "PIECE", 6 * 310)
    torch.manual_seed(time)
    snake = random_snake(6)
    conv = nn.Conv1d(6, 6, kernel, dilation=dilation, padding=dilation * (kernel // 2))
    x, skip = torch.randn(time, 6), torch.randn(time, 6)
    expected = conv(snake(x.T[None]))[0].T
    fast = FastConv(snake, conv)
    assert fast.direct == (kernel == 3 and not transformed)
    torch.testing.assert_close(fast(x), expected, atol=5e-6, rtol=1e-4)
    torch.testing.assert_close(fast(x, skip), expected + skip, atol=5e-6, rtol=1e-4)


@pytest.mark.parametrize("rate, kernel", [(8, 16), (2, 4), (3, 5), (4, 10), (5, 5)])
@torch.no_grad()
def test_equals_the_transposed_convolution(rate: int, kernel: int) -> None:
    torch.manual_seed(rate)
    config = DecoderConfig(width=16, rates=(rate, 1), rate_kernels=(kernel, 1))
    stage = Decoder(config).stages[0]
    assert isinstance(stage, Upsample)
    nn.init.normal_(stage.conv.get_parameter("bias"))
    x = torch.randn(50, 16)
    made = FastUpsample(stage).upsampled(x)
    torch.testing.assert_close(made, stage.conv(x.T[None])[0].T, atol=1e-6, rtol=1e-4)  # type: ignore[operator]


@torch.no_grad()
def test_whole_network() -> None:
    torch.manual_seed(0)
    encoder = EncoderConfig(depth=1, width=16, hidden=32, query_key=16, rotary=8, kernel=3, fsmn_width=8)
    decoder = DecoderConfig(width=128, rates=(16, 16), rate_kernels=(32, 32), block_dilations=(1, 3))
    model = HiFiSR(HiFiSRConfig(encoder=encoder, decoder=decoder))
    for name, value in model.named_parameters():
        if name.endswith("original0"):
            value.fill_(0.8)
    model.fold()
    audio = torch.randn(2, 1, 5000) * 0.1
    with plain_layers():
        expected = model(audio)
    fast = speed_up(model)
    assert isinstance(fast.decoder, FastDecoder)
    assert (
        sum(isinstance(m, FastConv) for m in fast.modules()) == 2 * 3 * 2 * 2
    )  # stage, kernel, dilation, pair
    assert expected.square().mean() > 1e-4
    torch.testing.assert_close(fast(audio), expected, atol=1e-5, rtol=1e-4)
