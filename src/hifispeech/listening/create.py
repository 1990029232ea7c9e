"""Make a test folder from folders of outputs: match files, check them, match loudness, hide names."""

from __future__ import annotations

import itertools
import math
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hifispeech.audio.io.writer import write
from hifispeech.errors import AudioError, HifispeechError
from hifispeech.files import atomic_path
from hifispeech.listening import definition as test
from hifispeech.listening.definition import (
    LOW_ANCHOR_HZ,
    MID_ANCHOR_HZ,
    REFERENCE,
    Definition,
    Item,
    anchor_name,
)
from hifispeech.listening.loudness import matched_gains
from hifispeech.listening.plan import choose_items
from hifispeech.listening.stimuli import condition_of, low_pass, match_files, read_alike
from hifispeech.listening.store import has_answers

MAX_SYSTEMS = 9  # with reference and anchors not more than the 12 signals that BS.1534-3 allows
MAX_ANCHORS = 2
NAME = re.compile(r"\w[\w .+-]{0,59}")


@dataclass(frozen=True)
class Options:
    """What the test asks and how."""

    kind: str = "abx"
    title: str = "Listening test"
    seed: int = 0
    items: int | None = None  # how many, drawn evenly from the conditions; None: all
    pairs: Sequence[tuple[str, str]] = ()  # ABX; empty: every pair
    repeats: int = 1  # ABX
    anchors_hz: Sequence[float] = (LOW_ANCHOR_HZ, MID_ANCHOR_HZ)  # MUSHRA
    loudness_lufs: float = -23.0


@dataclass(frozen=True)
class Summary:
    """What was made; `cut` counts the items whose outputs were not all of the same length."""

    definition: Definition
    questions: int
    seconds: float
    cut: int
    turned_down: int


def create(
    reference: Path,
    systems: Mapping[str, Path],
    output: Path,
    options: Options | None = None,
    *,
    force: bool = False,
    on_item: Callable[[int, int], None] | None = None,
) -> Summary:
    """Make the folder `output` with a test over all files that the systems' folders hold.

    Files match by their path below the folders, without suffix. The first folder of that path is the
    condition (such as the input rate). The reference is looked up under the same path, else by the file's
    name alone.

    Args:
        systems: name to folder of outputs.
        force: replace a test that has no answers yet.

    Raises:
        AudioError: files are missing, doubled, silent or do not fit together.
        HifispeechError: the target exists, or the options contradict each other.
        ImportError: without the extra `eval`.
    """
    options = options or Options()
    pairs = _checked(systems, options)
    files = match_files(reference, systems)
    conditions = [condition_of(name) for name in files]
    chosen = choose_items(conditions, options.items or len(files), options.seed)
    names = [list(files)[i] for i in chosen]
    with _new_folder(output, force) as folder:
        (folder / test.AUDIO).mkdir()
        items, cut, turned_down = [], 0, 0
        for number, name in enumerate(names, 1):
            item, was_cut = _make_item(name, files[name], options, folder / test.AUDIO)
            items.append(item)
            cut += was_cut
            turned_down += item.loudness_lufs < options.loudness_lufs - 0.01
            if on_item is not None:
                on_item(number, len(names))
        is_abx = options.kind == "abx"
        made = Definition(
            id=secrets.token_hex(8),
            kind=options.kind,
            title=options.title,
            seed=options.seed,
            systems=list(systems),
            items=items,
            pairs=pairs if is_abx else [],
            repeats=options.repeats if is_abx else 1,
            anchors=[] if is_abx else [anchor_name(hz) for hz in options.anchors_hz],
        )
        test.save(made, folder)
    seconds = sum(item.samples / item.sample_rate for item in items)
    return Summary(made, len(made.plan(0)), seconds, cut, turned_down)


