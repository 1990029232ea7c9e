"""A corpus of any size to full-band 48 kHz on a Ray cluster: `run_corpus`.

The driver lists the inputs, leaves out what is done, and hands batches of files of similar length to model
actors through Ray Data (`ray`), which do the work on the files (`worker`).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hifispeech.errors import AudioError
from hifispeech.runs.corpus.journal import Journal, is_done
from hifispeech.runs.corpus.ray import Machines, work_on_ray
from hifispeech.runs.corpus.store import Store, list_sources
from hifispeech.runs.corpus.worker import CorpusSettings, Row
from hifispeech.runs.manifest import DONE
from hifispeech.runs.one_file import model_sha256
from hifispeech.version import __version__
from hifispeech.weights.packaged import DEFAULT

SETTINGS = "corpus.json"
LAYOUT = 1  # of the output folder

OnRow = Callable[[Row, int, int], None]


@dataclass
class CorpusSummary:
    """What a run did. `errors` has (input, message) of every file that failed."""

    done: int = 0
    skipped: int = 0
    duration_s: float = 0.0
    errors: list[tuple[str, str]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len(self.errors)


def run_corpus(
    input: str,
    output: str,
    machines: Machines,
    *,
    model: str = DEFAULT,
    file_type: str = "flac",
    encoding: str | None = None,
    cutoff_hz: float | None = None,
    peak: str = "limit",
    on_row: OnRow | None = None,
) -> CorpusSummary:
    """Upscale all files of `input` into the folder `output`; called again, it does what is missing.

    Args:
        input: folder, audio file or list (Parquet, CSV, JSON Lines), as a path or fsspec URL that every node
            can read.
        output: folder, as a path or fsspec URL that every node can write.
        machines: the cluster, the number of workers and what each gets.
        model: name of a packaged model or path of a model file on this machine.
        file_type: of the results: wav, flac, ogg, opus or mp3.
        encoding: how samples are stored; None is as precise as the input.
        cutoff_hz: where the content of all inputs ends; measured for each when None.
        peak: "limit" or "scale" what exceeds full scale.
        on_row: called with each row of the manifest, the number of rows so far and in all.

    Returns:
        Counts and errors. A file that fails does not stop the run.

    Raises:
        AudioError: nothing to do in `input`, or `output` holds a corpus made with other settings.
        ModelError: no such model.
        ImportError: the extra `dist`, or the package of a URL's protocol, is not installed.
    """
    settings = CorpusSettings(Path(model).name, model_sha256(model), file_type, encoding, cutoff_hz, peak)
    sources = list_sources(input, output)
    store = Store(output, "driver")
    try:
        claim(store, settings)
        store.clear_work()
        journal = Journal(store)
        known, results = journal.read(), store.names("audio")
        todo = [source for source in sources if not is_done(source, known.get(source.path), results)]
        summary = CorpusSummary(skipped=len(sources) - len(todo))
        if todo:
            try:
                for row in work_on_ray(todo, output, settings, machines, model):
                    journal.append(row)
                    note(summary, row)
                    if on_row is not None:
                        on_row(row, summary.done + summary.failed, len(todo))
            finally:
                journal.flush()
        journal.compact()
        store.clear_work()
    finally:
        store.close()
    return summary


def note(summary: CorpusSummary, row: Row) -> None:
    """Count a row of the manifest."""
    if row.status == DONE:
        summary.done += 1
        summary.duration_s += row.duration_s or 0.0
    else:
        summary.errors.append((row.input, row.error or ""))


def claim(store: Store, settings: CorpusSettings) -> None:
    """Write the settings into a new output folder; in an old one, insist on the same.

    Raises:
        AudioError: they are others.
    """
    wanted = {"layout": LAYOUT, **asdict(settings)}
    text = store.text(SETTINGS)
    if text is None:
        store.put_text(json.dumps({**wanted, "version": __version__}, indent=2) + "\n", SETTINGS)
        return
    found = json.loads(text)
    other = [f"{key}={found.get(key)!r}" for key, value in wanted.items() if found.get(key) != value]
    if other:
        raise AudioError(
            f"{store.root}: holds a corpus made with {', '.join(other)}; pass those settings "
            "to go on with it, or another output folder"
        )
