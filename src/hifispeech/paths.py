"""Which files a run works on, and where each result goes: files, several files, folders."""

from dataclasses import dataclass
from pathlib import Path

from hifispeech.errors import AudioError

# Which files of a folder are tried; a file named by itself always is.
AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "aac", "aif", "aiff", "amr", "au", "caf", "flac", "gsm", "m4a", "mka", "mkv", "mov", "mp3"),
        *("mp4", "oga", "ogg", "opus", "w64", "wav", "weba", "webm", "wma"),
    )
)


def list_audio(inputs: list[Path], results: Path | None = None) -> list[tuple[Path, Path]]:
    """The files to work on, each as (path, path below the folder it was found in).

    Args:
        inputs: files, taken as they are, and folders, searched recursively for the suffixes of audio files;
            what is hidden (.NAME) is left out.
        results: a folder left out of the search: the results of an earlier run may lie there.

    Raises:
        AudioError: a folder holds no audio file.
    """
    found: list[tuple[Path, Path]] = []
    for path in inputs:
        if not path.is_dir():
            found.append((path, Path(path.name)))
            continue
        files = [file for file in sorted(path.rglob("*")) if _is_audio(file, path)]
        if results is not None and results.resolve() != path.resolve():
            files = [file for file in files if not file.resolve().is_relative_to(results.resolve())]
        if not files:
            known = " ".join(sorted(AUDIO_SUFFIXES))
            raise AudioError(
                f"{path}: this folder holds no audio file; one of {known} is needed; check the path"
            )
        found += [(file, file.relative_to(path)) for file in files]
    return found


@dataclass(frozen=True)
class Plan:
    """Where the result of every input goes. Made once for a run and handed down to all that need it.

    `jobs` are the (input file, output file) pairs. `folder` is the folder of all results, which gets a
    manifest; None for a single file, and where results lie beside their inputs. With `is_named`, the only
    output is a name that the user gave: its folder has to be there; other folders are made. `suffix` is that
    of results without a name, those of a pipe.
    """

    jobs: list[tuple[Path, Path]]
    folder: Path | None = None
    is_named: bool = False
    suffix: str = ".wav"

    @classmethod
    def make(cls, inputs: list[Path], output: Path | None = None, file_type: str | None = None) -> "Plan":
        """The plan for the arguments of a command.

        Args:
            inputs: files and folders.
            output: for a single input file, the file to write if it has a suffix; else the folder to write
                to. None writes `NAME_48k.wav` beside each file and a folder `FOLDER_48k` beside each folder.
            file_type: such as `flac`; None is the suffix of a single output file, and WAV otherwise.

        Raises:
            AudioError: a folder without audio, a file in place of the output folder, two inputs of one
                output, an output that is another input.
            ValueError: `output` and `file_type` contradict each other.
        """
        suffix = suffix_of(file_type)
        one_file = len(inputs) == 1 and not inputs[0].is_dir()
        if one_file and output is not None and output.suffix and not output.is_dir():
            if file_type is not None and output.suffix.lower() != suffix:
                raise ValueError(f"format {file_type} contradicts the output {output}; leave one of them out")
            return cls([(inputs[0], output)], is_named=True, suffix=suffix)
        if output is not None and output.exists() and not output.is_dir():
            raise AudioError(
                f"{output}: is a file; a folder is needed for several inputs; pass another output"
            )
        jobs = [job for path in inputs for job in _jobs_of(path, output, suffix)]
        _keep_apart(jobs)
        _keep_inputs(jobs)
        return cls(jobs, None if one_file else _folder_of_all(inputs, output), suffix=suffix)


def suffix_of(file_type: str | None) -> str:
    """Suffix of results of a type such as `flac`; WAV by default."""
    return f".{(file_type or 'wav').lower().lstrip('.')}"


def _folder_of_all(inputs: list[Path], output: Path | None) -> Path | None:
    if output is not None or len(inputs) > 1:
        return output
    return _beside(inputs[0])


def _beside(folder: Path) -> Path:
    """Where the results of a folder go by default."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}_48k")


def _keep_apart(jobs: list[tuple[Path, Path]]) -> None:
    """Refuse two results of one name."""
    sources: dict[Path, Path] = {}
    for source, target in jobs:
        if target in sources:
            raise AudioError(
                f"{sources[target]} and {source} would both become {target}; upscale them one by one"
            )
        sources[target] = source


def _keep_inputs(jobs: list[tuple[Path, Path]]) -> None:
    """Refuse results that would replace an input, under any of its names."""
    inputs = {_identity(source): source for source, _ in jobs}
    for source, target in jobs:
        other = inputs.get(_identity(target))
        if other is None:
            continue
        if _identity(other) == _identity(source):
            raise AudioError(f"{target}: output and input are the same file; write to another folder")
        raise AudioError(
            f"{target}: is an input of this run, and the result of {source} would replace it; "
            "leave it out or write to a folder of its own"
        )


def _identity(path: Path) -> object:
    """Equal for all names of one file."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def _jobs_of(path: Path, output: Path | None, suffix: str) -> list[tuple[Path, Path]]:
    """The (input file, output file) pairs of one input, a file or a folder."""
    if output is None and not path.is_dir():
        return [(path, path.with_name(f"{path.stem}_48k{suffix}"))]
    root = output if output is not None else _beside(path)
    return [(source, root / below.with_suffix(suffix)) for source, below in list_audio([path], results=root)]


def _is_audio(file: Path, folder: Path) -> bool:
    """Hidden files and folders are left out; a run at work has a hidden one in its results."""
    if file.suffix.lower() not in AUDIO_SUFFIXES or not file.is_file():
        return False
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)
