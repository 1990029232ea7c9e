"""A corpus of any size to full-band 48 kHz on a Ray cluster: `run_corpus`.

The driver lists the inputs, leaves out what is done, and hands batches of files of similar length to model
actors through Ray Data. Only names and rows of the manifest travel between them: each actor reads and writes
audio itself. Ray belongs to the extra `dist` and is imported inside the functions.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hifispeech import __version__
from hifispeech.errors import AudioError, HifispeechError

from .backends import read_model
from .corpus_journal import Journal, is_done
from .corpus_store import Source, Store, list_sources
from .corpus_worker import CorpusSettings, CorpusWorker, Row
from .manifest import DONE
from .upsampler import Upscaler

if TYPE_CHECKING:
    import pyarrow

LOCAL = "local"
SETTINGS = "corpus.json"
LAYOUT = 1  # of the output folder
BATCH_FILES = 32
BATCH_BYTES = 64 << 20
BATCH_SPREAD = 2.0  # longest to shortest file of a batch
BATCHES_AT_LEAST = 4  # for each worker, where there are files enough
BATCHES_PER_WORKER = 2  # handed out ahead of the work: back-pressure

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


class Machines(NamedTuple):
    """Where a run works.

    `cluster` is "local" (this machine) or the address of a Ray cluster; `workers` None is one for each GPU or
    for each `threads` CPUs; `device` is "auto" (GPUs where the cluster has any), "cpu" or "cuda".
    """

    cluster: str = LOCAL
    workers: int | None = None
    device: str = "auto"
    threads: int = 1


def run_corpus(
    input: str,
    output: str,
    machines: Machines,
    *,
    model: str = "fast",
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
    digest = hashlib.sha256(read_model(model)).hexdigest()
    settings = CorpusSettings(Path(model).name, digest, file_type, encoding, cutoff_hz, peak)
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


def plan_batches(sources: Sequence[Source], workers: int = 1) -> list[list[Source]]:
    """Batches of files of similar length, the longest first so that no worker ends long after the others."""
    most_files = min(BATCH_FILES, max(1, len(sources) // (BATCHES_AT_LEAST * workers)))
    ordered = sorted(sources, key=lambda source: (source.length[0], -source.length[1], source.path))
    batches: list[list[Source]] = []
    size = 0
    for source in ordered:
        first = batches[-1][0] if batches else None
        if (
            first is None
            or len(batches[-1]) >= most_files
            or size + source.size > BATCH_BYTES
            or source.length[0] != first.length[0]
            or source.length[1] * BATCH_SPREAD < first.length[1]
        ):
            batches.append([])
            size = 0
        batches[-1].append(source)
        size += source.size
    return sorted(batches, key=lambda batch: -sum(source.size for source in batch))


class Ledger:
    """Counts how often the work on a file was begun and not ended; an actor of its own, outlives workers."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()

    def begin(self, path: str) -> int:
        self.starts[path] += 1
        return self.starts[path]

    def end(self, path: str) -> None:
        del self.starts[path]


class CorpusActor:
    """A `CorpusWorker` for Ray Data: table of sources in, table of rows (JSON) out."""

    def __init__(
        self, settings: CorpusSettings, output: str, ledger: Any, content: Any, device: str, threads: int
    ) -> None:
        import ray

        logging.getLogger("hifispeech").setLevel(logging.ERROR)  # warnings are in the rows
        store = Store(output, ray.get_runtime_context().get_actor_id() or "worker")
        model = store.work_dir / settings.model
        if content is not None:
            model.write_bytes(ray.get(content))
        upscaler = Upscaler(model if content is not None else settings.model, device, threads=threads)
        self.worker = CorpusWorker(
            settings,
            store,
            upscaler,
            begin=lambda path: ray.get(ledger.begin.remote(path)),
            end=lambda path: ray.get(ledger.end.remote(path)),
        )

    def __call__(self, table: "pyarrow.Table") -> "Iterator[pyarrow.Table]":
        import pyarrow

        for row in table.to_pylist():
            yield pyarrow.table({"row": [json.dumps(asdict(self.worker.work(Source(**row))))]})


def work_on_ray(
    sources: Sequence[Source], output: str, settings: CorpusSettings, machines: Machines, model: str
) -> Iterator[Row]:
    """Hand batches of the files to model actors and yield the rows of the manifest as they end."""
    with connected(machines.cluster):
        import pyarrow
        import ray
        import ray.data  # not before ray.init: Ray 2.60 then waits for its own service for ever, now and then

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets it to debug
        resources = ray.cluster_resources()
        cuda = machines.device == "cuda" or (machines.device == "auto" and resources.get("GPU", 0) >= 1)
        count = machines.workers or int(
            resources.get("GPU", 0) if cuda else resources.get("CPU", 0) / machines.threads
        )
        batches = plan_batches(sources, max(1, count))
        ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
        content = ray.put(read_model(model)) if Path(model).is_file() else None
        schema = pyarrow.schema(
            [
                ("path", pyarrow.string()),
                ("size", pyarrow.int64()),
                ("version", pyarrow.string()),
                ("duration_s", pyarrow.float64()),
            ]
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_no_progress_timeout_s = -1  # a single file may take hours
        data = ray.data.from_arrow(
            [pyarrow.Table.from_pylist([asdict(source) for source in batch], schema) for batch in batches]
        )
        rows = data.map_batches(
            CorpusActor,  # pyright: ignore[reportArgumentType] (it returns an iterator, as Ray allows)
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=max(1, min(count, len(batches))),
                max_tasks_in_flight_per_actor=BATCHES_PER_WORKER,
            ),
            num_cpus=machines.threads,
            num_gpus=1 if cuda else 0,
            fn_constructor_args=(
                settings,
                output,
                ledger,
                content,
                "cuda" if cuda else "cpu",
                machines.threads,
            ),
        )
        for table in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for text in table.column("row").to_pylist():  # pyright: ignore[reportAttributeAccessIssue]
                yield Row(**json.loads(text))


@contextmanager
def connected(cluster: str) -> Iterator[None]:
    """A connection to a Ray cluster, or a Ray of this machine for the time of the run.

    Raises:
        HifispeechError: there is no cluster at the address.
        ImportError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # the rest is in the log files of its session
    environment = {"env_vars": {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}}
    try:
        ray.init(
            address=LOCAL if cluster == LOCAL else cluster,
            include_dashboard=False if cluster == LOCAL else None,
            configure_logging=False,
            log_to_driver=False,
            runtime_env=environment,
        )
    except Exception as error:  # of many kinds, some no more than Exception
        raise HifispeechError(
            f"no Ray cluster at {cluster} ({error}); start one with 'ray start', or pass --cluster local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
