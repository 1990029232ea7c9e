"""One file per trained model: weights and JSON config in a `.safetensors`, with a SHA-256. Never pickle.

Every model of the package is saved and loaded here, so a damaged, foreign or half-matching file is refused in
one place. Needs PyTorch (`pip install "hifispeech[train]"`); the ONNX runtime never imports this module.
"""

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hifispeech.errors import ModelError
from hifispeech.files import atomic_path

FORMAT = "hifispeech/1"
Config = TypeVar("Config")
_LISTED = 5  # names shown of each kind of mismatch; a wrong file has hundreds


@dataclass(frozen=True)
class Artefact:
    """A model file in memory: its kind, its config as JSON data, its tensors and the checksum."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    sha256: str
    notes: dict[str, str]


@dataclass(frozen=True)
class Weights:
    """Weights to start from or to export. `config` is the model's, `card` what is known of their training."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    card: dict[str, Any] = field(default_factory=dict)


def save_artefact(
    path: str | Path,
    kind: str,
    config: Any,
    tensors: Mapping[str, Tensor],
    *,
    notes: Mapping[str, str] | None = None,
    force: bool = False,
) -> str:
    """Write a model file atomically and return its checksum.

    Args:
        path: ends in `.safetensors`.
        kind: name of the model family, such as "hifisr"; `load_artefact` compares it.
        config: a dataclass of plain values, or JSON data.
        tensors: the state dict; tensors sharing memory are stored apart.
        notes: free text to keep with the weights (source, licence, training command).
        force: replace an existing file.

    Raises:
        ModelError: if `path` has another suffix, or exists and `force` is false.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: a model file ends in .safetensors; choose such a name")
    if path.exists() and not force:
        raise ModelError(f"{path} exists; pass force to replace it")
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    config_json = json.dumps(config_to_dict(config) if is_dataclass(config) else config, sort_keys=True)
    digest = checksum(kind, config_json, plain)
    metadata = {"format": FORMAT, "kind": kind, "config": config_json, "sha256": digest}
    metadata["notes"] = json.dumps(dict(notes or {}), sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)
    return digest


def load_artefact(path: str | Path, kind: str | None = None) -> Artefact:
    """Read and verify a model file written by `save_artefact`; tensors land on the CPU.

    Raises:
        ModelError: no such file, not one of ours, another `kind` than asked for, or a checksum that does not
            match.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a readable .safetensors file ({error}); fetch or convert it again"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path}: format {metadata.get('format')!r}, this version reads {FORMAT!r}; "
            "convert foreign weights with `hifispeech convert`"
        )
    if kind is not None and metadata["kind"] != kind:
        raise ModelError(f"{path} holds a {metadata['kind']!r} model, {kind!r} is needed; pass another file")
    if checksum(metadata["kind"], metadata["config"], tensors) != metadata["sha256"]:
        raise ModelError(f"{path} is damaged: its SHA-256 does not match; fetch or convert it again")
    notes = json.loads(metadata.get("notes", "{}"))
    return Artefact(metadata["kind"], json.loads(metadata["config"]), tensors, metadata["sha256"], notes)


def read_kind(path: str | Path) -> str:
    """The kind of model in a file of `save_artefact`; the tensors are not read.

    Raises:
        ModelError: no such file, or not one of ours.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"{path} is not a readable .safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path}: no model of hifispeech; convert foreign weights with `hifispeech convert`")
    return metadata["kind"]


def checksum(kind: str, config_json: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over kind, config and every tensor (name, type, shape, bytes) in the order of the names."""
    digest = hashlib.sha256(f"{kind}\n{config_json}\n".encode())
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str = "weights") -> None:
    """Load `tensors` into `module`: every name used, none missing, every shape right.

    Raises:
        ModelError: naming the first few tensors that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    problems = _named("missing", sorted(own.keys() - tensors.keys()))
    problems += _named("unknown", sorted(tensors.keys() - own.keys()))
    shapes = [
        f"{key} {list(tensors[key].shape)} instead of {list(own[key].shape)}"
        for key in sorted(own.keys() & tensors.keys())
        if tensors[key].shape != own[key].shape
    ]
    problems += _named("of another shape", shapes)
    if problems:
        raise ModelError(f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(dict(tensors), strict=True)


def _named(what: str, names: list[str]) -> list[str]:
    """`["3 missing: a, b, c"]`, shortened, or nothing when `names` is empty."""
    if not names:
        return []
    more = ", ..." if len(names) > _LISTED else ""
    return [f"{len(names)} {what}: {', '.join(names[:_LISTED])}{more}"]


def config_to_dict(config: Any) -> dict[str, Any]:
    """A (nested) config dataclass as JSON data."""
    return json.loads(json.dumps(asdict(config)))


def config_from_dict(cls: type[Config], data: Mapping[str, Any]) -> Config:
    """The inverse of `config_to_dict`; an unknown or missing name or a value of the wrong type is an error.

    Raises:
        ModelError: naming the field, its value and what is allowed.
    """
    return _parse(cls, data, cls.__name__)


def _parse(hint: Any, value: Any, where: str) -> Any:
    """Turn JSON data into the type `hint`: dataclasses, tuples, optionals, literals and plain values."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return _parse_dataclass(hint, value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _parse(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(hints) == len(value):
            return tuple(
                _parse(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True))
            )
    if origin is typing.Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python, but `true` for a size is a mistake in a config.
    if (
        isinstance(hint, type)
        and origin is None
        and isinstance(value, hint)
        and (hint is bool) == isinstance(value, bool)
    ):
        return value
    raise ModelError(f"{where}={value!r} is not of type {hint}; correct the config")


def _parse_dataclass(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}={value!r} must be a mapping of names to values")
    names = [field.name for field in fields(cls)]
    if unknown := sorted(set(value) - set(names)):
        raise ModelError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(names)}")
    hints = typing.get_type_hints(cls)
    parsed = {name: _parse(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return cls(**parsed)
    except TypeError as error:  # a field without default is missing
        raise ModelError(f"{where}: {error}") from error
