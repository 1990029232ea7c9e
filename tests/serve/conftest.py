"""Servers that the tests of this folder share, files to send, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
import httpx

from .browser import CHROMIUM, Open, Watched, running_server

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


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server for the page."""
    with running_server(tmp_path_factory.mktemp("serve") / "data") as address:
        yield address


@pytest.fixture(scope="module")
def browser(phone_clip: Path) -> Iterator[Any]:
    """Chromium with a microphone into which the phone call is spoken, and no way out of this machine."""
    flags = [
        "--no-sandbox",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={phone_clip}",
    ]
    playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no browser at {CHROMIUM}; install chromium or set HIFISPEECH_CHROMIUM")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """`open_page(address, ...)` opens a page; nothing may have gone wrong on it in the end."""
    contexts, pages = [], []

    def open_page(address: str, **options: Any) -> Watched:
        contexts.append(browser.new_context(**options))
        pages.append(Watched(contexts[-1], address))
        return pages[-1]

    yield open_page
    for page in pages:
        page.check()
    for context in contexts:
        context.close()
