"""The definition of a test: `test.json` in its folder, beside `audio/` and `answers.sqlite`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hifispeech.errors import HifispeechError
from hifispeech.listening.plan import Trial, abx_plan, mushra_plan

FORMAT, VERSION = "hifispeech listening test", 1
DEFINITION, AUDIO, ANSWERS = "test.json", "audio", "answers.sqlite"
KINDS = ("abx", "mushra")
REFERENCE = "reference"
ALL = "all"  # the only condition where files are not sorted into folders


def anchor_name(cutoff_hz: float) -> str:
    """The name of a low-pass anchor in results."""
    return f"anchor {cutoff_hz / 1000:g} kHz"


LOW_ANCHOR_HZ, MID_ANCHOR_HZ = 3500.0, 7000.0  # of BS.1534-3, which wants both
MID_ANCHOR = anchor_name(MID_ANCHOR_HZ)


@dataclass(frozen=True)
class Item:
    """One recording of the test: the stimuli made from it, all of one length, format and loudness."""

    name: str  # the path below the folders of the systems, without suffix
    condition: str  # its first folder, such as the input rate
    sample_rate: int
    channels: int
    samples: int
    loudness_lufs: float
    files: dict[str, str]  # stimulus to the name of its file in audio/
    gains_db: dict[str, float]  # what loudness matching did to it


@dataclass(frozen=True)
class Definition:
    """All there is to know about a test but the answers. The page never sees it."""

    id: str
    kind: str
    title: str
    seed: int
    systems: list[str]
    items: list[Item]
    pairs: list[tuple[str, str]] = field(default_factory=list)  # ABX
    repeats: int = 1  # ABX
    anchors: list[str] = field(default_factory=list)  # MUSHRA

    @property
    def stimuli(self) -> list[str]:
        """What is rated in a MUSHRA test: the hidden reference, the systems, the anchors."""
        return [REFERENCE, *self.systems, *self.anchors]

    @property
    def conditions(self) -> list[str]:
        """The conditions in the order of the items."""
        return list(dict.fromkeys(item.condition for item in self.items))

    def plan(self, listener: int) -> list[Trial]:
        """The questions of listener 0, 1, 2, ... in their order."""
        if self.kind == "abx":
            conditions = [item.condition for item in self.items]
            return abx_plan(conditions, self.pairs, self.repeats, self.seed, listener)
        return mushra_plan(len(self.items), self.stimuli, self.seed, listener)


def save(definition: Definition, folder: Path) -> None:
    """Write `test.json` into a folder that nobody reads yet."""
    values = {"format": FORMAT, "version": VERSION, **asdict(definition)}
    (folder / DEFINITION).write_text(
        json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def load(folder: Path) -> Definition:
    """Read and check the definition in a test folder.

    Raises:
        HifispeechError: this is no test folder, it is of another version, or it is damaged.
    """
    path = folder / DEFINITION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HifispeechError(
            f"{folder}: is no listening test ({DEFINITION} is missing); make one with 'hifispeech abx create'"
        ) from error
    except ValueError as error:
        raise HifispeechError(f"{path}: is damaged ({error}); create the test again") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise HifispeechError(f"{path}: is not a {FORMAT}; make one with 'hifispeech abx create'")
    if (version := values.pop("version", None)) != VERSION:
        raise HifispeechError(f"{path}: has version {version}, this program reads {VERSION}; create it again")
    try:
        definition = _parsed(values)
    except (TypeError, KeyError, ValueError) as error:
        raise HifispeechError(f"{path}: is damaged ({error}); create the test again") from error
    _check_files(definition, folder)
    return definition


def _parsed(values: dict[str, Any]) -> Definition:
    items = [Item(**item) for item in values.pop("items")]
    pairs = [(first, second) for first, second in values.pop("pairs")]
    definition = Definition(**values, items=items, pairs=pairs)
    if definition.kind not in KINDS or not items:
        raise ValueError(f"kind {definition.kind!r} with {len(items)} items")
    return definition


def _check_files(definition: Definition, folder: Path) -> None:
    for item in definition.items:
        for name in item.files.values():
            if not re.fullmatch(r"[0-9a-f]{16}\.wav", name):
                raise HifispeechError(f"{folder}: {name!r} is no name of a stimulus; create the test again")
            if not (folder / AUDIO / name).is_file():
                raise HifispeechError(f"{folder / AUDIO / name}: is missing; create the test again")
