"""Fixtures shared by all tests: the edge contract, synthetic speech, real clips, the project's audio data."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests that import ONNX Runtime before our package
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes share the cores, threads on top would fight

ROOT = Path(__file__).resolve().parents[1]
EDGE_SAMPLE_RATE = 16000


SLOW_TIMEOUT_S = 900  # of others: `timeout` in pyproject.toml
GRACE_S = 20  # pytest-timeout comes first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes (`pytest -n 2`): a file stays in one, as its fixtures are dear; slow tests may be."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))
        if item.get_closest_marker("slow") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


_warden: list[subprocess.Popen[bytes]] = []


def _allow(seconds: float) -> None:
    """From now on this process may take so long (0: any time), or `warden.py` ends it."""
    if not _warden:
        mark = f"{os.getpid()}-{time.time_ns()}"
        words = [sys.executable, "-I", "-S", str(Path(__file__).parent / "warden.py"), str(os.getpid()), mark]
        _warden.append(subprocess.Popen(words, stdin=subprocess.PIPE, bufsize=0, start_new_session=True))
        os.environ["HIFISPEECH_TEST_RUN"] = mark  # inherited by whatever the tests start
    pipe = _warden[0].stdin
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):
        pipe.write(b"%f\n" % seconds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Behind pytest-timeout, for what it cannot end: children, held locks, a teardown after a failure."""
    marker, config = item.get_closest_marker("timeout"), item.config
    limit = config.getoption("timeout", None)
    if limit is None:
        limit = marker.args[0] if marker and marker.args else config.getini("timeout")
    watched = sys.platform == "linux" and not config.getoption("usepdb") and float(limit or 0) > 0
    if watched:
        _allow(float(limit) + GRACE_S)
        if "PYTEST_XDIST_WORKER" in os.environ:  # what pytest-timeout writes there is seen by nobody
            stderr = config.stash.get(fault_handler_stderr_fd_key, 2)
            faulthandler.dump_traceback_later(max(1.0, float(limit) - 1.0), file=stderr)
    try:
        return (yield)
    finally:
        if watched:
            faulthandler.cancel_dump_traceback_later()
            _allow(0)


@dataclass(frozen=True)
class EdgeCase:
    """One input that audio code tends to get wrong. `audio` is float32 [channels, time]."""

    name: str
    audio: np.ndarray
    sample_rate: int = EDGE_SAMPLE_RATE

    @property
    def is_finite(self) -> bool:
        """False for the NaN case, which functions must refuse with an `AudioError` or other `ValueError`."""
        return bool(np.isfinite(self.audio).all())


def _resonator_response(freqs_hz: np.ndarray, formants_hz: tuple[float, ...]) -> np.ndarray:
    """Magnitude [freq] of a vocal tract with these formants: no DC, 12 dB less per octave down to -75 dB."""
    response = np.zeros_like(freqs_hz)
    for index, formant_hz in enumerate(formants_hz):
        width_hz = 60.0 + 0.06 * formant_hz
        response += 0.6**index / np.sqrt(1.0 + ((freqs_hz - formant_hz) / width_hz) ** 2)
    tilt = 1.0 / (1.0 + (freqs_hz / 1500.0) ** 2) + 1.8e-4
    without_dc = freqs_hz**2 / (freqs_hz**2 + 80.0**2)
    return response * tilt * without_dc


def _fricative_response(freqs_hz: np.ndarray, peak_hz: float) -> np.ndarray:
    """Magnitude [freq] of an s-like or sh-like noise: rises up to `peak_hz`, then falls slowly."""
    ratio = np.maximum(freqs_hz, 1.0) / peak_hz
    return np.where(ratio < 1.0, ratio**3, ratio**-1.0)


