"""Model actors on a Ray cluster: how many, on what, and which batches of files they are handed.

Only names and rows of the manifest travel between the driver and the actors: each reads and writes audio
itself. Ray belongs to the extra `dist` and is imported inside the functions.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hifispeech.errors import HifispeechError, ModelError, explain
from hifispeech.infer.onnx import FrameModel
from hifispeech.infer.upscaler import Upscaler
from hifispeech.runs.corpus.store import Source, Store
from hifispeech.runs.corpus.worker import CorpusSettings, CorpusWorker, Ledger, Row
from hifispeech.weights.packaged import read_model

if TYPE_CHECKING:
    import pyarrow

    from hifispeech.infer.batch.upscaler import BatchUpscaler

log = logging.getLogger(__name__)

LOCAL = "local"
BATCH_FILES = 32
BATCH_BYTES = 64 << 20
GPU_TIMES = 8  # a GPU is handed so many times more: it works on many files at a time
BATCH_SPREAD = 2.0  # longest to shortest file of a batch
BATCHES_AT_LEAST = 4  # for each worker, where there are files enough
BATCHES_PER_WORKER = 2  # handed out ahead of the work: back-pressure


class Machines(NamedTuple):
    """Where a run works.

    `cluster` is "local" (this machine) or the address of a Ray cluster; `workers` None is one for each GPU or
    for each `threads` CPUs; `device` is "auto" (GPUs where the cluster has any), "cpu" or "cuda".
    """

    cluster: str = LOCAL
    workers: int | None = None
    device: str = "auto"
    threads: int = 1


def plan_workers(machines: Machines, nodes: Sequence[dict[str, float]]) -> tuple[int, bool]:
    """How many actors work, and whether on GPUs, on nodes with these resources.

    Raises:
        HifispeechError: no node has what a single actor needs: Ray would wait for one for ever.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    cuda = machines.device == "cuda" or (machines.device == "auto" and gpus > 0)
    if cuda and not gpus:
        raise HifispeechError(
            "device 'cuda': no machine of the cluster has a GPU that Ray knows of; start Ray there with "
            "--num-gpus, or pass --device cpu"
        )
    places = sum(
        min(int(node.get("CPU", 0)) // machines.threads, int(node.get("GPU", 0)) if cuda else 1 << 30)
        for node in nodes
    )
    if not places:
        fit = [node for node in nodes if not cuda or int(node.get("GPU", 0))]
        most = max((int(node.get("CPU", 0)) for node in fit), default=0)
        raise HifispeechError(
            f"--threads {machines.threads}: no machine {'with a GPU ' if cuda else ''}has so many CPUs; "
            f"pass {most} or fewer"
        )
    return machines.workers or places, cuda


def plan_batches(sources: Sequence[Source], workers: int = 1, times: int = 1) -> list[list[Source]]:
    """Batches of files of similar length, the longest first so that no worker ends long after the others.

    A batch has `times` the files and bytes of `BATCH_FILES` and `BATCH_BYTES`, at most.
    """
    most_files = min(times * BATCH_FILES, max(1, len(sources) // (BATCHES_AT_LEAST * workers)))
    ordered = sorted(sources, key=lambda source: (source.length[0], -source.length[1], source.path))
    batches: list[list[Source]] = []
    size = 0
    for source in ordered:
        first = batches[-1][0] if batches else None
        if (
            first is None
            or len(batches[-1]) >= most_files
            or size + source.size > times * BATCH_BYTES
            or source.length[0] != first.length[0]
            or source.length[1] * BATCH_SPREAD < first.length[1]
        ):
            batches.append([])
            size = 0
        batches[-1].append(source)
        size += source.size
    return sorted(batches, key=lambda batch: -sum(source.size for source in batch))


class RemoteLedger(Ledger):
    """The one `Ledger` of a run, from another process."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def begin(self, path: str) -> int:
        return _get(self.actor.begin.remote(path))

    def begun(self, paths: Sequence[str]) -> list[bool]:
        return _get(self.actor.begun.remote(list(paths)))

    def end(self, path: str) -> None:
        _get(self.actor.end.remote(path))


def _get(reference: Any) -> Any:
    import ray

    return ray.get(reference)


class CorpusActor:
    """A `CorpusWorker` for Ray Data: table of sources in, table of rows (JSON) out."""

    def __init__(
        self, settings: CorpusSettings, output: str, ledger: Any, content: Any, device: str, threads: int
    ) -> None:
        import ray

        logging.getLogger("hifispeech").setLevel(logging.ERROR)  # warnings are in the rows
        store = Store(output, ray.get_runtime_context().get_actor_id() or "worker")
        model = settings.model
        if content is not None:
            model = str(store.work_dir / settings.model)
            Path(model).write_bytes(_get(content))
        upscaler = Upscaler(model, device, threads=threads)
        batch = batch_upscaler(upscaler, model, threads) if device == "cuda" else None
        self.worker = CorpusWorker(settings, store, upscaler, batch, RemoteLedger(ledger))

    def __call__(self, table: "pyarrow.Table") -> "Iterator[pyarrow.Table]":
        import pyarrow

        for row in self.worker.work_all([Source(**source) for source in table.to_pylist()]):
            yield pyarrow.table({"row": [json.dumps(asdict(row))]})


def batch_upscaler(
    upscaler: Upscaler, model: str, threads: int, device: str = "cuda"
) -> "BatchUpscaler | None":
    """The same model for many files at a time; None where it is no frame model, or PyTorch is missing."""
    if not isinstance(upscaler.model, FrameModel):
        return None
    try:
        from hifispeech.infer.batch.upscaler import BatchUpscaler

        return BatchUpscaler(model, device, threads=threads)
    except (ImportError, ModelError) as error:  # no PyTorch, or one that knows no GPU: ONNX Runtime has one
        log.info("files go one by one: %s", explain(error))
        return None


def work_on_ray(
    sources: Sequence[Source], output: str, settings: CorpusSettings, machines: Machines, model: str
) -> Iterator[Row]:
    """Hand batches of the files to model actors and yield the rows of the manifest as they end."""
    with connected(machines.cluster):
        import pyarrow
        import ray
        import ray.data  # not before ray.init: Ray 2.60 then waits for its own service for ever, now and then

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets it to debug
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count, cuda = plan_workers(machines, nodes)
        batches = plan_batches(sources, count, GPU_TIMES if cuda else 1)
        ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
        device = "cuda" if cuda else "cpu"
        content = ray.put(read_model(model)) if Path(model).is_file() else None
        fields = {
            "path": pyarrow.string(),
            "size": pyarrow.int64(),
            "version": pyarrow.string(),
            "duration_s": pyarrow.float64(),
        }
        schema = pyarrow.schema(fields.items())
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
                max_size=min(count, len(batches)),
                max_tasks_in_flight_per_actor=BATCHES_PER_WORKER,
            ),
            num_cpus=machines.threads,
            num_gpus=1 if cuda else 0,
            fn_constructor_args=(settings, output, ledger, content, device, machines.threads),
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
