"""The rearranged layers are those of PyTorch: outputs, gradients, weights, and what is left as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from hifispeech.models.conv import Conv1d, ConvTranspose1d, plain_layers
from hifispeech.models.hifisr.decoder import Snake
from hifispeech.train.losses.discriminators import Discriminators, small_discriminators


def results(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and the gradients of input and weights, for one upstream gradient."""
    x = x.clone().requires_grad_()
    y = layer(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad((y * upstream).sum(), [x, *layer.parameters()])]


def assert_same(layer: nn.Module, x: Tensor) -> None:
    ours = results(layer, x)
    with plain_layers():
        expected = results(layer, x)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@settings(deadline=None)
@given(
    groups=st.sampled_from([1, 2, 3]),
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.integers(0, 5),
    time=st.integers(25, 60),
    bias=st.booleans(),
)
def test_equals_pytorch_for_any_geometry(
    groups: int,
    widths: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    padding: int,
    time: int,
    bias: bool,
) -> None:
    torch.manual_seed(0)
    narrow, wide = (groups * width for width in widths)
    layer = Conv1d(narrow, wide, kernel, stride, padding, dilation, groups, bias=bias).double()
    assert_same(layer, torch.randn(2, narrow, time, dtype=torch.float64))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.integers(1, 20))
def test_transposed_equals_pytorch(width: int, stride: int, padding: int, time: int) -> None:
    torch.manual_seed(0)
    layer = ConvTranspose1d(width, 2, 2 * stride + 2 * padding, stride, padding).double()
    assert_same(layer, torch.randn(2, width, time, dtype=torch.float64))


@pytest.mark.parametrize("normed", [weight_norm, spectral_norm])
def test_normalised_weights_are_used(normed: object) -> None:
    torch.manual_seed(0)
    layer = normed(Conv1d(4, 8, 5, 2, 2, groups=2)).eval().double()  # type: ignore[operator]
    assert_same(layer, torch.randn(2, 4, 30, dtype=torch.float64))


def test_is_what_pytorch_has_where_it_is_asked_for() -> None:
    """The same weights under the same names; in `plain_layers` and in an exported graph its operator."""
    torch.manual_seed(0)
    ours, theirs = Conv1d(4, 8, 5, 2, 2, groups=2), nn.Conv1d(4, 8, 5, 2, 2, groups=2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 33)
    with plain_layers():
        assert torch.equal(ours(x), theirs(x))
    graph = torch.export.export(ours, (x,)).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.conv1d.default
    ]
    assert ours(x[0]).shape == (8, 17)  # without a batch, as PyTorch allows


def test_channels_stay_innermost_through_activations() -> None:
    y = Conv1d(4, 6, 3, padding=1)(torch.randn(2, 4, 40))
    for value in (y, Snake(6)(y), nn.functional.leaky_relu(y), y + y):
        assert value.stride(1) == 1


def test_discriminators_judge_alike() -> None:
    torch.manual_seed(0)
    network = Discriminators(small_discriminators()).eval()
    audio = torch.randn(2, 1, 4096)
    ours = network(audio)
    with plain_layers():
        theirs = network(audio)
    for name, judged in ours.items():
        torch.testing.assert_close(judged.logits, theirs[name].logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(judged.features, theirs[name].features, atol=1e-4, rtol=1e-4)


def test_snake_has_the_right_derivatives() -> None:
    """Against finite differences, and against what autograd makes of the formula."""
    torch.manual_seed(0)
    snake = Snake(3).double()
    nn.init.uniform_(snake.alpha, 0.2, 3.0)
    x = torch.randn(2, 3, 20, dtype=torch.float64)
    assert torch.autograd.gradcheck(snake, x.clone().requires_grad_())
    ours = results(snake, x)
    with plain_layers():
        expected = results(snake, x)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-7)
