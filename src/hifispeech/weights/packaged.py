"""The packaged models: their files and cards, and the format that an exported file declares."""

import json
from collections.abc import Iterator
from pathlib import Path

from hifispeech.errors import ModelError

PACKAGED = ("offline", "fast")
DEFAULT = "offline"  # for files, arrays, folders, the service and corpora: it hears the whole recording
STREAMING = "fast"  # for streams: it works frame by frame
KIND_KEY = "hifispeech.kind"  # in the metadata of an exported file, unless it is a frame model
OFFLINE_KIND = "offline"
OFFLINE_FORMAT = 1  # of an offline model's graph: names, shapes and meaning of inputs and outputs
OFFLINE_FRAMES = 3840  # that an offline model hears at a time, at most: 41 s
FORMAT = 3  # of the graphs that `hifispeech export` writes: names, shapes and meaning of inputs and outputs


def read_model(model: str | Path) -> bytes:
    """The ONNX file of a packaged model's name, or of a path.

    Raises:
        ModelError: if there is no such name or file.
    """
    if str(model) in PACKAGED:
        from importlib.resources import as_file, files  # a sixth of what the command line takes to start

        with as_file(files("hifispeech.weights") / f"{model}.onnx") as path:
            return path.read_bytes()
    path = Path(model)
    if not path.is_file():
        raise ModelError(
            f"model {str(model)!r} not found; use one of {', '.join(PACKAGED)} or the path of an .onnx file"
        )
    return path.read_bytes()


def packaged_cards() -> Iterator[tuple[str, dict[str, object]]]:
    """Name and card (sizes, data, licence) of each packaged model."""
    from importlib.resources import files

    for name in PACKAGED:
        card = files("hifispeech.weights") / f"{name}.json"
        yield name, json.loads(card.read_text(encoding="utf-8"))