def _syllable(length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """One voiced sound or fricative [time], peak 1, with soft ends."""
    freqs_hz = np.fft.rfftfreq(length, 1.0 / sample_rate)
    if rng.random() < 0.65:
        pitch_hz = rng.uniform(90.0, 220.0) * np.linspace(1.0, rng.uniform(0.8, 1.2), length)
        phase = np.cumsum(pitch_hz) / sample_rate
        source = np.diff(np.floor(phase), prepend=0.0) + 0.01 * rng.standard_normal(length)
        formants = (
            rng.uniform(300, 800),
            rng.uniform(900, 2300),
            rng.uniform(2400, 3200),
            3700.0,
            5200.0,
            7500.0,
        )
        response = _resonator_response(freqs_hz, formants)
    else:
        source = rng.standard_normal(length)
        response = _fricative_response(freqs_hz, rng.uniform(2500.0, 8000.0))
    sound = np.fft.irfft(np.fft.rfft(source) * response, length)
    edge = min(length // 4, round(0.02 * sample_rate)) + 1
    ramp = np.ones(length)
    ramp[:edge] = np.linspace(0.0, 1.0, edge)
    ramp[length - edge :] = np.minimum(ramp[length - edge :], np.linspace(1.0, 0.0, edge))
    sound *= ramp
    return sound / max(float(np.abs(sound).max()), 1e-9)


def make_synthetic_speech(seconds: float, sample_rate: int = 48000, seed: int = 0) -> np.ndarray:
    """Speech-like signal up to the Nyquist frequency: voiced pulses, fricatives, pauses, a faint noise floor.

    Args:
        seconds: length; the result has `round(seconds * sample_rate)` samples.
        sample_rate: in Hz.
        seed: the same seed gives the same signal at the same rate.

    Returns:
        float32 [time], peak 0.5.
    """
    rng = np.random.default_rng(seed)
    total = round(seconds * sample_rate)
    audio = 5e-4 * rng.standard_normal(total)
    position = 0
    while position < total:
        length = round(rng.uniform(0.08, 0.25) * sample_rate)
        if rng.random() < 0.8:
            part = _syllable(length, sample_rate, rng) * rng.uniform(0.2, 0.5)
            audio[position : position + length] += part[: total - position]
        position += length
    peak = float(np.abs(audio).max(initial=0.0))
    return (audio * (0.5 / max(peak, 1e-9))).astype(np.float32)


def _edge_cases() -> dict[str, EdgeCase]:
    rate = EDGE_SAMPLE_RATE
    speech = make_synthetic_speech(0.5, rate, seed=1)
    full_band = make_synthetic_speech(0.5, 48000, seed=2)
    with_nan = speech.copy()
    with_nan[1000] = np.nan
    eight = np.stack([make_synthetic_speech(0.2, rate, seed=10 + channel) for channel in range(8)])
    cases = [
        EdgeCase("silence", np.zeros((1, rate // 2), np.float32)),
        EdgeCase("one_sample", np.full((1, 1), 0.25, np.float32)),
        EdgeCase("short_50ms", speech[None, : rate // 20]),
        EdgeCase("full_band", full_band[None], sample_rate=48000),
        EdgeCase("stereo", np.stack([speech, make_synthetic_speech(0.5, rate, seed=3)])),
        EdgeCase("nan", with_nan[None]),
        EdgeCase("clipped", np.clip(speech * 6.0, -1.0, 1.0)[None]),
        EdgeCase("dc", (speech * 0.5 + 0.4)[None]),
        EdgeCase("eight_channels", eight),
    ]
    return {case.name: case for case in cases}


EDGE_CASES = _edge_cases()


@pytest.fixture(params=list(EDGE_CASES))
def edge_case(request: pytest.FixtureRequest) -> EdgeCase:
    """The edge contract (style rule 6): a test that takes this runs once per case, NaN included."""
    case = EDGE_CASES[request.param]
    return EdgeCase(case.name, case.audio.copy(), case.sample_rate)


@pytest.fixture(params=[name for name, case in EDGE_CASES.items() if case.is_finite])
def finite_edge_case(request: pytest.FixtureRequest) -> EdgeCase:
    """The edge contract without the NaN case."""
    case = EDGE_CASES[request.param]
    return EdgeCase(case.name, case.audio.copy(), case.sample_rate)


@pytest.fixture(scope="session")
def synthetic_speech() -> Callable[..., np.ndarray]:
    """The generator `synthetic_speech(seconds, sample_rate=48000, seed=0) -> float32 [time]`."""
    return make_synthetic_speech


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, synthetic_speech: Callable[..., np.ndarray]) -> Path:
    """Three speakers with two clips of a second each, written in the format of `prepare`."""
    from hifispeech.datasets.shards import AUDIO_FILE, CLIPS_FILE

    folder = tmp_path_factory.mktemp("shards")
    clips, parts, offset = [], [], 0
    for number, (speaker, split) in enumerate((("a", "train"), ("b", "train"), ("c", "valid"))):
        for take in range(2):
            samples = np.round(synthetic_speech(1.0, seed=10 * number + take) * 32767).astype("<i2")
            clip = {"offset": offset, "length": len(samples), "split": split, "source": "synthetic"}
            clip |= {"speaker": speaker, "licence": "CC0", "bandwidth_hz": 24000.0, "lossless": True}
            clips.append(clip)
            parts.append(samples)
            offset += len(samples)
    (folder / AUDIO_FILE).write_bytes(np.concatenate(parts).tobytes())
    (folder / CLIPS_FILE).write_text(json.dumps(clips))
    return folder


@pytest.fixture(scope="session")
def repo_dir() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def phone_clip() -> Path:
    """Real telephone-band speech, 8 kHz mono (CC0, see examples/README.md)."""
    return ROOT / "examples" / "phone_8k.wav"


@pytest.fixture(scope="session")
def speech_clip() -> Path:
    """Real full-band English speech, 48 kHz mono (CC0, see tests/data/README.md)."""
    return ROOT / "tests" / "data" / "speech_48k.flac"


@pytest.fixture(scope="session")
def dutch_clip() -> Path:
    """Real Dutch speech, 48 kHz mono, band up to about 20 kHz (CC0, see tests/data/README.md)."""
    return ROOT / "tests" / "data" / "speech_nl_48k.flac"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The project's audio data, from HIFISPEECH_DATA or ../shared/data; skips where there is none."""
    path = Path(os.environ.get("HIFISPEECH_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "manifest.csv").is_file():
        pytest.skip(f"no audio data at {path}; set HIFISPEECH_DATA to the folder that holds manifest.csv")
    return path


class ServerProcess:
    """`hifispeech serve` as a process of its own, on a free loopback port; its log is `log`, JSON lines."""

    def __init__(self, folder: Path, *options: object, env: dict[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.data, self.log_file = folder / "data", folder / "server.log"
        words = ["serve", "--port", "0", "--data", self.data, "--workers", "1", *options]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hifispeech", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        self.url = f"http://127.0.0.1:{self._port()}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line of the log so far."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def workers(self) -> list[int]:
        """Process ids of the server's children."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def temporary(self) -> list[Path]:
        """Temporary files there are."""
        return sorted(self.data.glob("tmp/**/*"))

    def kill(self) -> None:
        """As a power failure would: at once, without a word."""
        self.process.kill()
        self.process.wait(timeout=60)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)

    def _port(self) -> int:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            for record in self.log:
                if record["event"] == "listening":
                    return record["port"]
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise RuntimeError(f"the server did not start: {self.log_file.read_text()}")


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """`start_server(*options, folder=None, env=None) -> ServerProcess`; all are ended at the end."""
    started: list[ServerProcess] = []

    def start(
        *options: object, folder: Path | None = None, env: dict[str, str] | None = None
    ) -> ServerProcess:
        server = ServerProcess(folder or tmp_path_factory.mktemp("server"), *options, env=env)
        started.append(server)
        return server

    yield start
    for server in started:
        with contextlib.suppress(ProcessLookupError):
            server.kill()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and data sets are worked on here, not in processes, which take seconds to start."""
    from hifispeech.datasets import prepare
    from hifispeech.runs import folder

    def run_here(setup: Any, tasks: Any, workers: int, **options: Any) -> Iterator[Any]:
        handler = setup()
        return ((task, handler(task, lambda fraction: None)) for task in tasks)

    for module in (folder, prepare):
        monkeypatch.setattr(module, "run_tasks", run_here)
