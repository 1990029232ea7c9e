"""A whole evaluation: clips x rates x systems x measures, in processes, resumable; tables and pictures."""

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hifispeech.errors import HifispeechError
from hifispeech.evaluate import metrics, systems
from hifispeech.evaluate.cost import Probe, peak_memory_mb
from hifispeech.evaluate.lowrate import METHODS
from hifispeech.evaluate.report.examples import draw_all
from hifispeech.evaluate.report.plots import matplotlib_module
from hifispeech.evaluate.results import Row, failure_lines, read_rows, write_rows
from hifispeech.evaluate.score import BITS, Job, Settings, code_digest, failed_rows, score_clip
from hifispeech.evaluate.sets import Clip, find_clips
from hifispeech.evaluate.summary import Summary, summarise
from hifispeech.evaluate.systems import System
from hifispeech.evaluate.tables import write_tables
from hifispeech.files import write_atomic
from hifispeech.runs.processes import Crashed, run_tasks

log = logging.getLogger(__name__)

DEFAULT_METRICS = ("lsd", "lsd_p2", "si_sdr")
DEFAULT_RATES = (4000, 8000, 12000, 16000, 24000)
_TWICE = (
    "{set}/{name} is there twice but for its suffix ({first}, {path}): outputs could not be told apart; "
    "remove one, or name the sets, as in LABEL=PATH"
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """What `hifispeech evaluate` was asked for; see its help."""

    data: tuple[str, ...]
    output: Path
    systems: tuple[System, ...]
    rates: tuple[int, ...] = DEFAULT_RATES
    metrics: tuple[str, ...] = DEFAULT_METRICS
    degrade: str = "sinc"
    align: bool = False
    workers: int = 1
    every: int = 1
    limit: int | None = None
    visqol_every: int = 1
    max_s: float = 30.0
    seed: int = 0
    keep_audio: bool = False
    pictures: int = 10
    resume: bool = False
    command: str = ""
    nisqa_weights: Path | None = None
    bits: str = "16"

    def __post_init__(self) -> None:
        """Raises: ValueError for an unknown measure or method, a rate out of range, or a number below 1."""
        unknown = [name for name in self.metrics if name not in metrics.MEASURES]
        if unknown or not self.metrics:
            raise ValueError(
                f"unknown metric {unknown[0] if unknown else ''!r}; choose from {', '.join(metrics.MEASURES)}"
            )
        if self.degrade not in METHODS:
            raise ValueError(f"degrade={self.degrade!r} is unknown; choose one of {', '.join(METHODS)}")
        if self.bits not in BITS:
            raise ValueError(f"bits={self.bits!r} is unknown; choose one of {', '.join(BITS)}")
        for rate in self.rates:
            if not 2000 <= rate < systems.RATE:
                raise ValueError(f"rate {rate} is outside 2000..{systems.RATE - 1} Hz; pass rates of inputs")
        if min(self.workers, self.every, self.visqol_every) < 1 or self.max_s <= 0:
            raise ValueError("workers, every, visqol_every and max_s must be positive; leave them out")

    @property
    def settings(self) -> Settings:
        """What the worker processes need of it."""
        return Settings(
            self.rates,
            self.systems,
            self.metrics,
            self.output / "cache",
            self.output / "work",
            self.degrade,
            self.align,
            self.max_s,
            self.output / "audio" if self.keep_audio else None,
            self.nisqa_weights,
            self.bits,
        )


def evaluate(options: Options, on_progress: Progress | None = None) -> Summary:
    """Score systems on data and write everything to the output folder.

    Writes scores.csv (one line a clip, rate and system), summary.json, run.json, tables.md, tables.tex,
    figures and spectrograms of the worst clips. Results are cached in OUTPUT/cache as they are made, so a
    killed run goes on with `resume`.

    Raises:
        HifispeechError: no data, a model that cannot be loaded, or results in the way without `resume`.
        ValueError: data or systems that are not understood.
        ImportError: a package of the extra `eval` that is needed is missing.
    """
    if (options.output / "run.json").exists() and not options.resume:
        raise HifispeechError(
            f"{options.output}: holds a run already; pass --resume to go on with it, or another folder"
        )
    jobs = find_jobs(options)
    check_ready(options)
    shutil.rmtree(options.settings.work, ignore_errors=True)  # of a killed run
    write_atomic(options.output / "run.json", json.dumps(provenance(options, jobs), indent=1))
    with _one_thread():
        rows = _score_all(options, jobs, on_progress)
        memory = _memory(options, jobs, rows)
    write_rows(options.output / "scores.csv", rows)
    summary = summarise(rows, seed=options.seed, skipped=_skipped(jobs), memory_mb=memory)
    write_atomic(options.output / "summary.json", json.dumps(summary.as_json(), indent=1))
    pictures = draw_all(jobs, summary, options.output, options.pictures)
    write_tables(options.output, summary, provenance(options, jobs), pictures)
    shutil.rmtree(options.settings.work, ignore_errors=True)
    return summary


def load(folder: Path) -> tuple[Summary, dict[str, Any], list[Row]]:
    """Summary, provenance and rows of a finished run.

    Raises:
        AudioError: the folder holds none.
    """
    rows = read_rows(folder / "scores.csv")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    costs = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["costs"]
    memory = {name: cost["peak_memory_mb"] for name, cost in costs.items()}
    skipped = {clip: frozenset(names) for clip, names in run["skipped"].items()}
    return summarise(rows, seed=run["seed"], skipped=skipped, memory_mb=memory), run, rows


def find_jobs(options: Options) -> list[Job]:
    """A job a clip, in the order of the data.

    Raises:
        AudioError, ValueError: see `find_clips`; two clips of one set and name, whatever the suffix.
    """
    clips: dict[str, Clip] = {}
    jobs: list[Job] = []
    settings = options.settings
    for data in options.data:
        for index, clip in enumerate(find_clips(data, every=options.every, limit=options.limit)):
            known = clips.setdefault(f"{clip.set}/{Path(clip.name).with_suffix('')}", clip)
            if known is not clip:
                named = {"set": clip.set, "name": clip.name, "first": known.path, "path": clip.path}
                raise ValueError(_TWICE.format(**named))
            without = frozenset({"visqol"} if index % options.visqol_every else ())
            jobs.append(Job(clip, settings, without & set(options.metrics)))
    return jobs


def check_ready(options: Options) -> None:
    """Load every model and import every package once, so that what cannot work fails before the run.

    Raises:
        ModelError: a model that cannot be loaded, or no weights for NISQA.
        ImportError: a package of the extra `eval` that is missing.
    """
    from hifispeech.evaluate.metrics import nisqa
    from hifispeech.evaluate.metrics.perceptual import require

    require(options.metrics)
    if "nisqa" in options.metrics:
        nisqa.require()
        nisqa.find_weights(options.nisqa_weights)
    if options.pictures:
        matplotlib_module("matplotlib.figure")
    for system in options.systems:
        systems.check(system)


def provenance(options: Options, jobs: Sequence[Job]) -> dict[str, Any]:
    """All that decides the numbers of a run, as plain data."""
    return {
        "command": options.command,
        "data": list(options.data),
        "systems": {system.label: f"{_SHOWN[system.kind]}{system.target}" for system in options.systems},
        "digests": {
            system.label: systems.digest(system, "", 0)[:12]
            for system in options.systems
            if system.kind != "folder"
        },
        "rates": list(options.rates),
        "metrics": list(options.metrics),
        "degrade": f"{options.degrade}: {METHODS[options.degrade]}",
        "align": options.align,
        "bits": options.bits,
        "every": options.every,
        "limit": options.limit,
        "max_s": options.max_s,
        "seed": options.seed,
        "workers": options.workers,
        "clips": len(jobs),
        "clips_digest": hashlib.sha256(
            "\n".join(f"{job.clip.set}/{job.clip.name}" for job in jobs).encode()
        ).hexdigest()[:12],
        "code": code_digest()[:12],
        "skipped": {clip: sorted(names) for clip, names in _skipped(jobs).items()},
        "machine": f"{platform.processor() or platform.machine()}, {platform.system()}",
        "software": _versions(),
    }


_SHOWN = {"model": "", "baseline": "", "folder": "dir:", "command": "cmd:"}


def _skipped(jobs: Sequence[Job]) -> dict[str, frozenset[str]]:
    return {f"{job.clip.set}/{job.clip.name}": job.without for job in jobs if job.without}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (
        "hifispeech",
        "numpy",
        "scipy",
        "onnxruntime",
        "soxr",
        "visqol-python",
        "pesq",
        "pystoi",
        "torchmetrics",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _score_all(options: Options, jobs: Sequence[Job], on_progress: Progress | None) -> list[Row]:
    """Rows of all jobs in their order, whatever happens to single ones."""
    order = {id(job): index for index, job in enumerate(jobs)}
    done: dict[int, list[Row]] = {}
    report = on_progress or (lambda count, total: None)
    report(0, len(jobs))
    for job, rows in run_tasks(_scorer, jobs, options.workers, on_log=_log):
        if isinstance(rows, Crashed):
            rows = failed_rows(job, f"the process that worked on this clip died: {rows.reason}")
        done[order[id(job)]] = rows
        for line in failure_lines(rows, options.rates, [system.label for system in options.systems]):
            log.warning("%s", line)
        report(len(done), len(jobs))
    return [row for index in range(len(jobs)) for row in done[index]]


def _log(job: Job | None, record: logging.LogRecord) -> None:
    log.log(record.levelno, "%s", record.getMessage())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside have one thread each: the variables are read when NumPy is imported."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _scorer() -> Callable[[Job, Callable[[float], None]], list[Row]]:
    return lambda job, progress: score_clip(job)


def _memory(options: Options, jobs: Sequence[Job], rows: Sequence[Row]) -> dict[str, float | None]:
    """Peak memory per system on the first clip it could do, at that rate; kept in the cache."""
    memory: dict[str, float | None] = {}
    by_clip = {f"{job.clip.set}/{job.clip.name}": job for job in jobs}
    for system in options.systems:
        memory[system.label] = None
        row = next((row for row in rows if row.system == system.label and row.values), None)
        if row is None or system.kind in ("folder", "command"):  # commands tell theirs with every file
            continue
        job = by_clip[row.clip]
        key = hashlib.sha256(f"{systems.digest(system, '', row.rate)} {job.clip.path} {row.rate}".encode())
        entry = options.output / "cache" / f"memory-{key.hexdigest()[:32]}.json"
        if not entry.is_file():
            peak = peak_memory_mb(Probe(job, system, row.rate))
            if peak is not None:
                write_atomic(entry, json.dumps(round(peak)))
        memory[system.label] = json.loads(entry.read_text()) if entry.is_file() else None
    return memory
