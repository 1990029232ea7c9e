"""Export of the fast model to ONNX: weights, graph, configuration and card in one file."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from hifispeech.files import atomic_path
from hifispeech.models.artefact import config_to_dict
from hifispeech.models.fast.model import FastModel
from hifispeech.models.layers import EXPORT_FRAMES
from hifispeech.weights.packaged import FORMAT

STATE_PREFIX = "state_"
OPSET = 20
INT64 = 7  # ONNX's number of the type


def repeat_band(values: Any, first: Any, period: Any, count: Any) -> Any:
    """`models.layers.repeat_band` in ONNX: the period cut out, tiled, and cut to length."""
    from onnxscript import opset20

    op: Any = opset20  # its stubs know no constants among tensors
    last = op.Constant(value_ints=[-1])
    start, length = op.Cast(first, to=INT64), op.Cast(period, to=INT64)
    count = op.Reshape(count, last)
    one = op.Slice(values, start, op.Add(start, length), last)
    ones = op.Constant(value_ints=[1] * (len(values.shape) - 1))
    times = op.Div(op.Sub(op.Add(count, length), op.Constant(value_ints=[1])), length)
    repeated = op.Tile(one, op.Concat(ones, times, axis=0))
    return op.Slice(repeated, op.Constant(value_ints=[0]), count, last)


def export_onnx(model: FastModel, path: Path, card: dict[str, Any] | None = None) -> Path:
    """Write `model` as ONNX with dynamic time, batch 1 and one cutoff per call; every memory is an input
    `state_*` and an output `next_*`.

    `card` (training data, licence, steps) is stored in the file's metadata beside the configuration.
    """
    import onnx

    model = model.eval()
    c, time, cutoff = model.config, 16, 170
    state = model.initial_state(1)
    spectrum = torch.randn(1, c.look_ahead + time, 2, cutoff + c.pass_bins)
    noise = torch.randn(1, time, 2, c.bins - cutoff)
    inputs = (spectrum, noise, torch.full((1, 1), float(cutoff)), *state)
    names = model.state_names()
    frames = torch.export.Dim("frames", min=1, max=EXPORT_FRAMES)
    low = torch.export.Dim("low", min=1, max=c.bins)
    high = torch.export.Dim("high", min=1, max=c.bins)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            inputs,
            dynamo=True,
            dynamic_shapes=(
                {1: frames + c.look_ahead, 3: low},
                {1: frames, 3: high},
                {},
                tuple({} for _ in state),
            ),
            input_names=["spectrum", "noise", "cutoff_bin", *(STATE_PREFIX + n for n in names)],
            output_names=["generated", *("next_" + n for n in names)],
            opset_version=OPSET,
            custom_translation_table={torch.ops.hifispeech.repeat_band.default: repeat_band},
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    meta = {
        "format": FORMAT,
        "max_frames": EXPORT_FRAMES,
        "model": config_to_dict(model.config),
        "card": card or {},
    }
    onnx.helper.set_model_props(proto, {"hifispeech": json.dumps(meta)})
    with atomic_path(path) as temporary:
        onnx.save_model(proto, temporary)
    return path
