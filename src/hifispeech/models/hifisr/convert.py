"""Weights of other projects to our model file. Needs PyTorch (`pip install "hifispeech[train]"`).

ClearerVoice-Studio's MossFormer2_SR_48K stores two pickled state dicts: `m_*.pt` ({"mossformer": ...}) and
`g_*.pt` ({"generator": ...}), named in that order by the text file `last_best_checkpoint`. They are read with
`weights_only=True` and translated by the tables below: every key must be used, and every shape must be right.
"""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hifispeech.errors import ModelError
from hifispeech.models.artefact import load_strict
from hifispeech.models.hifisr import HiFiSR, HiFiSRConfig, hifisr_paper, save_hifisr

INDEX = "last_best_checkpoint"
FILES = {"mossformer": "m_*.pt", "generator": "g_*.pt"}

# (their key, ours): `*` stands for a block number, kept in order. A pair ending in "." translates a prefix of
# keys. Tensors may lose axes of size 1 on the way (1x1 convolutions are our linear layers), nothing else.
_BODY = "mossformer.mdl.intra_mdl.mossformerM."
_CONV_PROJECTION = (
    ("mdl.1.", "linear."),
    ("mdl.3.sequential.1.conv.", "conv."),
)
_SCALE_NORM = (("mdl.0.g", "norm.gain"),)
_LAYER_NORM = (("mdl.0.", "norm."),)

ENCODER_KEYS: tuple[tuple[str, str], ...] = (
    ("mossformer.norm.", "encoder.norm_in."),
    ("mossformer.conv1d_encoder.", "encoder.enter."),
    ("mossformer.pos_enc.scale", "encoder.position.scale"),
    ("mossformer.pos_enc.inv_freq", "encoder.position.frequencies"),
    # One rotary table, stored once per layer by the release: all copies must agree.
    (_BODY + "layers.*.rotary_pos_emb.freqs", "encoder.rotary.frequencies"),
    (_BODY + "layers.*.qk_offset_scale.gamma", "encoder.attention.*.head_scale"),
    (_BODY + "layers.*.qk_offset_scale.beta", "encoder.attention.*.head_shift"),
    *(
        (f"{_BODY}layers.*.{name}.{theirs}", f"encoder.attention.*.{name}.{ours}")
        for name in ("to_hidden", "to_qk", "to_out")
        for theirs, ours in (*_SCALE_NORM, *_CONV_PROJECTION)
    ),
    (_BODY + "fsmn.*.conv1.0.", "encoder.fsmn.*.enter."),
    (_BODY + "fsmn.*.conv1.1.", "encoder.fsmn.*.activation."),
    (_BODY + "fsmn.*.norm1.", "encoder.fsmn.*.norm_in."),
    *(
        (f"{_BODY}fsmn.*.gated_fsmn.{name}.{theirs}", f"encoder.fsmn.*.{name}.{ours}")
        for name in ("to_u", "to_v")
        for theirs, ours in (*_LAYER_NORM, *_CONV_PROJECTION)
    ),
    (_BODY + "fsmn.*.gated_fsmn.fsmn.linear.", "encoder.fsmn.*.memory.linear."),
    (_BODY + "fsmn.*.gated_fsmn.fsmn.project.", "encoder.fsmn.*.memory.project."),
    (_BODY + "fsmn.*.gated_fsmn.fsmn.conv1.", "encoder.fsmn.*.memory.conv."),
    (_BODY + "fsmn.*.norm2.", "encoder.fsmn.*.norm_out."),
    (_BODY + "fsmn.*.conv2.", "encoder.fsmn.*.leave."),
    ("mossformer.mdl.intra_mdl.norm.", "encoder.norm."),
    ("mossformer.mdl.intra_norm.", "encoder.norm_out."),
    ("mossformer.prelu.", "encoder.activation."),
    ("mossformer.conv1d_out.", "encoder.mix."),
    ("mossformer.output.0.", "encoder.signal."),
    ("mossformer.output_gate.0.", "encoder.gate."),
    ("mossformer.conv1_decoder.", "encoder.leave."),
)


def decoder_keys(stages: int, blocks: int) -> tuple[tuple[str, str], ...]:
    """Table for the generator; the release numbers the residual blocks of all stages through."""
    table = [
        ("conv_pre.", "decoder.enter."),
        ("ups.*.", "decoder.stages.*.conv."),
        ("snakes.*.", "decoder.stages.*.snake."),
        ("snake_post.", "decoder.snake."),
        ("conv_post.", "decoder.leave."),
    ]
    for index in range(stages * blocks):
        ours = f"decoder.stages.{index // blocks}.blocks.{index % blocks}."
        table += [
            (f"resblocks.{index}.convs1.*.", ours + "dilated.*."),
            (f"resblocks.{index}.convs2.*.", ours + "plain.*."),
            (f"resblocks.{index}.convs1_activates.*.", ours + "snake_dilated.*."),
            (f"resblocks.{index}.convs2_activates.*.", ours + "snake_plain.*."),
        ]
    return tuple(table)


