"""Convolution by short Fourier transforms equals the direct one."""

import pytest
import torch
from torch import nn

from hifispeech.models.hifisr import DecoderConfig, EncoderConfig, HiFiSR, HiFiSRConfig
from hifispeech.models.hifisr.fast_conv import TILE, FastConv, speed_up, transforms


def test_transforms_multiply_polynomials() -> None:
    """Exact in float64, for one tile against the sum it stands for."""
    generator = torch.Generator().manual_seed(1)
    for kernel in (3, 7, 11):
        x = torch.randn(TILE, generator=generator, dtype=torch.float64)
        w = torch.randn(kernel, generator=generator, dtype=torch.float64)
        signal, weight, output = transforms(kernel)
        expected = torch.stack([(x[i : i + kernel] * w).sum() for i in range(TILE - kernel + 1)])
        torch.testing.assert_close(output.T @ ((signal @ x) * (weight @ w)), expected)
        # Three multiplications for each frequency but the first and the last.
        assert len(signal) == len(weight) == len(output) == 3 * TILE // 2 - 1


@pytest.mark.parametrize("kernel", [5, 7, 11])
@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("time", [1, 26, 500, 1003])
@torch.no_grad()
def test_equals_the_direct_convolution(kernel: int, dilation: int, time: int) -> None:
    torch.manual_seed(time)
    conv = nn.Conv1d(6, 6, kernel, dilation=dilation, padding=dilation * (kernel // 2))
    x = torch.randn(2, 6, time)
    torch.testing.assert_close(FastConv(conv)(x), conv(x), atol=2e-6, rtol=1e-4)


@torch.no_grad()
def test_whole_network() -> None:
    torch.manual_seed(0)
    encoder = EncoderConfig(depth=1, width=16, hidden=32, query_key=16, rotary=8, kernel=3, fsmn_width=8)
    decoder = DecoderConfig(width=512, rates=(16, 16), rate_kernels=(32, 32), block_dilations=(1, 3))
    model = HiFiSR(HiFiSRConfig(encoder=encoder, decoder=decoder))
    for name, value in model.named_parameters():
        if name.endswith("original0"):
            value.fill_(0.8)
    model.fold()
    audio = torch.randn(1, 1, 5000) * 0.1
    expected = model(audio)
    fast = speed_up(model)
    replaced = [m for m in fast.modules() if isinstance(m, FastConv)]
    assert len(replaced) == 2 * 2 * 2 * 2  # stages, kernels 7 and 11, dilations, convolutions each
    assert expected.square().mean() > 1e-4
    torch.testing.assert_close(fast(audio), expected, atol=1e-5, rtol=1e-4)
