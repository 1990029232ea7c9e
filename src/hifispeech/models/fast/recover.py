"""Weights back from an exported ONNX file, so that the packaged model can be trained further.

The exporter keeps the names of the parameters, except of matrix products: there the transposed weight is a
constant, and the bias added to the product names the layer.
"""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hifispeech.errors import ModelError
from hifispeech.models.artefact import Weights, config_from_dict, load_strict
from hifispeech.models.fast.config import FastConfig
from hifispeech.models.fast.model import FastModel


def recover(content: bytes, source: str) -> Weights:
    """Weights of an ONNX file made by `hifispeech export` from a frame model.

    Raises:
        ModelError: if a parameter is missing or of another shape, or the file is no such model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_model_from_string(content)
        meta = {entry.key: entry.value for entry in graph.metadata_props}
        stored = json.loads(meta["hifispeech"])
    except (DecodeError, KeyError, ValueError) as error:
        raise ModelError(f"{source} is not a frame model made by `hifispeech export`") from error
    model = FastModel(config_from_dict(FastConfig, stored["model"]))
    tensors = {
        name: value for name, value in named_weights(graph.graph).items() if name in model.state_dict()
    }
    load_strict(model, tensors, source)
    return Weights("fast", stored["model"], tensors, stored.get("card", {}))


def named_weights(graph: Any) -> dict[str, Tensor]:
    """Initialisers of an ONNX graph by parameter name, matrix products as the `weight` of their layer."""
    from onnx import numpy_helper

    values = {item.name: np.array(numpy_helper.to_array(item)) for item in graph.initializer}
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in values
    }
    found = dict(values)
    for node in graph.node:
        for product, bias in (node.input, reversed(node.input)) if node.op_type == "Add" else ():
            if product in products and bias.endswith(".bias"):
                found[bias.removesuffix("bias") + "weight"] = values[products[product]].T
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}
