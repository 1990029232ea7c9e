"""The stimuli of a test: which files belong together, whether they fit, and the low-pass anchors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hifispeech.audio.io.reader import open_reader
from hifispeech.errors import AudioError
from hifispeech.listening.definition import ALL, REFERENCE
from hifispeech.paths import list_audio

MAX_SECONDS = 60.0
LENGTH_SLACK_S = 0.05  # models that work in whole hops cut or pad this much; all are cut to the shortest


def match_files(reference: Path, systems: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Item name to stimulus to file, sorted by name.

    Raises:
        AudioError: two files of one name, or a file without its counterpart in another folder.
    """
    folders = {name: _files_below(folder) for name, folder in systems.items()}
    references = _files_below(reference)
    by_stem: dict[str, list[Path]] = {}
    for key, path in references.items():
        by_stem.setdefault(_stem(key), []).append(path)
    names = sorted({name for files in folders.values() for name in files})
    for system, files in folders.items():
        _check_complete([name for name in names if name not in files], systems[system])
    _check_complete([name for name in names if not (name in references or _stem(name) in by_stem)], reference)
    matched = {}
    for name in names:
        candidates = [references[name]] if name in references else by_stem[_stem(name)]
        if len(candidates) > 1:
            raise AudioError(
                f"{name} has {len(candidates)} references ({candidates[0]}, {candidates[1]}); "
                "give the reference folder the same structure, or each file a name of its own"
            )
        matched[name] = {REFERENCE: candidates[0], **{system: folders[system][name] for system in systems}}
    return matched


def read_alike(files: Mapping[str, Path]) -> tuple[dict[str, np.ndarray], int]:
    """All stimuli of an item, each [channels, time], and their rate in Hz; lengths may differ slightly.

    Raises:
        AudioError: rates, channels or lengths do not agree, more than two channels, longer than a minute.
    """
    reference = files[REFERENCE]
    expected, rate = _read_short(reference)
    channels = expected.shape[0]
    if channels > 2:
        raise AudioError(f"{reference}: has {channels} channels; a listening test plays 1 or 2; mix it down")
    audio = {REFERENCE: expected}
    for stimulus, path in files.items():
        if stimulus == REFERENCE:
            continue
        signal, found_rate = _read_short(path)
        if found_rate != rate:
            raise AudioError(
                f"{path}: has {found_rate} Hz, its reference {reference} {rate} Hz; bring all to one rate"
            )
        if signal.shape[0] != channels:
            raise AudioError(
                f"{path}: has {signal.shape[0]} channels, its reference {reference} {channels}; "
                "all stimuli of an item need the same number"
            )
        seconds, expected_s = signal.shape[1] / rate, expected.shape[1] / rate
        if abs(seconds - expected_s) > LENGTH_SLACK_S:
            raise AudioError(
                f"{path}: is {seconds:.3f} s long, its reference {reference} {expected_s:.3f} s; at most "
                f"{1000 * LENGTH_SLACK_S:.0f} ms may differ; check that these files belong together"
            )
        audio[stimulus] = signal
    return audio, rate


def _read_short(path: Path) -> tuple[np.ndarray, int]:
    """A file as [channels, time] and its rate; one that is too long is not read to its end."""
    with open_reader(path) as reader:
        rate = reader.info.sample_rate

        def check(frames: int) -> None:
            if frames > MAX_SECONDS * rate:
                raise AudioError(
                    f"{path}: is longer than {MAX_SECONDS:.0f} s; to be compared by ear, cut it to about 10 s"
                )

        return reader.samples(on_frames=check), rate


def low_pass(audio: np.ndarray, sample_rate: int, cutoff_hz: float) -> np.ndarray:
    """An anchor of BS.1534-3: within 0.1 dB up to `cutoff_hz`, at least 25 dB down at 8/7 of it, 50 at 9/7.

    Shape: `[channels, time]` to the same; zero-phase, so it stays aligned.
    """
    from hifispeech.audio.degrade.filters import DegradeSpec, apply

    if not 0 < cutoff_hz < 0.4 * sample_rate:
        raise ValueError(
            f"an anchor of {cutoff_hz:g} Hz does not fit audio of {sample_rate} Hz; pass a lower one"
        )
    spec = DegradeSpec(
        sample_rate, cutoff_hz * 15 / 14, family="fir", fir_window="hamming", fir_transition=1 / 7.5
    )
    return apply(audio, sample_rate, spec)[0]


def _files_below(folder: Path) -> dict[str, Path]:
    """Path below the folder without suffix, with slashes, to file."""
    if not folder.is_dir():
        raise AudioError(f"{folder}: is no folder; pass the folder that holds the audio files")
    found: dict[str, Path] = {}
    for path, below in list_audio([folder]):
        name = below.with_suffix("").as_posix()
        if name in found:
            raise AudioError(f"{found[name]} and {path} have the same name; remove one of them")
        found[name] = path
    return found


def _check_complete(missing: list[str], folder: Path) -> None:
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        are = "files are" if len(missing) > 1 else "file is"
        raise AudioError(
            f"{folder}: {len(missing)} {are} missing that others have: {shown}; "
            "every system and the reference need the same files"
        )


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def condition_of(name: str) -> str:
    """The condition of an item: its first folder."""
    return name.split("/", 1)[0] if "/" in name else ALL
