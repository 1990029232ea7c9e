"""What a run leaves on disk: resumable checkpoints (`.pt`), and where weights to start from or export lie.

`last.pt` holds the generator, its average, its optimiser and the step; other networks (discriminators, ten
times larger) lie in files of their own that it names, so that the small file can be moved alone.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from hifispeech.errors import ModelError
from hifispeech.files import atomic_file
from hifispeech.models.artefact import Weights, config_to_dict, load_artefact
from hifispeech.train.config import CONFIGS

FORMAT = 1
LAST, BEST = "last.pt", "best.safetensors"


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """`torch.save`, atomic: a crash or a full disk leaves the previous file whole."""
    with atomic_file(path, durable=True) as file:
        torch.save(dict(state), file)


def read_state(path: Path) -> dict[str, Any]:
    """Read a file of `write_state`, without running any code from it.

    Raises:
        ModelError: missing, damaged, or not a checkpoint.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; check the path")
    try:
        # Old pickles fail in a hundred ways; what `torch.save` writes is a zip file.
        state = torch.load(path, map_location="cpu", weights_only=True) if is_zipfile(path) else None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is not a checkpoint, or damaged; pass a {LAST} of `hifispeech train`"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise ModelError(f"{path} is not a checkpoint, or damaged; pass a {LAST} of `hifispeech train`")
    return state


def find_weights(source: str | Path, config: Any = None) -> Weights:
    """Weights by the name of a packaged model or from a `.pt`, `.safetensors` or `.onnx` file.

    Of a checkpoint, the averaged weights are taken. `config` (a training configuration) describes checkpoints
    that do not hold their own.

    Raises:
        ModelError: nothing of the kind, damaged, or not to be read back.
    """
    path = Path(source)
    if path.suffix == ".pt":
        return _checkpoint_weights(path, config)
    if path.suffix == ".safetensors":
        artefact = load_artefact(path)
        notes: dict[str, Any] = dict(artefact.notes)
        card = json.loads(notes["card"]) if "card" in notes else notes
        return Weights(artefact.kind, artefact.config, artefact.tensors, card)
    from hifispeech.models.fast.recover import recover
    from hifispeech.weights.packaged import read_model

    return recover(read_model(source), str(source))


def _checkpoint_weights(path: Path, config: Any) -> Weights:
    state = read_state(path)
    values = json.loads(state["config"]) if "config" in state else None
    if values is None:
        if config is None:
            raise ModelError(f"{path} holds no configuration; pass the one it was trained with (--config)")
        values = config_to_dict(config)
    card = json.loads(state["card"]) if "card" in state else {"steps": state["step"]}
    return Weights(CONFIGS[values["task"]].kind, values["model"], state["averaged"], card)


def side_file(folder: Path, name: str, step: int) -> Path:
    """File of another network than the generator at one step, apart from its predecessor."""
    return folder / f"{name}-{step:08d}.pt"


def remove_side_files(folder: Path, keep: set[str]) -> None:
    """Delete the files of `side_file` that no checkpoint names any more."""
    for path in folder.glob("*.pt"):
        if re.fullmatch(r"[a-z]+-\d{8}\.pt", path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
