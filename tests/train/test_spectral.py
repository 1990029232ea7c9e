"""The torch twin computes what `hifispeech.audio.spectral` computes."""

from typing import Literal

import numpy as np
import pytest
import torch

from hifispeech.audio import spectral as numpy_twin
from hifispeech.train import spectral as torch_twin


@pytest.mark.parametrize("samples", [1, 700, 1024, 4800, 10001])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_twins_agree(samples: int, pad_mode: Literal["reflect", "constant"]) -> None:
    audio = np.random.default_rng(samples).standard_normal((2, 3, samples))
    ours = torch_twin.stft(torch.from_numpy(audio), pad_mode=pad_mode)
    theirs = numpy_twin.stft(audio, pad_mode=pad_mode)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10)


@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 512), (512, 128), (1024, 256)])
def test_inverses_agree_and_invert(n_fft: int, hop: int) -> None:
    audio = np.random.default_rng(1).standard_normal((2, 9000))
    spectrum = numpy_twin.stft(audio, n_fft, hop)
    ours = torch_twin.istft(torch.from_numpy(spectrum), 9000, n_fft, hop).numpy()
    np.testing.assert_allclose(ours, numpy_twin.istft(spectrum, 9000, n_fft, hop), atol=1e-10)
    # The very end is covered by one frame's faint edge only where a whole number of hops fits.
    np.testing.assert_allclose(ours[:, : 9000 - hop], audio[:, : 9000 - hop], atol=1e-9)


def test_float32_is_kept() -> None:
    assert torch_twin.stft(torch.zeros(1, 4096)).dtype == torch.complex64
