"""A frame model in PyTorch gives the numbers of ONNX Runtime; which of them a GPU is given to."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hifispeech.audio.io.reader import read
from hifispeech.errors import ModelError
from hifispeech.infer import load
from hifispeech.infer.live.stream import Stream
from hifispeech.infer.onnx import FrameModel, open_session
from hifispeech.infer.upscaler import Upscaler

TOLERANCE = 1e-4  # of full scale


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What is said to have a GPU here: the packages themselves find none."""
    there = {"onnx": False, "torch": False}
    monkeypatch.setattr(load, "has_onnx_cuda", lambda: there["onnx"])
    monkeypatch.setattr(load, "has_torch_cuda", lambda: there["torch"])
    return there


def test_numbers_are_those_of_onnx_runtime(phone_clip: Path) -> None:
    pytest.importorskip("torch")
    from hifispeech.infer.pytorch import TorchFrameModel

    audio, rate = read(phone_clip)
    clip = audio[0, :rate]
    upscaler = Upscaler("fast", "cpu", threads=1)
    wanted = upscaler.process(clip, rate)
    upscaler.model = TorchFrameModel("fast", "cpu")
    assert np.abs(upscaler.process(clip, rate) - wanted).max() <= TOLERANCE
    streams = [
        Stream(rate, 1, model) for model in (TorchFrameModel("fast", "cpu"), FrameModel("fast", "cpu"))
    ]
    ours, theirs = (np.concatenate([s.push(clip[None, :4000]), s.flush()], axis=1) for s in streams)
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_cuda_is_pytorchs_where_onnx_runtime_has_none(
    gpus: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus["torch"] = True
    monkeypatch.setattr(load, "TorchFrameModel", lambda *given: given)
    chosen: Any = load.open_model("fast", "cuda")
    assert chosen == ("fast", "cuda")
    assert isinstance(load.open_model("fast", "auto"), FrameModel), "auto imports no PyTorch"


def test_a_session_that_fell_back_to_the_cpu_is_not_taken_for_cuda(
    gpus: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime does that with no more than a log line where it does not find the CUDA libraries."""
    gpus["onnx"] = True
    on_cpu = open_session("fast", "cpu", 1)
    monkeypatch.setattr(load, "open_session", lambda *_: on_cpu)
    with pytest.raises(ModelError, match="finds no GPU or not its CUDA libraries"):
        load.open_model("fast", "cuda")
    gpus["torch"] = True
    monkeypatch.setattr(load, "TorchFrameModel", lambda *given: given)
    chosen: Any = load.open_model("fast", "cuda")
    assert chosen == ("fast", "cuda")


def test_without_any_the_error_names_both(gpus: dict[str, bool]) -> None:
    with pytest.raises(ModelError, match=r"no CUDA; pip install onnxruntime-gpu.*hifispeech\[train\]"):
        Upscaler(device="cuda")


def test_missing_pytorch_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not load.has_torch_cuda()
