"""Peak memory of a system, in a process of its own."""

import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hifispeech.evaluate import lowrate, systems
from hifispeech.evaluate.score import FAILURES, Job, read_truth
from hifispeech.evaluate.systems import System
from hifispeech.runs.processes import Crashed, run_tasks


@dataclass(frozen=True)
class Probe:
    """A model or baseline to run once on a clip."""

    job: Job
    system: System
    rate: int


def peak_memory_mb(probe: Probe) -> float | None:
    """Peak resident memory in MB of a fresh process that runs the system on the clip, the input included.

    None where the system fails, or the platform does not tell.
    """
    [(_, peak_mb)] = run_tasks(functools.partial(_prober), [probe], 1)
    return None if isinstance(peak_mb, Crashed) else peak_mb


def _prober() -> Callable[[Probe, Callable[[float], None]], float | None]:
    return lambda probe, progress: _measure(probe)


def _measure(probe: Probe) -> float | None:
    try:
        truth = read_truth(probe.job.clip.path, probe.job.settings.max_s)
        low = lowrate.low_rate(truth.audio, probe.rate, "sinc")
        with tempfile.TemporaryDirectory() as folder:
            systems.run(probe.system, low, probe.rate, probe.job.clip.name, Path(folder))
    except FAILURES:
        return None  # scoring reports it
    return _own_peak_mb()


def _own_peak_mb() -> float | None:
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: getrusage would count what the parent had before this program was loaded
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6
