"""The worker process: `python -m hifispeech.serve.workers.worker OPTIONS` decodes, upscales, inspects.

It reads tasks from standard input and answers on standard output, one JSON object a line, so that a decoder
that crashes, hangs or asks for too much memory takes nothing but itself down. Messages: `ready`; then for
each task `progress` with `done` (0 to 1), for an upscaling one `head`, and at the end `done` or `error`.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hifispeech
from hifispeech.audio.io.reader import AudioReader, open_reader
from hifispeech.audio.io.writer import AudioWriter, choose_encoding
from hifispeech.audio.resample import check_rate, output_length
from hifispeech.errors import AudioError, HifispeechError
from hifispeech.files import fsync
from hifispeech.infer.edges import RATE, Track, fixed_track, measure

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
    with open_reader(task.source) as reader:
        task.check_channels(reader.info.channels)
        claimed_s = reader.info.duration_s

    def on_progress(done_s: float) -> None:
        task.check_length(done_s)
        send({"event": "progress", "done": share(done_s, claimed_s)})

    found = hifispeech.inspect(task.source, on_progress=on_progress)
    send({"event": "done", "report": found._replace(path=task.name)._asdict()})


def upscale(upscaler: hifispeech.Upscaler, task: Task, send: Send) -> None:
    """Write the upscaled file to `task.target`, telling what was measured and how far it is."""
    target = Path(task.target)
    with open_reader(task.source) as reader:
        info = reader.info
        check_rate(info.sample_rate)
        task.check_channels(info.channels)
        encoding = choose_encoding(target, info)
        try:
            AudioWriter(target, RATE, info.channels, encoding=encoding, force=True)
            fixed = None if task.cutoff_hz is None else fixed_track(task.cutoff_hz, info.sample_rate)
        except AudioError as error:
            raise TaskError("bad_parameter", str(error)) from error
        counter = Counter(reader, task, send)
        tracks = measure(counter.blocks(), info.sample_rate, info.channels)
        if fixed is not None:
            tracks = [fixed] * info.channels
        frames = output_length(counter.frames, info.sample_rate, RATE)
        writer = AudioWriter(
            target, RATE, info.channels, encoding=encoding, force=True, tags=info.tags, frames=frames
        )
        with writer:
            part, _ = writer.part()
            send({"event": "head", "part": str(part), **bands(tracks)})
            blocks = reader.blocks(info.sample_rate)
            for block in upscaler.run_blocks(blocks, info.sample_rate, info.channels, tracks):
                writer.write(block)
                done = MEASURE_SHARE + (1 - MEASURE_SHARE) * share(writer.frames, frames)
                size = writer.part()[1] if writer.grows_only else 0
                send({"event": "progress", "done": done, "size": size})
            if writer.frames != frames:
                raise RuntimeError(f"{writer.frames} samples became of {frames}")
    fsync(target)
    report = {
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "duration_s": frames / RATE,
        **bands(tracks),
        "peak": writer.peak,
        "samples_over": writer.samples_over,
        "warnings": list(reader.warnings),
    }
    send({"event": "done", "size": target.stat().st_size, "report": report})


class Counter:
    """Hands on the blocks of a reader, counts their samples and ends the task at the limit."""

    def __init__(self, reader: AudioReader, task: Task, send: Send) -> None:
        self.reader, self.task, self.send, self.frames = reader, task, send, 0

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks of a second."""
        info = self.reader.info
        for block in self.reader.blocks(info.sample_rate):
            self.frames += block.shape[1]
            seconds = self.frames / info.sample_rate
            self.task.check_length(seconds)
            self.send({"event": "progress", "done": MEASURE_SHARE * share(seconds, info.duration_s)})
            yield block


def bands(tracks: list[Track]) -> dict[str, list[float] | list[bool]]:
    """As in `FileReport`: the lowest cutoff over time, full band and silence of each channel."""
    channels = [[band for _, band in track] for track in tracks]
    return {
        "cutoff_hz": [min(0.0 if band.is_silent else band.cutoff_hz for band in each) for each in channels],
        "full_band": [all(band.is_full_band for band in each) for each in channels],
        "silent": [all(band.is_silent for band in each) for each in channels],
    }


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
