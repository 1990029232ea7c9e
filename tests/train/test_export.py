"""ONNX = torch at unseen lengths, states included; the weights come back out of the file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from hifispeech.errors import ModelError
from hifispeech.infer.onnx import FrameModel
from hifispeech.models.artefact import Weights, config_to_dict, save_artefact
from hifispeech.models.fast.config import FastConfig
from hifispeech.models.fast.export import STATE_PREFIX
from hifispeech.models.fast.model import FastModel
from hifispeech.train.checkpoint import find_weights
from hifispeech.train.export import export

CONFIG = FastConfig(channels=16, blocks=2, memory_frames=(3.0, 50.0))


@pytest.fixture(scope="module")
def model() -> FastModel:
    torch.manual_seed(3)
    model = FastModel(CONFIG)
    for parameter in model.parameters():  # the head starts at nearly zero: nothing would be compared
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def exported(model: FastModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = {"steps": 7, "data": [{"source": "synthetic", "licence": "CC0"}]}
    weights = Weights("fast", config_to_dict(CONFIG), dict(model.state_dict()), card)
    return export(weights, tmp_path_factory.mktemp("onnx") / "model.onnx")


@torch.no_grad()
def test_onnx_equals_torch_at_unseen_lengths(model: FastModel, exported: Path) -> None:
    """Chunks of 1, 7, 33 and 128 frames (16 were traced), other cutoffs, every output and every state."""
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    names = model.state_names()
    state = list(model.initial_state(1))
    rng = np.random.default_rng(0)
    for time, edge in ((1, 250), (7, 250), (33, 80), (7, 1020), (128, 170)):
        low = min(edge + CONFIG.pass_bins, CONFIG.bins)
        shape = (1, CONFIG.look_ahead + time, 2, low)
        spectrum = torch.tensor(rng.standard_normal(shape) * 0.1, dtype=torch.float32)
        noise = torch.tensor(rng.standard_normal((1, time, 2, CONFIG.bins - edge)), dtype=torch.float32)
        cutoff = torch.full((1, 1), float(edge))
        outputs = model(spectrum, noise, cutoff, *state)
        feed = {"spectrum": spectrum.numpy(), "noise": noise.numpy(), "cutoff_bin": cutoff.numpy()}
        feed |= {STATE_PREFIX + n: s.numpy() for n, s in zip(names, state, strict=True)}
        results = session.run(None, feed)
        assert [o.name for o in session.get_outputs()] == ["generated", *(f"next_{n}" for n in names)]
        for name, ours, theirs in zip(["generated", *names], outputs, results, strict=True):
            tolerance = 1e-4 * float(ours.abs().max())
            np.testing.assert_allclose(
                np.asarray(theirs), ours.numpy(), atol=tolerance, rtol=1e-3, err_msg=name
            )
        state = list(outputs[1:])


@torch.no_grad()
def test_predicted_phase_is_exported(tmp_path: Path) -> None:
    """The other excitation: its angles are those of the high bins."""
    torch.manual_seed(4)
    config = replace(CONFIG, excitation="predicted")
    model = FastModel(config).eval()
    path = export(Weights("fast", config_to_dict(config), dict(model.state_dict())), tmp_path / "p.onnx")
    rng = np.random.default_rng(0)
    spectrum = rng.standard_normal((9, config.bins, 2)).astype(np.float32) @ np.array([1, 1j], np.complex64)
    runtime = FrameModel(path, threads=1)
    generated, _ = runtime.run(spectrum, 0, 300, runtime.initial_state())
    feed = {name: torch.from_numpy(value) for name, value in runtime.feed(spectrum, 0, 300).items()}
    expected, *_ = model(feed["spectrum"], feed["noise"], feed["cutoff_bin"], *model.initial_state(1))
    scale = float(expected.abs().max())
    np.testing.assert_allclose(generated.real, expected[0, :, 0].numpy(), atol=1e-4 * scale)
    np.testing.assert_allclose(generated.imag, expected[0, :, 1].numpy(), atol=1e-4 * scale)
    model.phase.bias[900] += 1.0
    turned, *_ = model(feed["spectrum"], feed["noise"], feed["cutoff_bin"], *model.initial_state(1))
    changed = (turned - expected).abs().amax(dim=(0, 1, 2)) > 1e-6 * scale
    assert changed.nonzero().flatten().tolist() == [900 - 300], "an angle turns its own bin"


def test_runtime_reads_the_export(exported: Path) -> None:
    model = FrameModel(exported, threads=1)
    spectrum = np.ones((5, CONFIG.bins), np.complex64)
    generated, state = model.run(spectrum, 0, 300, model.initial_state())
    assert generated.shape == (3, CONFIG.bins - 300) and np.isfinite(generated).all() and len(state) == 4
    full, _ = model.run(spectrum, 0, CONFIG.bins, state)  # full band: it listens on
    assert full.shape == (3, 1)


def test_graph_of_another_version_is_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load_model(exported)
    meta = json.loads(proto.metadata_props[0].value)
    onnx.helper.set_model_props(proto, {"hifispeech": json.dumps(meta | {"format": 2})})
    onnx.save_model(proto, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match="another version"):
        FrameModel(tmp_path / "old.onnx")


def test_weights_come_back_exactly(model: FastModel, exported: Path) -> None:
    found = find_weights(exported)
    assert found.kind == "fast" and found.config == config_to_dict(CONFIG)
    assert found.card["steps"] == 7
    own = model.state_dict()
    assert found.tensors.keys() == own.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in own.items())


def test_packaged_model_can_be_trained_further(repo_dir: Path) -> None:
    """`--init-from fast`: every parameter of the packaged ONNX is found (strict), with its shape."""
    if not (repo_dir / "src" / "hifispeech" / "weights" / "fast.onnx").is_file():
        pytest.skip("the packaged weights are not in this checkout")
    found = find_weights("fast")
    assert found.kind == "fast" and sum(t.numel() for t in found.tensors.values()) > 1e6


def test_card_lies_beside_the_model(exported: Path) -> None:
    card = json.loads(exported.with_suffix(".json").read_text())
    assert card == {"kind": "fast", "steps": 7, "data": [{"source": "synthetic", "licence": "CC0"}]}


def test_existing_file_and_wrong_suffix_are_refused(exported: Path, tmp_path: Path) -> None:
    weights = find_weights(exported)
    with pytest.raises(ModelError, match="--force"):
        export(weights, exported)
    with pytest.raises(ModelError, match=r"\.onnx"):
        export(weights, tmp_path / "model.bin")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.onnx", "a.pt", "a.safetensors"):
        path = tmp_path / name
        path.write_bytes(b"junk")
        with pytest.raises(ModelError):
            find_weights(path)
    with pytest.raises(ModelError, match="not found"):
        find_weights("fastest")


def test_other_projects_notes_become_the_card(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_artefact(path, "hifisr", {}, {"x": torch.zeros(1)}, notes={"licence": "Apache-2.0"})
    assert find_weights(path).card == {"licence": "Apache-2.0"}
