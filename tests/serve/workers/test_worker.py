"""The worker process by itself: its protocol, its limits, and that it leaves with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hifispeech.serve.settings import Settings

OPTIONS = {"model": "fast", "device": "cpu", "threads": 1, "memory_mb": 1000.0}
LIMITS = {"max_s": 60.0, "max_channels": 2}


def converse(*tasks: dict[str, Any], options: dict[str, Any] = OPTIONS) -> list[list[dict[str, Any]]]:
    """What a worker says to each task; it leaves when there is no other."""
    words = [sys.executable, "-m", "hifispeech.serve.workers.worker", json.dumps(options)]
    lines = "".join(json.dumps({**LIMITS, **task}) + "\n" for task in tasks)
    done = subprocess.run(words, input=lines, capture_output=True, text=True, timeout=240, check=True)
    assert done.stderr == "", "what has to be said is said in the answers"
    answers: list[list[dict[str, Any]]] = [[]]
    for message in map(json.loads, done.stdout.splitlines()):
        answers[-1].append(message)
        if message["event"] != "progress" and message["event"] != "head":
            answers.append([])
    return answers[:-1]


def test_messages_of_a_task(short_clip: Path, tmp_path: Path) -> None:
    target, bad = tmp_path / "out.ogg", tmp_path / "bad.wav"
    bad.write_bytes(b"no audio" * 99)
    tasks = [
        {"action": "upscale", "source": str(short_clip), "name": "a.wav", "target": str(target)},
        {"action": "inspect", "source": str(bad), "name": "b.wav"},
        {"action": "inspect", "source": str(short_clip), "name": "c.wav", "max_s": 0.5},
        {"action": "inspect", "source": str(short_clip), "name": "d.wav"},
    ]
    ready, first, second, third, fourth = converse(*tasks)
    assert ready == [{"event": "ready"}]
    done = [message["done"] for message in first if message["event"] == "progress"]
    assert done == sorted(done) and 0 < done[0] < done[-1] <= 1
    assert [message["event"] for message in first if message["event"] != "progress"] == ["head", "done"]
    assert first[-1]["size"] == target.stat().st_size and first[-1]["report"]["channels"] == 2
    (error,) = second
    assert error["code"] == "bad_audio" and error["message"].startswith("b.wav: ")
    assert str(tmp_path) not in error["message"]
    assert third[-1]["code"] == "too_long"
    assert fourth[-1]["report"]["path"] == "d.wav", "a worker goes on after a failure"


def test_warnings_are_in_the_report_only(short_clip: Path, tmp_path: Path) -> None:
    """Found by fuzzing: they filled the pipe that nobody read, and the worker stood still."""
    damaged = tmp_path / "a.flac"
    soundfile.write(damaged, np.random.default_rng(0).uniform(-0.1, 0.1, 8000 * 20), 8000)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    damaged.write_bytes(content)
    _, said = converse({"action": "inspect", "source": str(damaged), "name": "a.flac"})
    assert said[-1]["report"]["warnings"]


@pytest.mark.parametrize("kind", ["wav", "ogg", "opus"])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_has_grown_stays(kind: str, channels: int, tmp_path: Path) -> None:
    """At each message the file begins with the bytes that were there before: it can be sent on."""
    from hifispeech.serve.workers import worker

    rng = np.random.default_rng(1)
    source = tmp_path / "in.flac"
    soundfile.write(source, 0.1 * rng.standard_normal((4 * 44100 + 7, channels)), 44100, "PCM_24")
    target = tmp_path / f"out.{kind}"
    task = worker.Task("upscale", str(source), "in.flac", 60.0, 2, str(target))
    grown: list[bytes] = []
    part = Path()

    def listen(message: dict[str, Any]) -> None:
        nonlocal part
        part = Path(message.get("part", part))
        if size := message.get("size"):
            data = (part if part.exists() else target).read_bytes()
            assert len(data) >= size and (not grown or data.startswith(grown[-1]))
            grown.append(data[:size])

    from hifispeech import Upscaler

    worker.upscale(Upscaler(threads=1), task, listen)
    assert len(grown) > 3 and grown[-1] == target.read_bytes()


@pytest.mark.parametrize("encoding", ["pcm_16", "pcm_24", "float"])
@pytest.mark.parametrize("limit", [0xFFFFFFFF, 1000])
def test_wav_of_known_length_has_its_header_from_the_start(
    encoding: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the same, and its first bytes are never changed; as RIFF and as RF64."""
    from hifispeech.audio.io import encode
    from hifispeech.audio.io.writer import AudioWriter

    monkeypatch.setattr(encode, "RIFF_LIMIT", limit)
    audio = 0.1 * np.random.default_rng(0).standard_normal((3, 2001)).astype(np.float32)
    files = []
    for frames in (None, audio.shape[1]):
        path = tmp_path / f"{frames}.wav"
        with AudioWriter(path, 48000, 3, encoding=encoding, frames=frames) as writer:
            part, header_bytes = writer.part()
            header = part.read_bytes()
            writer.write(audio)
            assert writer.grows_only == (frames is not None)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert files[1].startswith(header) and header_bytes == len(header)
    assert files[1].startswith(b"RIFF" if limit > 1000 else b"RF64")


def test_missing_model_is_told(tmp_path: Path) -> None:
    (answer,) = converse(options={**OPTIONS, "model": str(tmp_path / "none.onnx")})
    assert answer[0]["code"] == "model" and "none.onnx" in answer[0]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_is_limited() -> None:
    code = (
        "from hifispeech.serve.workers.worker import limit_memory\n"
        "limit_memory(100)\n"
        "bytearray(50_000_000)\n"
        "try:\n    bytearray(200_000_000)\nexcept MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "refused\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_stopped_worker_leaves_when_its_parent_is_killed() -> None:
    """As a decoder that hangs would: it reads and writes nothing, so that only the system can end it."""
    words = [sys.executable, "-m", "hifispeech.serve.workers.worker", json.dumps(OPTIONS)]
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
    deadline = time.monotonic() + 60
    while (stat := Path(f"/proc/{pid}/stat")).exists() and ") Z" not in stat.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_settings_hold_what_the_command_line_says() -> None:
    """The defaults of the flags and of the class are the same."""
    import inspect

    from hifispeech.cli.serve import serve

    defaults = {name: item.default for name, item in inspect.signature(serve).parameters.items()}
    renamed = {"max_upload": "max_upload_mb", "timeout": "timeout_s", "stall": "stall_s"}
    renamed |= {"grace": "grace_s", "worker_memory": "worker_memory_mb"}
    settings = Settings(Path("x"))
    for name, value in defaults.items():
        field = renamed.get(name, name)
        if hasattr(settings, field) and value is not None and field != "data":
            assert getattr(settings, field) == value, name
