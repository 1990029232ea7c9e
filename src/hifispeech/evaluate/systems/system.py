"""Systems to score, ours or not: models, baselines, folders of ready outputs, external programs.

`parse_systems` reads what `--systems` takes; a `System` is a plain description that travels to the worker
processes, `run` makes its output there. `digest` changes whenever the output could.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hifispeech.audio.io.reader import read
from hifispeech.audio.io.writer import write
from hifispeech.errors import AudioError, ModelError
from hifispeech.evaluate.systems import baselines
from hifispeech.evaluate.systems.command import Command, files_of
from hifispeech.infer.upscaler import Upscaler
from hifispeech.paths import AUDIO_SUFFIXES

RATE = 48000
BASELINES = {
    "resample": "soxr VHQ to 48 kHz, nothing above the input's band",
    "mirror": "the low band folded up around the cutoff until 24 kHz",
    "mirror12": "the same, falling by 12 dB per octave",
}
PACKAGE = Path(baselines.__file__).resolve().parents[2]

Audio = npt.NDArray[np.float32]


@dataclass(frozen=True)
class System:
    """One system: `label` in the tables, `kind` (model, baseline, folder, command), what it names."""

    label: str
    kind: str
    target: str
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Output:
    """What a system made of one input: audio `[channels, time]` at 48 kHz, and what that took if it ran.

    `costs` may hold `seconds` and, for commands, `peak_memory_mb`.
    """

    audio: Audio
    costs: dict[str, float]


def parse_systems(texts: Iterable[str], *, timeout_s: float = 600.0) -> list[System]:
    r"""Systems of one or more `--systems` arguments, each a list separated by commas (`\,` is a plain comma).

    `fast` or another packaged model, a `.onnx` or `.safetensors` file, `resample`, `mirror`, `mirror12`,
    `dir:PATH`, `cmd:PROGRAM {in} {out}`; `LABEL=` before one names it in the tables.

    Raises:
        ValueError: an unknown system, no placeholders in a command, or one label for two systems.
    """
    parts = [part.replace("\\,", ",") for text in texts for part in re.split(r"(?<!\\),", text)]
    systems = [_parse(part.strip(), timeout_s) for part in parts if part.strip()]
    if not systems:
        raise ValueError("no system to score; pass some, such as fast,resample,mirror")
    labels = [system.label for system in systems]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two systems are called {label!r}; name them, as in mine=dir:PATH")
    return systems


def _parse(text: str, timeout_s: float) -> System:
    named = re.match(r"([\w.+-]+)=(.+)", text)
    label, rest = (named[1], named[2]) if named else (None, text)
    if rest.startswith("cmd:"):
        command = Command.parse(rest[4:])
        return System(label or Path(command.words[0]).stem, "command", rest[4:], timeout_s)
    if rest.startswith("dir:"):
        return System(label or Path(rest[4:].split("{")[0]).resolve().name, "folder", rest[4:])
    if rest in BASELINES:
        return System(label or rest, "baseline", rest)
    path = Path(rest)
    if path.suffix in (".onnx", ".safetensors"):
        if not path.is_file():
            raise ModelError(f"{path}: no such model file; check the path")
        return System(label or path.stem, "model", rest)
    if re.fullmatch(r"[a-z][\w-]*", rest) and (PACKAGE / "weights" / f"{rest}.onnx").is_file():
        return System(label or rest, "model", rest)
    raise ValueError(
        f"unknown system {rest!r}; pass a packaged model such as fast, an .onnx or .safetensors file, "
        f"{', '.join(BASELINES)}, dir:PATH or cmd:'PROGRAM {{in}} {{out}}'"
    )


def run(system: System, low: Audio, rate: int, name: str, folder: Path) -> Output:
    """Output of a system for one low-rate input.

    Args:
        low: `[channels, time]` at `rate` hertz.
        name: path of the clip below its set's folder; `dir:` systems look for it.
        folder: an empty folder for the files of a command.

    Raises:
        AudioError: no output, an unreadable one, another sample rate, or a command that failed or hung.
        ModelError: a model that cannot be loaded.
    """
    if system.kind == "folder":
        path = find_output(Path(system.target), name, rate)
        return Output(_read_output(path), {})
    if system.kind == "command":
        source, target = folder / "in.wav", folder / "out.wav"
        write(source, low, rate, encoding="pcm_24")
        ran = Command.parse(system.target).run(source, target, rate, system.timeout_s)
        memory = {} if ran.peak_memory_mb is None else {"peak_memory_mb": round(ran.peak_memory_mb, 1)}
        return Output(_read_output(target), {"seconds": round(ran.seconds, 4), **memory})
    upscaler = _upscaler(system.target) if system.kind == "model" else None
    started = time.perf_counter()
    if upscaler is not None:
        audio = upscaler.process(low, rate)
    elif system.target == "resample":
        audio = baselines.resampled(low, rate)
    else:
        audio = baselines.mirrored(low, rate, slope_db=12.0 if system.target == "mirror12" else 0.0)
    return Output(audio, {"seconds": round(time.perf_counter() - started, 4)})


def check(system: System) -> None:
    """Load a model once, so that one that cannot be used is noticed before a run.

    Raises:
        ModelError, ImportError: as `Upscaler`.
    """
    if system.kind == "model":
        Upscaler(system.target, threads=1)


@lru_cache(maxsize=4)
def _upscaler(model: str) -> Upscaler:
    """Loaded once a process, before the clock starts; one thread, as the processes share the machine."""
    return Upscaler(model, threads=1)


def _read_output(path: Path) -> Audio:
    audio, rate = read(path)
    if rate != RATE:
        raise AudioError(
            f"output {path.name} has {rate} Hz where {RATE} is needed; resample it or set the tool to it"
        )
    return audio


def find_output(folder: Path, name: str, rate: int) -> Path:
    """The file of a `dir:` system for clip `name` at an input rate.

    `{rate}`, `{name}` (path without suffix) and `{stem}` in the folder are filled in. Otherwise the file is
    FOLDER/RATE/NAME or FOLDER/NAME with any audio suffix, or the same with the bare file name.

    Raises:
        AudioError: there is none, or it is not clear which.
    """
    plain = Path(name).with_suffix("")
    if "{" in str(folder):
        text = str(folder).format_map({"rate": rate, "name": plain.as_posix(), "stem": plain.name})
        places = [Path(text)]
    else:
        below = (Path(str(rate)) / plain, plain, Path(str(rate)) / plain.name, Path(plain.name))
        places = [folder / place for place in below]
    for place in places:
        found = [place] if place.is_file() else _with_any_suffix(place)
        if len(found) > 1:
            raise AudioError(f"{found[0]} and {found[1].name}: which one is the output? leave one of them")
        if found:
            return found[0]
    raise AudioError(
        f"no output for {name}; looked for {places[0]}.*" + (f" to {places[-1]}.*" if places[1:] else "")
    )


def _with_any_suffix(place: Path) -> list[Path]:
    """Audio files named `place` plus a suffix."""
    if not place.parent.is_dir():
        return []
    return sorted(
        file
        for file in place.parent.iterdir()
        if file.stem == place.name and file.suffix.lower() in AUDIO_SUFFIXES
    )


def digest(system: System, name: str, rate: int) -> str:
    """Hash of what decides a system's output for a clip: code, weights, the output file or the command.

    A missing output of a `dir:` system has the digest of nothing; it is an error when the system runs.
    """
    parts = [f"{system.kind} {system.target}".encode()]
    if system.kind == "folder":
        try:
            parts.append(find_output(Path(system.target), name, rate).read_bytes())
        except (AudioError, OSError):
            parts.append(b"missing")
    else:
        parts.append(_static_digest(system).encode())
    return _hash(parts)


@lru_cache(maxsize=64)
def _static_digest(system: System) -> str:
    if system.kind == "command":
        paths = files_of(system.target)
    elif system.kind == "model":
        weights = PACKAGE / "weights" / f"{system.target}.onnx"
        path = weights if weights.is_file() else Path(system.target)
        paths = [path, *_code("audio"), *_code("infer")]
        paths += _code("models") if path.suffix == ".safetensors" else []
    else:
        paths = [Path(baselines.__file__), *_code("audio", "[rs]*.py")]
    return _hash([path.read_bytes() for path in paths])


def _code(package: str, names: str = "*.py") -> list[Path]:
    """Source files of a package and of those in it, in order."""
    return sorted((PACKAGE / package).rglob(names))


def _hash(parts: Sequence[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()
