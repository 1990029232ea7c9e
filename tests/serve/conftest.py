"""One server that the tests of this folder share, and files to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
import httpx

KEY = "a-key-of-more-than-sixteen-characters"


@pytest.fixture(scope="session")
def live(start_server: Callable[..., Any]) -> Any:
    """A running server with its defaults (`ServerProcess`)."""
    return start_server()


@pytest.fixture(scope="session")
def small(start_server: Callable[..., Any]) -> Any:
    """A running server with tight limits and an API key."""
    limits = ("--max-upload", 1, "--max-minutes", 0.2, "--queue", 0, "--streams", 1, "--job-queue", 1)
    others = ("--stall", 4, "--max-channels", 2, "--cors-origin", "https://friend.example")
    return start_server(*limits, *others, env={"HIFISPEECH_API_KEY": KEY})


@pytest.fixture
def http(live: Any) -> Iterator[httpx.Client]:
    """A plain HTTP client of `live`."""
    with httpx.Client(base_url=live.url, timeout=120) as client:
        yield client


@pytest.fixture
def http_small(small: Any) -> Iterator[httpx.Client]:
    """A plain HTTP client of `small`, with the key."""
    with httpx.Client(base_url=small.url, timeout=120, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture(scope="session")
def long_clip(phone_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred seconds at 8 kHz: seconds of work on any machine."""
    audio, rate = soundfile.read(phone_clip, dtype="int16")
    path = tmp_path_factory.mktemp("clips") / "long.wav"
    soundfile.write(path, np.resize(audio, 100 * rate), rate)
    return path


@pytest.fixture(scope="session")
def short_clip(phone_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of stereo at 8 kHz, the channels apart."""
    audio, rate = soundfile.read(phone_clip, dtype="int16")
    path = tmp_path_factory.mktemp("clips") / "short.wav"
    soundfile.write(path, np.stack([audio[8000:16000], audio[12000:20000]], axis=1), rate)
    return path
