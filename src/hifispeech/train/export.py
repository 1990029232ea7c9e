"""Export of a trained model to one ONNX file: weights, graph, configuration and card together."""

import json
from pathlib import Path

from hifispeech.errors import ModelError
from hifispeech.models.artefact import Weights, config_from_dict, load_strict
from hifispeech.models.fast.config import FastConfig
from hifispeech.models.fast.export import export_onnx
from hifispeech.models.fast.model import FastModel


def export(weights: Weights, path: Path, *, force: bool = False) -> Path:
    """Write `weights` as ONNX, and their card as JSON beside it.

    Raises:
        ModelError: `path` does not end in `.onnx`, or exists without `force`; the weights do not fit.
    """
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: an exported model ends in .onnx; choose such a name")
    if path.exists() and not force:
        raise ModelError(f"{path} exists; pass --force to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    if weights.kind == "fast":
        model = FastModel(config_from_dict(FastConfig, weights.config))
        load_strict(model, weights.tensors)
        export_onnx(model, path, weights.card)
    elif weights.kind == "hifisr":
        from hifispeech.models import hifisr

        paper = hifisr.HiFiSR(config_from_dict(hifisr.HiFiSRConfig, weights.config))
        load_strict(paper, weights.tensors)
        hifisr.export_onnx(paper.fold(), path)
    elif weights.kind == "offline":
        from hifispeech.models.offline.config import OfflineConfig
        from hifispeech.models.offline.export import export_onnx as export_offline
        from hifispeech.models.offline.network import OfflineNetwork

        network = OfflineNetwork(config_from_dict(OfflineConfig, weights.config))
        load_strict(network, weights.tensors)
        export_offline(network, path, weights.card)
    else:
        raise ModelError(f"a {weights.kind!r} model has no ONNX export")
    card = {"kind": weights.kind, **weights.card}
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return path
