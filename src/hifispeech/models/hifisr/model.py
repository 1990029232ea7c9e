"""The paper's generator as one module, its file format and its ONNX export."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from hifispeech.errors import ModelError
from hifispeech.models.artefact import (
    config_from_dict,
    config_to_dict,
    load_artefact,
    load_strict,
    save_artefact,
)
from hifispeech.models.hifisr.config import HiFiSRConfig
from hifispeech.models.hifisr.decoder import Decoder
from hifispeech.models.hifisr.encoder import Encoder
from hifispeech.models.hifisr.mel import LogMel

KIND = "hifisr"
ONNX_CONFIG_KEY = "hifispeech.config"
ONNX_KIND_KEY = "hifispeech.kind"


class HiFiSR(nn.Module):
    """48 kHz audio with an empty upper band in, full band out.

    Shape: `[batch, 1, time]`, kept exactly: the end is filled up to whole hops with zeros and cut again.
    """

    def __init__(self, config: HiFiSRConfig | None = None) -> None:
        super().__init__()
        self.config = config or HiFiSRConfig()
        self.mel = LogMel(self.config.mel)
        self.encoder = Encoder(self.config.mel.n_mels, self.config.decoder.latent, self.config.encoder)
        self.decoder = Decoder(self.config.decoder)

    @property
    def min_samples(self) -> int:
        """Fewest samples (whole hops) the mel front end accepts; `forward` fills shorter audio up to it."""
        mel = self.config.mel
        return ((mel.n_fft - mel.hop) // 2 // mel.hop + 1) * mel.hop

    def forward(self, audio: Tensor) -> Tensor:
        time = audio.shape[-1]
        if audio.ndim != 3 or audio.shape[1] != 1 or time == 0:
            raise ValueError(
                f"audio of shape {list(audio.shape)}; pass [batch, 1, time] with at least one sample"
            )
        whole = max(time + -time % self.config.mel.hop, self.min_samples)
        return self.whole_hops(F.pad(audio, (0, whole - time)))[..., :time]

    def whole_hops(self, audio: Tensor) -> Tensor:
        """`forward` for audio of whole hops and at least `min_samples`: the part that is exported."""
        return self.decoder(self.encoder(self.mel(audio)))

    def fold(self) -> "HiFiSR":
        """Fold weight norm into plain weights, in place, and switch to evaluation. For inference only."""
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        return self.eval().requires_grad_(False)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters())


def save_hifisr(
    model: HiFiSR, path: str | Path, *, notes: dict[str, str] | None = None, force: bool = False
) -> str:
    """Write weights (with their weight norm, so training can go on) and config; returns the checksum.

    Raises:
        ModelError: if the model is folded, or for the reasons of `save_artefact`.
    """
    if not parametrize.is_parametrized(model.decoder.enter, "weight"):
        raise ModelError("the model is folded; save it before calling fold()")
    return save_artefact(path, KIND, model.config, model.state_dict(), notes=notes, force=force)


def load_hifisr(path: str | Path) -> HiFiSR:
    """Read a model of `save_hifisr` or the converter, in evaluation mode; call `.fold()` for inference.

    Raises:
        ModelError: not such a file, damaged, or of another layout.
    """
    artefact = load_artefact(path, KIND)
    model = HiFiSR(config_from_dict(HiFiSRConfig, artefact.config))
    load_strict(model, artefact.tensors, str(path))
    return model.eval()


class _Exported(nn.Module):
    """Gives `torch.onnx.export` a forward without Python branches on the length."""

    def __init__(self, model: HiFiSR) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor) -> Tensor:
        return self.model.whole_hops(audio)


def export_onnx(model: HiFiSR, path: str | Path, *, frames: int = 300) -> None:
    """Write the folded model as ONNX: `audio` `[batch, 1, time]` to `wideband` of the same shape.

    The caller fills the end up to whole hops (at least `min_samples`) and cuts it again. Config and kind are
    in the file's metadata. `frames` is the length of the example that is traced; it does not bind the result.

    Raises:
        ModelError: if `fold` has not been called.
    """
    import onnx

    if model.training or parametrize.is_parametrized(model.decoder.enter, "weight"):
        raise ModelError("export_onnx needs a folded model; call model.fold() first")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    hop = model.config.mel.hop
    example = torch.randn(2, 1, frames * hop) * 0.1
    count = torch.export.Dim("frames", min=4, max=1 << 20)
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024), 2: hop * count},)
    program = torch.onnx.export(
        _Exported(model).eval(),
        (example,),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["audio"],
        output_names=["wideband"],
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    config_json = json.dumps(config_to_dict(model.config), sort_keys=True)
    onnx.helper.set_model_props(proto, {ONNX_KIND_KEY: KIND, ONNX_CONFIG_KEY: config_json})
    onnx.save(proto, path)
