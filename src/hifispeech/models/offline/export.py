"""Export of the offline model to ONNX: half-precision weights, graph, configuration and card in one file."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hifispeech.audio.bands import BANDS
from hifispeech.files import atomic_path
from hifispeech.models.artefact import config_to_dict
from hifispeech.models.offline.network import OfflineNetwork, whole
from hifispeech.weights.packaged import KIND_KEY, OFFLINE_FORMAT, OFFLINE_FRAMES, OFFLINE_KIND

OPSET = 20
HALF_FROM = 1024  # initialisers with fewer numbers stay in float32


class _WholeEnvelope(nn.Module):
    """What is exported: the envelope with its floor."""

    def __init__(self, network: OfflineNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, logs: Tensor, first_band: Tensor, noise: Tensor) -> Tensor:
        speech, floor, _ = self.network(logs, first_band, noise)
        return whole(speech, floor)


def export_onnx(model: OfflineNetwork, path: Path, card: dict[str, Any] | None = None) -> Path:
    """Write `model` as ONNX: `logs`, `first_band`, `noise` in, `envelope` out, for 16 frames and more.

    `card` (training data, licence, steps) is stored in the file's metadata beside the configuration.
    """
    import onnx

    model = model.eval()
    time = 64
    inputs = (
        torch.randn(1, time, BANDS),
        torch.full((1, time), 40.0),
        torch.randn(1, time, model.config.noise),
    )
    frames = torch.export.Dim("frames", min=16, max=OFFLINE_FRAMES)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _WholeEnvelope(model),
            inputs,
            dynamo=True,
            dynamic_shapes=({1: frames}, {1: frames}, {1: frames}),
            input_names=["logs", "first_band", "noise"],
            output_names=["envelope"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    store_half(proto)
    forget_origin(proto)
    meta = {"format": OFFLINE_FORMAT, "model": config_to_dict(model.config), "card": card or {}}
    onnx.helper.set_model_props(proto, {"hifispeech": json.dumps(meta), KIND_KEY: OFFLINE_KIND})
    with atomic_path(path) as temporary:
        onnx.save_model(proto, temporary)
    return path


def forget_origin(proto: Any) -> None:
    """Remove what the exporter notes of the machine: stack traces with its paths."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]


def store_half(proto: Any) -> None:
    """Store large float32 initialisers as float16, each with a cast back, which is folded on loading."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph, casts = proto.graph, []
    for initialiser in graph.initializer:
        values = numpy_helper.to_array(initialiser)
        if values.dtype != np.float32 or values.size < HALF_FROM:
            continue
        name = initialiser.name
        initialiser.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
