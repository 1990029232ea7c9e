"""Which files make up a data set, who speaks in them, which split they belong to: corpora, folders, lists."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hifispeech.errors import AudioError
from hifispeech.paths import list_audio

# VCTK 0.92 in the paper: eight speakers for the test, two without usable recordings left out.
VCTK_TEST = frozenset({"p360", "p361", "p362", "p363", "p364", "p374", "p376", "s5"})
VCTK_REMOVED = frozenset({"p280", "p315"})

RECOGNISED_SHARE = 0.8  # of a folder's files that must fit a layout for it to be chosen by itself


@dataclass(frozen=True)
class Source:
    """One recording: where it is, what is known of it. `split` None is decided by speaker at the end."""

    path: Path
    speaker: str
    source: str
    licence: str
    split: str | None = None
    bandwidth_hz: float | None = None
    lossless: bool | None = None


@dataclass(frozen=True)
class Layout:
    """How a corpus names its files.

    `pattern` is searched in the path below the folder and names the speaker; files it does not match are left
    out, and so are speakers in `removed`; those in `test` are the test split.
    """

    name: str
    licence: str
    pattern: str
    removed: frozenset[str] = frozenset()
    test: frozenset[str] = frozenset()


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("vctk", "CC BY 4.0", r"(?:^|/)(?P<speaker>p\d{3}|s5)_\d+_mic1\.\w+$", VCTK_REMOVED, VCTK_TEST),
        Layout("ravdess", "CC BY-NC-SA 4.0", r"(?:^|/)\d\d-\d\d-\d\d-\d\d-\d\d-\d\d-(?P<speaker>\d\d)\.\w+$"),
        Layout("ears", "CC BY-NC 4.0", r"(?:^|/)(?P<speaker>p\d{3})/[a-z]+_[\w-]+\.\w+$"),
        Layout("hifitts", "CC BY 4.0", r"(?:^|/)(?P<speaker>\d+)_(?:clean|other)/"),
        Layout("daps", "CC BY-NC 4.0", r"(?:^|/)(?P<speaker>[fm]\d+)_script\d+_clean\.\w+$"),
        Layout("libritts-r", "CC BY 4.0", r"(?:^|/)(?P<speaker>\d+)_\d+_\d+_\d+\.\w+$"),
    )
}


def recognise(names: Sequence[str]) -> Layout | None:
    """The layout that most of the names (paths below their folder) follow, if there is one."""
    # VCTK's second microphone is not to be prepared, but it does belong to the layout.
    names = [name for name in names if not re.search(r"_mic2\.\w+$", name)]
    for layout in LAYOUTS.values():
        found = sum(re.search(layout.pattern, name) is not None for name in names)
        if names and found >= RECOGNISED_SHARE * len(names):
            return layout
    return None


def sources_in(folder: Path, preset: str, pattern: str | None, licence: str, results: Path) -> list[Source]:
    """The recordings in one folder.

    Args:
        preset: a name in `LAYOUTS`, "auto" (recognise one, else by folder) or "none".
        pattern: regular expression with a group `speaker` that is searched in the path below `folder`.
        licence: for corpora whose licence is not known here.
        results: a folder to leave out of the search.

    Raises:
        AudioError: no audio there, or none that fits.
        ValueError: an unknown preset or a pattern without the group.
    """
    files = [(path, below.as_posix()) for path, below in list_audio([folder], results=results)]
    layout = _layout(preset, [name for _, name in files]) if pattern is None else None
    if layout is not None:
        chosen = _compiled(layout.pattern), layout.name, layout.licence, layout.removed, layout.test
    else:
        # Default: the folder a file lies in is its speaker.
        rule = pattern or r"^(?:(?:.*/)?(?P<speaker>[^/]+)/)?[^/]+$"
        chosen = _compiled(rule), folder.resolve().name, licence, frozenset[str](), frozenset[str]()
    expression, corpus, licence, removed, test = chosen
    found: list[Source] = []
    for path, name in files:
        match = expression.search(name)
        speaker = (match["speaker"] or folder.resolve().name) if match else None
        if speaker is None or speaker in removed:
            continue
        split = "test" if speaker in test else None
        found.append(Source(path, f"{corpus}/{speaker}", corpus, licence, split))
    if not found:
        raise AudioError(f"{folder}: no file fits {pattern or preset}; pass another --preset or --pattern")
    return found


def _layout(preset: str, names: Sequence[str]) -> Layout | None:
    if preset == "none":
        return None
    if preset == "auto":
        return recognise(names)
    if preset not in LAYOUTS:
        raise ValueError(f"preset={preset!r} is unknown; pass auto, none or one of {', '.join(LAYOUTS)}")
    return LAYOUTS[preset]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    if "speaker" not in expression.groupindex:
        raise ValueError(f"pattern {pattern!r} has no group (?P<speaker>...); add it")
    return expression


def sources_of_manifest(manifest: Path, licence: str, folders: Sequence[Path] = ()) -> list[Source]:
    """The recordings a CSV lists: columns `path` (relative to the CSV) and `speaker`; `split`, `source`,
    `licence`, `bandwidth_hz` and `lossless` are used where present.

    With `folders`, only what lies in one of them. A file there that is not listed is left out: the list says
    who speaks, and which speakers are kept out of training.

    Raises:
        ValueError: a column or a value is missing or wrong, naming the line; nothing listed is in `folders`.
        OSError: if the file cannot be read.
    """
    with manifest.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"path", "speaker"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{manifest} has no column {sorted(missing)[0]!r}; path and speaker are needed")
        rows = list(reader)
    if not rows:
        raise ValueError(f"{manifest} lists no file")
    sources = [_row(row, f"{manifest}:{i}", manifest, licence) for i, row in enumerate(rows, start=2)]
    if folders:
        places = [folder.resolve() for folder in folders]
        sources = [s for s in sources if any(s.path.resolve().is_relative_to(place) for place in places)]
        if not sources:
            names = ", ".join(map(str, folders))
            raise ValueError(f"{manifest} lists no file in {names}; pass other folders")
    return sources


def _row(row: Mapping[str, str | None], where: str, manifest: Path, licence: str) -> Source:
    def optional(name: str, convert: Callable[[str], float]) -> float | None:
        text = row.get(name)
        try:
            return convert(text) if text else None
        except ValueError as error:
            raise ValueError(f"{where}: {name}={text!r} is not a number") from error

    path, speaker = row["path"], row["speaker"]
    if not path or not speaker:
        raise ValueError(f"{where}: path or speaker is empty")
    lossless = row.get("lossless")
    return Source(
        manifest.parent / path,
        speaker,
        row.get("source") or manifest.parent.resolve().name,
        row.get("licence") or licence,
        row.get("split") or None,
        optional("bandwidth_hz", float),
        lossless.lower() in ("1", "true", "yes") if lossless else None,
    )


def assign_splits(
    speakers: Mapping[str, str | None], valid: Sequence[str], share: float = 0.05
) -> dict[str, str]:
    """A split per speaker: what is given stays; of the others, `valid` or else a `share` of them validate.

    Without names, every `1 / share`-th speaker by name is held out, at least one of two or more; none where
    the corpus or the list gives splits of its own.

    Raises:
        ValueError: a name in `valid` is no speaker.
    """
    known = {name: split for name, split in speakers.items()}
    wanted = {name for name in known if name in valid or name.rsplit("/", 1)[-1] in valid}
    unknown = set(valid) - wanted - {name.rsplit("/", 1)[-1] for name in wanted}
    if unknown:
        raise ValueError(
            f"--valid-speakers {sorted(unknown)[0]}: no such speaker; have {', '.join(sorted(known))}"
        )
    open_names = sorted(name for name, split in known.items() if split is None)
    if not valid and len(open_names) > 1 and not any(known.values()):  # a split that is given stays whole
        every = max(2, round(1 / share))
        wanted = set(open_names[every - 1 :: every]) or {open_names[-1]}
    return {name: "valid" if name in wanted else split or "train" for name, split in known.items()}