def _checked(systems: Mapping[str, Path], options: Options) -> list[tuple[str, str]]:
    """The pairs to compare, after everything that can be wrong without looking at a file."""
    if options.kind not in test.KINDS:
        raise HifispeechError(f"kind {options.kind!r} is unknown; pass one of {', '.join(test.KINDS)}")
    least = 2 if options.kind == "abx" else 1
    if not least <= len(systems) <= MAX_SYSTEMS:
        raise HifispeechError(
            f"{len(systems)} systems given; the test '{options.kind}' takes {least} to {MAX_SYSTEMS}"
        )
    for name in systems:
        if not NAME.fullmatch(name) or name == REFERENCE or name.startswith("anchor "):
            raise HifispeechError(
                f"{name!r} cannot name a system; use up to 60 letters, digits, spaces, '.', '+', '-', "
                f"neither '{REFERENCE}' nor 'anchor ...'"
            )
        if re.search(rf"\b{re.escape(name)}\b", options.title, re.IGNORECASE):
            raise HifispeechError(f"the title {options.title!r} names the system {name!r}; listeners read it")
    if not math.isfinite(options.loudness_lufs) or not -60 <= options.loudness_lufs <= -5:
        raise HifispeechError(
            f"a loudness of {options.loudness_lufs:g} LUFS is outside -60 to -5; -23 is usual"
        )
    if options.repeats < 1 or len({*options.anchors_hz}) != len(options.anchors_hz):
        raise HifispeechError("repeats must be at least 1, and anchors must differ")
    if len(options.anchors_hz) > MAX_ANCHORS:
        raise HifispeechError(
            f"{len(options.anchors_hz)} anchors given; at most {MAX_ANCHORS}: 3500 and 7000 Hz"
        )
    for pair in options.pairs:
        if len({*pair}) != 2 or not {*pair} <= {*systems}:
            raise HifispeechError(
                f"pair {','.join(pair)} does not name two of the systems {', '.join(systems)}"
            )
    if len({frozenset(pair) for pair in options.pairs}) != len(options.pairs):
        raise HifispeechError("a pair is given twice; name each once")
    return list(options.pairs) or list(itertools.combinations(systems, 2))


def _make_item(name: str, files: Mapping[str, Path], options: Options, folder: Path) -> tuple[Item, bool]:
    """Write the stimuli of one item; also whether they had to be cut to one length."""
    audio, sample_rate = read_alike(files)
    longest = max(signal.shape[1] for signal in audio.values())
    samples = min(signal.shape[1] for signal in audio.values())
    audio = {stimulus: signal[:, :samples] for stimulus, signal in audio.items()}
    if options.kind == "mushra":
        for cutoff_hz in options.anchors_hz:
            audio[anchor_name(cutoff_hz)] = low_pass(audio[REFERENCE], sample_rate, cutoff_hz)
    try:
        gains, loudness = matched_gains(audio, sample_rate, options.loudness_lufs)
    except ValueError as error:
        raise AudioError(f"item {name}: {error}; leave this file out") from error
    written = {}
    for stimulus, signal in audio.items():
        written[stimulus] = f"{secrets.token_hex(8)}.wav"
        write(
            folder / written[stimulus], signal * np.float32(gains[stimulus]), sample_rate, encoding="pcm_24"
        )
    item = Item(
        name=name,
        condition=condition_of(name),
        sample_rate=sample_rate,
        channels=audio[REFERENCE].shape[0],
        samples=samples,
        loudness_lufs=round(loudness, 2),
        files=written,
        gains_db={stimulus: round(20 * math.log10(gain), 2) for stimulus, gain in gains.items()},
    )
    return item, longest != samples


@contextmanager
def _new_folder(target: Path, force: bool) -> Iterator[Path]:
    """A folder beside `target` that takes its name on a clean exit and is removed on any exception."""
    _check_target(target, force)
    if not target.absolute().parent.is_dir():
        raise HifispeechError(f"{target.parent}: no such folder; create it first or write elsewhere")
    with atomic_path(target) as folder:
        folder.mkdir()
        yield folder
        _check_target(target, force)  # answers may have come meanwhile
        if target.is_dir():
            shutil.rmtree(target)


def _check_target(target: Path, force: bool) -> None:
    """Refuse what must not be replaced: anything but a test or an empty folder, and all that has answers."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / test.DEFINITION).is_file():
        raise HifispeechError(f"{target}: exists and is no listening test; choose another name")
    if has_answers(target):
        raise HifispeechError(
            f"{target}: holds answers of listeners; choose another name, or remove it yourself"
        )
    if not force:
        raise HifispeechError(f"{target}: exists already; choose another name, or replace it with --force")
