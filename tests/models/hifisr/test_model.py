"""The paper's network: parity with the release at full size, and the properties its callers rely on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from hifispeech.errors import ModelError
from hifispeech.models.artefact import config_from_dict, config_to_dict
from hifispeech.models.hifisr import (
    HIFISR_CONFIGS,
    DecoderConfig,
    EncoderConfig,
    HiFiSR,
    HiFiSRConfig,
    LogMel,
    MelConfig,
    count_parameters,
    export_onnx,
    hifisr_small,
    load_hifisr,
    mel_filterbank,
    save_hifisr,
)
from hifispeech.models.hifisr.encoder import GatedAttention, Rotary, ScaleNorm
from hifispeech.models.hifisr.mel import hz_to_mel, mel_to_hz

TOLERANCE = 1e-4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


# --- parity with the release, at full size


def test_mel_parity(release_vectors: dict[str, np.ndarray]) -> None:
    audio = (np.random.RandomState(1).standard_normal(24001) * 0.1).astype("float32")
    mel = LogMel(MelConfig())(torch.from_numpy(audio)[None, None]).numpy()
    np.testing.assert_allclose(mel, release_vectors["mel_of_noise"], atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [37, 300])
@torch.no_grad()
def test_encoder_parity(paper_model: HiFiSR, release_vectors: dict[str, np.ndarray], frames: int) -> None:
    latent = paper_model.encoder(torch.from_numpy(release_vectors[f"mel_{frames}"]))
    np.testing.assert_allclose(latent.numpy(), release_vectors[f"latent_{frames}"], atol=TOLERANCE)


@pytest.mark.slow
@torch.no_grad()
def test_decoder_parity(paper_model: HiFiSR, release_vectors: dict[str, np.ndarray]) -> None:
    wave = paper_model.decoder(torch.from_numpy(release_vectors["latent_37"]))
    np.testing.assert_allclose(wave.numpy(), release_vectors["wave_37"], atol=TOLERANCE)


def test_parameter_counts(release_shapes: dict) -> None:
    with torch.device("meta"):
        model = HiFiSR()
    encoder, decoder = count_parameters(model.encoder), count_parameters(model.decoder)
    # The release stores 640 constants (positions, and the rotary table once per layer) beside its parameters.
    constants = ("pos_enc.inv_freq", "rotary_pos_emb.freqs")
    counted = {
        part: sum(int(np.prod(shape)) for key, shape in keys.items() if not key.endswith(constants))
        for part, keys in release_shapes.items()
    }
    assert (encoder, decoder) == (counted["mossformer"], counted["generator"]) == (54_497_026, 55_150_402)
    assert [round(n / 1e6, 1) for n in (encoder, decoder, encoder + decoder)] == [54.5, 55.2, 109.6]


def test_small_has_about_four_million_parameters() -> None:
    model = HiFiSR(hifisr_small())
    assert 3.5e6 < count_parameters(model) < 4.5e6


# --- configuration


@pytest.mark.parametrize("name", HIFISR_CONFIGS)
def test_config_survives_json(name: str) -> None:
    config = HIFISR_CONFIGS[name]()
    assert config_from_dict(HiFiSRConfig, json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": {"depht": 3}}, "depht"),
        ({"encoder": {"depth": "3"}}, "depth"),
        ({"encoder": {"depth": True}}, "depth"),
        ({"decoder": {"rates": [8, 8.5]}}, "rates"),
        ({"decoder": 7}, "decoder"),
    ],
)
def test_config_refuses_what_it_does_not_know(change: dict, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        config_from_dict(HiFiSRConfig, change)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HiFiSRConfig(decoder=DecoderConfig(rates=(8, 8, 2), rate_kernels=(16, 16, 4))),
        lambda: DecoderConfig(rates=(8,), rate_kernels=(16, 16)),
        lambda: DecoderConfig(rate_kernels=(15, 16, 4, 4)),
        lambda: DecoderConfig(width=100),
        lambda: EncoderConfig(kernel=16),
        lambda: EncoderConfig(rotary=256),
        lambda: MelConfig(f_max_hz=30000.0),
        lambda: MelConfig(n_fft=128),
    ],
)
def test_config_refuses_sizes_that_do_not_fit(make) -> None:
    with pytest.raises(ValueError):
        make()


# --- mel front end


def test_mel_scale_is_its_own_inverse_and_meets_slaneys_points() -> None:
    hz = np.linspace(0, 24000, 1001)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, atol=1e-8)
    np.testing.assert_allclose(hz_to_mel([0, 200, 1000, 6400]), [0, 3, 15, 42], atol=1e-12)


def test_mel_filters_have_equal_area() -> None:
    filters = mel_filterbank(48000, 16384, 40, 0.0, 24000.0)
    np.testing.assert_allclose(filters.sum(axis=1) * 48000 / 16384, 1.0, rtol=2e-3)


def test_mel_of_silence_has_a_finite_gradient() -> None:
    audio = torch.zeros(1, 1, 2048, requires_grad=True)
    LogMel(MelConfig())(audio).sum().backward()
    assert audio.grad is not None and torch.isfinite(audio.grad).all()


def test_mel_stays_float32_under_autocast() -> None:
    mel, audio = LogMel(MelConfig()), noise(1, 1, 4096)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = mel(audio)
    assert torch.equal(low, mel(audio))


# --- encoder


@pytest.mark.parametrize("frames", [1, 7, 16, 45])
@torch.no_grad()
def test_attention_equals_its_definition(frames: int) -> None:
    """Group by group, head by head, without any batching."""
    config = EncoderConfig(width=32, hidden=64, query_key=16, group=16, rotary=8)
    layer = GatedAttention(config).eval()
    heads, hidden = noise(2, frames, 4, 16), noise(2, frames, 64, seed=1)
    expected = torch.zeros_like(hidden)
    for b in range(2):
        local_q, global_q, local_k, global_k = heads[b].unbind(1)
        for start in range(0, frames, 16):
            rows = slice(start, min(start + 16, frames))
            scores = torch.relu(local_q[rows] @ local_k[rows].T / 16) ** 2
            expected[b, rows] = scores @ hidden[b, rows]
        for i in range(frames):
            for j in range(frames):
                expected[b, i] += (global_q[i] @ global_k[j]) * hidden[b, j] / frames
    torch.testing.assert_close(layer._attend(heads, hidden), expected, atol=1e-6, rtol=1e-5)


def test_rotary_products_depend_on_distance_only() -> None:
    rotary, x = Rotary(8), noise(1, 1, 1, 16).expand(1, 20, 1, 16)
    turned = Rotary.rotate(x, *rotary.angles(20))[0, :, 0]
    products = turned @ turned.T
    torch.testing.assert_close(products[0, :15], products[5, 5:], atol=1e-6, rtol=0)
    torch.testing.assert_close(turned[:, 8:], x[0, :, 0, 8:])


def test_scale_norm_of_zeros_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 3, 8, requires_grad=True)
    ScaleNorm()(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


# --- the whole network


@pytest.mark.parametrize("samples", [1, 200, 385, 512, 4096, 5001])
@torch.no_grad()
def test_length_is_kept(tiny_model: HiFiSR, samples: int) -> None:
    out = tiny_model(noise(1, 1, samples))
    assert out.shape == (1, 1, samples)
    assert torch.isfinite(out).all()


def test_wrong_shape_is_refused(tiny_model: HiFiSR) -> None:
    for shape in [(1, 4096), (1, 2, 4096), (1, 1, 0)]:
        with pytest.raises(ValueError, match="batch, 1, time"):
            tiny_model(torch.zeros(shape))


@torch.no_grad()
def test_batch_equals_single(tiny_model: HiFiSR) -> None:
    audio = noise(3, 1, 6000)
    single = torch.cat([tiny_model(row[None]) for row in audio])
    torch.testing.assert_close(tiny_model(audio), single, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_fold_keeps_the_output(tiny_model: HiFiSR) -> None:
    audio = noise(1, 1, 6000)
    before = tiny_model(audio)
    folded = tiny_model.train().fold()
    assert not any(parametrize.is_parametrized(m) for m in folded.modules())
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())
    torch.testing.assert_close(folded(audio), before, atol=1e-6, rtol=1e-5)


def test_every_parameter_learns(tiny_model: HiFiSR) -> None:
    tiny_model.train()(noise(2, 1, 8192)).square().mean().backward()
    idle = [name for name, p in tiny_model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_silence_trains_without_nan(tiny_model: HiFiSR) -> None:
    tiny_model.train()(torch.zeros(1, 1, 4096)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in tiny_model.parameters() if p.grad is not None)


@torch.no_grad()
def test_bfloat16_autocast_stays_close(tiny_model: HiFiSR) -> None:
    audio = noise(1, 1, 8192)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = tiny_model(audio)
    exact = tiny_model(audio)
    assert low.dtype == torch.float32
    assert (low - exact).square().mean() < 0.01 * exact.square().mean()


@torch.no_grad()
def test_save_and_load(tiny_model: HiFiSR, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_hifisr(tiny_model, path, notes={"source": "test"})
    again, audio = load_hifisr(path), noise(1, 1, 4000)
    assert again.config == tiny_model.config
    assert torch.equal(again(audio), tiny_model(audio))


def test_a_folded_model_is_not_saved(tiny_model: HiFiSR, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="folded"):
        save_hifisr(tiny_model.fold(), tmp_path / "model.safetensors")


# --- ONNX


def test_export_needs_a_folded_model(tiny_model: HiFiSR, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="fold"):
        export_onnx(tiny_model, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@torch.no_grad()
def test_onnx_equals_torch_at_unseen_lengths(tiny_model: HiFiSR, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model, path = tiny_model.fold(), tmp_path / "model.onnx"
    export_onnx(model, path, frames=20)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert config_from_dict(HiFiSRConfig, json.loads(metadata["hifispeech.config"])) == model.config
    for batch, frames in [(1, 2), (1, 16), (3, 37), (1, 301)]:  # traced with 2 x 20
        audio = noise(batch, 1, frames * 256, seed=frames)
        (out,) = session.run(None, {"audio": audio.numpy()})
        np.testing.assert_allclose(out, model.whole_hops(audio).numpy(), atol=TOLERANCE)
