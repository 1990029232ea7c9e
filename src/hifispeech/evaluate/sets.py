"""What is scored: folders, CSV lists and the standard sets of the field, by the names their files have.

A preset picks from a corpus what papers test on: `vctk:/data/VCTK-Corpus-0.92` are the eight test speakers,
first microphone. Which file belongs to whom is decided by `hifispeech.datasets.corpora`, as in training.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from hifispeech.datasets.corpora import LAYOUTS, VCTK_TEST, Layout, sources_of_manifest
from hifispeech.errors import AudioError
from hifispeech.paths import list_audio


@dataclass(frozen=True)
class Clip:
    """One true recording: `name` is its path below the folder of its set, `path` where it lies."""

    path: Path
    set: str
    name: str
    speaker: str


@dataclass(frozen=True)
class Preset:
    """A part of a corpus. `test` are the speakers to score, empty for all; `what` says it in words.

    `listed` names a file below the folder with the stems of the official test split, used where it is there.
    """

    name: str
    what: str
    layout: Layout
    test: frozenset[str] = frozenset()
    listed: str = ""


_EXPRESSO = Layout("expresso", "CC BY-NC 4.0", r"(?:^|/)(?P<speaker>ex\d\d)/[\w-]+/base/ex\d\d_[\w-]+\.\w+$")
_VOCALSET = Layout(
    "vocalset", "CC BY 4.0", r"(?:^|/)(?P<speaker>(?:fe)?male\d+)/(?:[\w-]+/)*[\w() .-]+\.wav$"
)


def _ravdess(channel: str) -> Layout:
    """RAVDESS names begin with modality (03: sound only) and vocal channel (01 speech, 02 song)."""
    return replace(LAYOUTS["ravdess"], pattern=rf"(?:^|/)03-{channel}(?:-\d\d){{4}}-(?P<speaker>\d\d)\.\w+$")


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("vctk", "VCTK 0.92, the paper's eight test speakers, mic1", LAYOUTS["vctk"], VCTK_TEST),
        Preset(
            "expresso",
            "EXPRESSO, short read speech; only splits/test.txt where it is there",
            _EXPRESSO,
            listed="splits/test.txt",
        ),
        Preset("vocalset", "VocalSet, all singers (44.1 kHz)", _VOCALSET),
        Preset("ravdess-speech", "RAVDESS, audio-only speech", _ravdess("01")),
        Preset("ravdess-song", "RAVDESS, audio-only song", _ravdess("02")),
        Preset(
            "ears",
            "EARS, speakers p102 to p107 (the test speakers of EARS-WHAM)",
            LAYOUTS["ears"],
            frozenset(f"p{number}" for number in range(102, 108)),
        ),
        Preset("daps", "DAPS, clean studio takes (44.1 kHz, minutes long)", LAYOUTS["daps"]),
    )
}


def find_clips(data: str, *, every: int = 1, limit: int | None = None) -> list[Clip]:
    """The recordings of one `--data` argument, in a fixed order.

    Args:
        data: `PRESET:PATH`; a folder, searched recursively; or a CSV with the columns `path` and `speaker`
            (listed files that are missing stay in the list, so that they are reported). `LABEL=` before it
            names the set; otherwise the preset or the folder does.
        every: takes every Nth clip.
        limit: takes at most so many.

    Raises:
        AudioError: nothing there, or nothing that fits the preset.
        ValueError: an unknown preset, a CSV that cannot be used.
    """
    label, rest = _labelled(data)
    found = re.match(r"([a-z][a-z0-9-]+):(.*)", rest)
    if found and not Path(rest).exists():
        clips = _of_preset(found[1], Path(found[2]), label or found[1])
    elif rest.lower().endswith(".csv"):
        clips = _of_manifest(Path(rest), label or Path(rest).stem)
    else:
        clips = _of_folder(Path(rest), label)
    return clips[::every][:limit]


def _labelled(data: str) -> tuple[str | None, str]:
    found = re.match(r"([\w.+-]+)=(.+)", data)
    return (found[1], found[2]) if found and not Path(data).exists() else (None, data)


def _of_preset(name: str, folder: Path, label: str) -> list[Clip]:
    if name not in PRESETS:
        raise ValueError(f"data set {name!r} is unknown; pass a folder or one of {', '.join(PRESETS)}:PATH")
    preset = PRESETS[name]
    expression = re.compile(preset.layout.pattern)
    listed = folder / preset.listed
    stems = _stems(listed) if preset.listed and listed.is_file() else None
    clips = []
    for path, below in list_audio([_folder(folder)]):
        match = expression.search(below.as_posix())
        if match is None or match["speaker"] in preset.layout.removed:
            continue
        if (preset.test and match["speaker"] not in preset.test) or (stems and path.stem not in stems):
            continue
        clips.append(Clip(path, label, below.as_posix(), match["speaker"]))
    if not clips:
        raise AudioError(f"{folder}: no file here fits the set {name} ({preset.what}); check the path")
    return clips


def _stems(listed: Path) -> set[str]:
    """First words of the lines, without folder and suffix."""
    lines = listed.read_text(encoding="utf-8").splitlines()
    return {Path(line.split()[0]).stem for line in lines if line.strip()}


def _of_manifest(manifest: Path, label: str) -> list[Clip]:
    sources = sources_of_manifest(manifest, "unknown")
    return [Clip(s.path, label, _name_below(s.path, manifest.parent), s.speaker) for s in sources]


def _name_below(path: Path, root: Path) -> str:
    """The path below `root`, without ".." wherever it lies: a run writes files of this name."""
    whole, below = (Path(os.path.normpath(p)) for p in (path, root))
    inside = whole.relative_to(below) if whole.is_relative_to(below) else whole.relative_to(whole.anchor)
    return Path(*(part for part in inside.parts if part != "..")).as_posix()


def _of_folder(folder: Path, label: str | None) -> list[Clip]:
    """Every audio file; the speaker is the folder it lies in."""
    if folder.is_file():
        return [Clip(folder, label or folder.stem, folder.name, folder.resolve().parent.name)]
    name = label or folder.resolve().name
    return [
        Clip(path, name, below.as_posix(), below.parent.name or name)
        for path, below in list_audio([_folder(folder)])
    ]


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise AudioError(f"{path}: no such folder; pass the folder that holds the recordings")
    return path