# Old-style weight norm (magnitude g, direction v) under the names of `torch.nn.utils.parametrizations`.
WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def convert_clearvoice(
    directory: str | Path, output: str | Path, *, force: bool = False, config: HiFiSRConfig | None = None
) -> str:
    """Convert a downloaded MossFormer2_SR_48K into `output` (.safetensors) and return the checksum.

    `config` describes a checkpoint of the same layout with other sizes; None means the release's own.

    Raises:
        ModelError: files missing or unreadable, a key unknown or missing, a shape wrong, or `output` exists.
    """
    directory = Path(directory)
    paths = find_checkpoints(directory)
    states = {kind: read_state_dict(path, kind) for kind, path in paths.items()}
    model = load_clearvoice(
        states["mossformer"], states["generator"], config or hifisr_paper(), str(directory)
    )
    notes = {
        "source": "ClearerVoice-Studio MossFormer2_SR_48K",
        "licence": "Apache-2.0",
        "files": ", ".join(path.name for path in paths.values()),
    }
    return save_hifisr(model, output, notes=notes, force=force)


def find_checkpoints(directory: Path) -> dict[str, Path]:
    """The encoder's and the decoder's file, as `last_best_checkpoint` names them or by their pattern.

    Raises:
        ModelError: if the directory does not hold exactly one of each.
    """
    if not directory.is_dir():
        raise ModelError(
            f"{directory} is not a directory; pass the folder of the downloaded MossFormer2_SR_48K"
        )
    index = directory / INDEX
    if index.is_file():
        names = index.read_text(encoding="utf-8").split()
        if len(names) != len(FILES):
            raise ModelError(
                f"{index} names {len(names)} files, {len(FILES)} are expected; download it again"
            )
        paths = {kind: directory / Path(name).name for kind, name in zip(FILES, names, strict=True)}
    else:
        paths = {}
        for kind, pattern in FILES.items():
            found = sorted(directory.glob(pattern))
            if len(found) != 1:
                raise ModelError(
                    f"{directory}: {len(found)} files match {pattern}, exactly one is needed "
                    f"(or a file {INDEX} naming the encoder's and the decoder's file)"
                )
            paths[kind] = found[0]
    for path in paths.values():
        if not path.is_file():
            raise ModelError(f"{path}: no such file, although {INDEX} names it; download it again")
    return paths


def read_state_dict(path: Path, kind: str) -> dict[str, Tensor]:
    """State dict under `kind` in a pickle of tensors, without running any code from the file.

    Raises:
        ModelError: not such a pickle, or no entry `kind`.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path} is not a checkpoint of plain tensors ({reason}); download it again"
        ) from error
    state = content.get(kind) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} has no state dict {kind!r}; is it another model than MossFormer2_SR_48K?")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_clearvoice(
    mossformer: Mapping[str, Tensor],
    generator: Mapping[str, Tensor],
    config: HiFiSRConfig,
    source: str = "checkpoint",
) -> HiFiSR:
    """A model with the weights of the release's two state dicts.

    Raises:
        ModelError: a key unknown or missing, a shape wrong, or copies of one value that differ.
    """
    model = HiFiSR(config)
    own = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for state in (mossformer, generator):
        for key, name in our_names(state, config).items():
            value = _shaped_like(own.get(name), state[key])
            if name in tensors and not torch.equal(tensors[name], value):
                raise ModelError(
                    f"{key} differs from its copy in another layer; download the checkpoint again"
                )
            tensors[name] = value
    load_strict(model, tensors, source)
    return model.eval()


def our_names(keys: Iterable[str], config: HiFiSRConfig) -> dict[str, str]:
    """The name in `HiFiSR.state_dict()` of each of the release's keys.

    Raises:
        ModelError: a key no row of the tables covers.
    """
    table = ENCODER_KEYS + decoder_keys(len(config.decoder.rates), len(config.decoder.block_kernels))
    rules = [(_compile(theirs), ours) for theirs, ours in table]
    return {key: _rename(key, rules) for key in keys}


def _compile(theirs: str) -> re.Pattern[str]:
    """Pattern of one table row: `*` is a number, a final "." leaves the rest of the key free."""
    pattern = re.escape(theirs).replace(r"\*", r"(\d+)")
    return re.compile(pattern + (r"(?P<rest>\w+)" if theirs.endswith(".") else ""))


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, ours in rules:
        if match := pattern.fullmatch(key):
            rest = match.groupdict().get("rest", "")
            numbers = iter(match.groups())
            name = "".join(next(numbers) if part == "*" else part for part in re.split(r"(\*)", ours))
            return name + WEIGHT_NORM.get(rest, rest)
    raise ModelError(f"unknown key {key!r}: this is not the layout of MossFormer2_SR_48K")


def _shaped_like(own: Tensor | None, value: Tensor) -> Tensor:
    """Drop axes of size 1 that our layer does not have; the strict load reports any other difference."""
    if own is None or [n for n in value.shape if n != 1] != [n for n in own.shape if n != 1]:
        return value
    return value.reshape(own.shape)
