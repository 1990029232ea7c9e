"""The worker process: `python -m hifispeech.serve.workers.worker OPTIONS` decodes, upscales, inspects.

It reads tasks from standard input and answers on standard output, one JSON object a line, so that a decoder
that crashes, hangs or asks for too much memory takes nothing but itself down. Messages: `ready`; then for
each task `progress` with `done` (0 to 1), for an upscaling one `head`, and at the end `done` or `error`.
"""

import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hifispeech
from hifispeech.audio.resample import check_rate, output_length
from hifispeech.errors import AudioError, HifispeechError
from hifispeech.files import fsync
from hifispeech.infer.edges import RATE
from hifispeech.infer.file import InputFile, summary_of

MEASURE_SHARE = 0.1  # of the time of a task, for the progress
Send = Callable[[dict[str, Any]], None]


class TaskError(Exception):
    """Ends a task with a code the server knows how to answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Task:
    """What the server asks for. `source` and `target` are files of the server, `name` is the client's."""

    action: str
    source: str
    name: str
    max_s: float
    max_channels: int
    target: str = ""
    cutoff_hz: float | None = None

    def check_channels(self, channels: int) -> None:
        """Each channel is work of its own."""
        if channels > self.max_channels:
            raise TaskError(
                "too_long", f"{self.name}: has {channels} channels; up to {self.max_channels} are taken"
            )

    def check_length(self, seconds: float) -> None:
        """By what is really there, whatever the header claims."""
        if seconds > self.max_s:
            raise TaskError(
                "too_long",
                f"{self.name}: holds more than {self.max_s / 60:g} minutes of audio, the limit here; "
                "send it in parts or, for longer ones, as a job",
            )


def main() -> None:
    """Serve tasks until standard input ends, which it does when the server does."""
    options = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when a worker ends
    leave_with_parent()
    logging.getLogger("hifispeech").setLevel(logging.ERROR)  # warnings are in the reports
    # A library that prints must not get into the protocol.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        upscaler = hifispeech.Upscaler(options["model"], options["device"], threads=options["threads"])
    except HifispeechError as error:
        send({"event": "error", "code": "model", "message": str(error)})
        return
    limit_memory(options["memory_mb"])
    send({"event": "ready"})
    for line in sys.stdin:
        task = Task(**json.loads(line))
        try:
            run(upscaler, task, send)
        except BrokenPipeError:
            return  # the server is gone
        except MemoryError:
            send({"event": "error", "code": "memory", "message": f"{task.name}: needs too much memory"})
            return  # what is left may be damaged: a fresh process takes over
        except Exception as error:  # whatever a decoder came up with: the server stays up
            send(explain(error, task))


def run(upscaler: hifispeech.Upscaler, task: Task, send: Send) -> None:
    """Do one task."""
    if task.action == "inspect":
        inspect(task, send)
    else:
        upscale(upscaler, task, send)


def explain(error: Exception, task: Task) -> dict[str, Any]:
    """The message for an error; it names the client's file, never one of the server's."""
    code = error.code if isinstance(error, TaskError) else "bad_audio"
    if not isinstance(error, (TaskError, HifispeechError)):
        code = "internal"
    text = str(error) or type(error).__name__
    for path in (task.source, task.target):
        text = text.replace(path, task.name) if path else text
    return {"event": "error", "code": code, "message": text}


def inspect(task: Task, send: Send) -> None:
    """Send what is in the file."""
    with InputFile(task.source) as file:
        task.check_channels(file.info.channels)
        claimed_s = file.info.duration_s

    def on_progress(done_s: float) -> None:
        task.check_length(done_s)
        send({"event": "progress", "done": share(done_s, claimed_s)})

    found = hifispeech.inspect(task.source, on_progress=on_progress)
    send({"event": "done", "report": found._replace(path=task.name)._asdict()})


def upscale(upscaler: hifispeech.Upscaler, task: Task, send: Send) -> None:
    """Write the upscaled file to `task.target`, telling what was measured and how far it is."""
    target = Path(task.target)
    with InputFile(task.source) as file:
        info = file.info
        check_rate(info.sample_rate)
        task.check_channels(info.channels)
        try:
            file.writer(target, force=True)
            if task.cutoff_hz is not None:
                file.fix(task.cutoff_hz)
        except AudioError as error:
            raise TaskError("bad_parameter", str(error)) from error
        fixed = file.tracks

        def watch(block: np.ndarray, seconds: float) -> None:
            task.check_length(seconds)
            send({"event": "progress", "done": MEASURE_SHARE * share(seconds, info.duration_s)})

        file.measure(watch)
        file.tracks = fixed or file.tracks
        frames = output_length(file.frames, info.sample_rate, RATE)
        writer = file.writer(target, force=True, frames=frames)

        def on_block() -> None:
            done = MEASURE_SHARE + (1 - MEASURE_SHARE) * share(writer.frames, frames)
            send({"event": "progress", "done": done, "size": writer.part()[1] if writer.grows_only else 0})

        with writer:
            part, _ = writer.part()
            names = ("cutoff_hz", "full_band", "silent")
            head = dict(zip(names, summary_of(file.tracks), strict=True))
            send({"event": "head", "part": str(part), **head})
            file.generate(upscaler.run_blocks, writer, on_block)
            if writer.frames != frames:
                raise RuntimeError(f"{writer.frames} samples became of {frames}")
    fsync(target)
    report = dataclasses.asdict(file.report(target, writer))
    for path in ("input", "output"):  # the names of the server are of no concern to the client
        del report[path]
    send({"event": "done", "size": target.stat().st_size, "report": report})


def share(done: float, total: float | None) -> float:
    """Progress from 0 to 1; 0 where the total is not known."""
    return min(1.0, done / total) if total else 0.0


def limit_memory(beyond_mb: float) -> None:
    """Let the process take so much more than it has now: a decoder that asks for more gets a MemoryError."""
    statm = Path("/proc/self/statm")
    if not statm.exists():  # not Linux: no limit that works
        return
    import resource

    # Private writable memory: code and the reserved address space of threads do not count.
    now = int(statm.read_text().split()[5]) * resource.getpagesize()
    limit = now + round(beyond_mb * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def leave_with_parent() -> None:
    """Be killed when the server is, even in the middle of a decoder (Linux; else at the next message)."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main()
