"""The ClearerVoice converter and the model file it writes: strict, safe, and exact."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hifispeech.audio.io.reader import read
from hifispeech.audio.spectral import stft
from hifispeech.cli import app
from hifispeech.errors import ModelError
from hifispeech.models.artefact import load_artefact, load_strict, save_artefact
from hifispeech.models.hifisr import HiFiSR, HiFiSRConfig, hifisr_paper, load_hifisr
from hifispeech.models.hifisr.convert import convert_clearvoice, load_clearvoice, our_names

Write = Callable[..., Path]


@pytest.fixture
def convert(write_release: Write, tiny_config: HiFiSRConfig, tmp_path: Path) -> Callable[[dict], HiFiSR]:
    """Writes state dicts to disk, converts them and loads the result."""

    def run(states: dict) -> HiFiSR:
        output = tmp_path / "out.safetensors"
        convert_clearvoice(write_release(states), output, config=tiny_config)
        return load_hifisr(output)

    return run


# --- the key table


def test_every_key_of_the_release_has_its_place(release_shapes: dict) -> None:
    """All 929 + 311 keys are used, all of ours are filled, and shapes differ by axes of size 1 only."""
    with torch.device("meta"):
        own = HiFiSR().state_dict()
    theirs = {key: shape for keys in release_shapes.values() for key, shape in keys.items()}
    assert (len(release_shapes["mossformer"]), len(release_shapes["generator"])) == (929, 311)
    names = our_names(theirs, hifisr_paper())
    assert set(names.values()) == set(own)
    for key, shape in theirs.items():
        assert [n for n in shape if n != 1] == [n for n in own[names[key]].shape if n != 1], key
    shared = [key for key in theirs if key.endswith("rotary_pos_emb.freqs")]
    assert len(names) - len(set(names.values())) == len(shared) - 1


# --- conversion


@torch.no_grad()
def test_conversion_is_exact(tiny_release: dict, tiny_model: HiFiSR, convert: Callable) -> None:
    audio = torch.randn(1, 1, 5000) * 0.1
    model = convert(tiny_release)
    assert torch.equal(model(audio), tiny_model(audio))


def test_a_download_upscales_by_two_commands(
    tiny_release: dict,
    write_release: Write,
    tiny_config: HiFiSRConfig,
    phone_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`convert clearvoice`, then `upscale --model`, at a tiny size; above the edge is the band made."""
    monkeypatch.setattr("hifispeech.models.hifisr.convert.hifisr_paper", lambda: tiny_config)
    model, output = tmp_path / "hifisr-paper.safetensors", tmp_path / "out.wav"
    words = ["convert", "clearvoice", str(write_release(tiny_release)), "-o", str(model)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and f"{model}: sha256 " in done.output
    assert CliRunner().invoke(app, words).exit_code == 1  # never replaced unasked
    done = CliRunner().invoke(app, ["upscale", str(phone_clip), "-o", str(output), "--model", str(model)])
    assert done.exit_code == 0, done.output
    audio, rate = read(output)
    assert rate == 48000 and audio.shape == (1, 6 * read(phone_clip)[0].shape[1])
    spectrum = np.abs(stft(audio[0]))
    assert spectrum[:, 300:].mean() > 1e-5  # above 7 kHz, where 8 kHz audio has nothing


@torch.no_grad()
def test_files_are_found_without_the_index(
    tiny_release: dict, tiny_model: HiFiSR, write_release: Write, tiny_config: HiFiSRConfig, tmp_path: Path
) -> None:
    folder, output = write_release(tiny_release), tmp_path / "out.safetensors"
    (folder / "last_best_checkpoint").unlink()
    convert_clearvoice(folder, output, config=tiny_config)
    assert load_artefact(output).notes["files"] == "m_best.pt, g_best.pt"
    (folder / "g_other.pt").touch()
    with pytest.raises(ModelError, match=r"2 files match g_\*.pt"):
        convert_clearvoice(folder, tmp_path / "again.safetensors", config=tiny_config)


def test_data_parallel_prefix_is_accepted(tiny_release: dict, convert: Callable) -> None:
    convert(
        {part: {f"module.{key}": value for key, value in keys.items()} for part, keys in tiny_release.items()}
    )


@pytest.mark.parametrize("part", ["mossformer", "generator"])
def test_a_missing_key_is_named(tiny_release: dict, convert: Callable, part: str) -> None:
    key = next(key for key in tiny_release[part] if key.endswith("bias"))
    del tiny_release[part][key]
    with pytest.raises(ModelError, match=r"1 missing: .*bias"):
        convert(tiny_release)


def test_an_unknown_key_is_named(tiny_release: dict, convert: Callable) -> None:
    tiny_release["generator"]["resblocks.99.convs1.0.bias"] = torch.zeros(4)
    with pytest.raises(ModelError, match=r"resblocks\.99"):
        convert(tiny_release)


def test_a_wrong_shape_is_named(tiny_release: dict, convert: Callable) -> None:
    weight = tiny_release["generator"]["conv_pre.weight_v"]
    tiny_release["generator"]["conv_pre.weight_v"] = weight.transpose(0, 1).contiguous()
    with pytest.raises(ModelError, match=r"decoder\.enter.*instead of \[32, 80, 7\]"):
        convert(tiny_release)


def test_layers_must_share_one_rotary_table(tiny_release: dict, tiny_config: HiFiSRConfig) -> None:
    key = next(key for key in tiny_release["mossformer"] if "layers.1" in key and key.endswith("freqs"))
    tiny_release["mossformer"][key] = tiny_release["mossformer"][key] + 1
    with pytest.raises(ModelError, match="differs from its copy"):
        load_clearvoice(tiny_release["mossformer"], tiny_release["generator"], tiny_config)


def test_swapped_files_are_refused(tiny_release: dict, write_release: Write, tmp_path: Path) -> None:
    folder = write_release(tiny_release)
    (folder / "last_best_checkpoint").write_text("g_best.pt\nm_best.pt\n")
    with pytest.raises(ModelError, match="no state dict 'mossformer'"):
        convert_clearvoice(folder, tmp_path / "out.safetensors")


class _Evil:
    """Unpickling this without `weights_only` would make a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_does_not_run(tiny_release: dict, write_release: Write, tmp_path: Path) -> None:
    folder, trace = write_release(tiny_release), tmp_path / "ran"
    (folder / "m_best.pt").write_bytes(pickle.dumps({"mossformer": _Evil(trace)}, protocol=2))
    with pytest.raises(ModelError, match="plain tensors"):
        convert_clearvoice(folder, tmp_path / "out.safetensors")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 truncated"])
def test_a_broken_file_is_a_clear_error(
    tiny_release: dict, write_release: Write, tmp_path: Path, content: bytes
) -> None:
    folder = write_release(tiny_release)
    (folder / "m_best.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"m_best\.pt"):
        convert_clearvoice(folder, tmp_path / "out.safetensors")


def test_missing_files_are_clear_errors(tiny_release: dict, write_release: Write, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    with pytest.raises(ModelError, match="not a directory"):
        convert_clearvoice(tmp_path / "nowhere", output)
    folder = write_release(tiny_release)
    (folder / "g_best.pt").unlink()
    with pytest.raises(ModelError, match=r"g_best\.pt: no such file"):
        convert_clearvoice(folder, output)
    (folder / "last_best_checkpoint").write_text("m_best.pt\n")
    with pytest.raises(ModelError, match="names 1 files"):
        convert_clearvoice(folder, output)


def test_the_index_cannot_point_outside_the_folder(
    tiny_release: dict, write_release: Write, tmp_path: Path
) -> None:
    folder = write_release(tiny_release)
    (folder / "last_best_checkpoint").write_text("../m_else.pt\ng_best.pt\n")
    (tmp_path / "m_else.pt").touch()
    with pytest.raises(ModelError, match="no such file"):
        convert_clearvoice(folder, tmp_path / "out.safetensors")


# --- the model file


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_artefact(
        path, "test", {"size": 3}, {"a": torch.arange(3.0), "b": torch.ones((), dtype=torch.bfloat16)}
    )
    return path


def test_artefact_round_trip(saved: Path) -> None:
    artefact = load_artefact(saved, "test")
    assert artefact.config == {"size": 3}
    assert torch.equal(artefact.tensors["a"], torch.arange(3.0))
    assert artefact.tensors["b"].dtype == torch.bfloat16
    assert list(saved.parent.iterdir()) == [saved]


def test_artefact_detects_one_flipped_bit(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        load_artefact(saved)


def test_artefact_detects_a_changed_config(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(b'{\\"size\\": 3}', b'{\\"size\\": 4}'))
    with pytest.raises(ModelError, match="damaged"):
        load_artefact(saved)


def test_artefact_refuses_what_is_not_one(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        load_artefact(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="'other' is needed"):
        load_artefact(saved, "other")
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes(saved.read_bytes()[:-3])
    with pytest.raises(ModelError, match="not a readable"):
        load_artefact(truncated)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, truncated)
    with pytest.raises(ModelError, match="format None"):
        load_artefact(truncated)


def test_artefact_is_not_replaced_unasked(saved: Path) -> None:
    with pytest.raises(ModelError, match="force"):
        save_artefact(saved, "test", {}, {})
    save_artefact(saved, "test", {}, {"a": torch.ones(1)}, force=True)
    assert load_artefact(saved).config == {}
    with pytest.raises(ModelError, match="safetensors"):
        save_artefact(saved.with_suffix(".pt"), "test", {}, {})


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("hifispeech.models.artefact.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_artefact(tmp_path / "model.safetensors", "test", {}, {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_strict_load_lists_every_kind_of_mismatch() -> None:
    layer = torch.nn.Linear(2, 3)
    with pytest.raises(
        ModelError, match=r"1 missing: bias; 1 unknown: scale; 1 of another shape: weight \[2, 3\]"
    ):
        load_strict(layer, {"weight": torch.ones(2, 3), "scale": torch.ones(1)})
