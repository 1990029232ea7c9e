"""Folders of outputs to make tests from, ready tests, and a real server for them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("pyloudnorm", reason="the extra `eval` is not installed")
pytest.importorskip("scipy", reason="the extra `eval` is not installed")

from hifispeech.listening.create import Options, create

RATE = 48000
NOISE = {"quartz": 0.002, "basalt": 0.02, "mica": 0.006}  # the systems and how far they are from the truth
GAIN = {"quartz": 0.3, "basalt": 1.0, "mica": 0.6}


class Folders:
    """`truth/` and a folder for each system below `root`."""

    def __init__(self, root: Path, speech: Callable[..., np.ndarray]) -> None:
        self.root, self._speech = root, speech
        self.truth = root / "truth"

    def add(self, conditions: tuple[str, ...], clips: int, seconds: float) -> "Folders":
        """The same clips in every condition; "" is none."""
        for number in range(clips):
            clean = self._speech(seconds, RATE, seed=number)
            self.write(self.truth / f"clip{number}.wav", clean)
            for condition in conditions:
                for place, name in enumerate(NOISE):
                    noise = np.random.default_rng([number, place]).standard_normal(len(clean))
                    path = self.root / name / condition / f"clip{number}.wav"
                    self.write(path, GAIN[name] * (clean + NOISE[name] * noise))
        return self

    def write(self, path: Path, audio: np.ndarray, rate: int = RATE) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio, rate, "PCM_24")
        return path

    def systems(self, *names: str) -> dict[str, Path]:
        return {name: self.root / name for name in names}


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory, synthetic_speech: Callable[..., np.ndarray]) -> Path:
    """Folders with two clips in two conditions, and a test of each kind made from them; to be copied."""
    root = tmp_path_factory.mktemp("templates")
    made = Folders(root / "folders", synthetic_speech).add(("4000", "16000"), 2, 0.6)
    systems = made.systems("quartz", "basalt")
    create(made.truth, systems, root / "abx")
    create(made.truth, systems, root / "mushra", Options(kind="mushra"))
    return root


@pytest.fixture
def folders(tmp_path: Path, synthetic_speech: Callable[..., np.ndarray], templates: Path) -> Folders:
    """Two clips in two conditions."""
    shutil.copytree(templates / "folders", tmp_path, dirs_exist_ok=True)
    return Folders(tmp_path, synthetic_speech)


@pytest.fixture
def empty_folders(tmp_path: Path, synthetic_speech: Callable[..., np.ndarray]) -> Folders:
    return Folders(tmp_path, synthetic_speech)


@pytest.fixture
def abx_test(folders: Folders, templates: Path) -> Path:
    """Four questions: two clips, two conditions, one pair."""
    return Path(shutil.copytree(templates / "abx", folders.root / "test"))


@pytest.fixture
def mushra_test(folders: Folders, templates: Path) -> Path:
    """Four questions with five sliders: the hidden reference, two systems, both anchors."""
    return Path(shutil.copytree(templates / "mushra", folders.root / "test"))


class Served:
    """A `hifispeech abx serve` process that can be killed and started again at its address."""

    def __init__(self, test: Path) -> None:
        self.test, self._process, self.port, self.address = test, None, 0, ""
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "hifispeech", "abx", "serve", str(self.test), "--port", str(self.port)]
        self._process: Any = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # A test run in the background of a script ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        line = self._process.stdout.readline()
        assert " listening at http://127.0.0.1:" in line, line
        self.address = line.split(" at ")[1].split()[0]
        self.port = int(self.address.rsplit(":", 1)[1].strip("/"))

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(300)


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Any]]:
    """Starts servers, and kills them at the end of the test."""
    started: list[Served] = []

    @contextmanager
    def ended() -> Iterator[None]:
        try:
            yield
        finally:
            for server in started:
                server.kill()

    def start(test: Path) -> Served:
        pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
        pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
        started.append(Served(test))
        return started[-1]

    with ended():
        yield start
