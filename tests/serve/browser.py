"""A real `hifispeech serve`, and its page in a browser: what the tests of the page share."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CHROMIUM = Path(os.environ.get("HIFISPEECH_CHROMIUM", "/usr/bin/chromium"))
PATIENCE_S = 60
KEY = "an-api-key-for-the-tests"
RINGED = """[document.activeElement, document.activeElement.nextElementSibling].some(
  (element) => element && getComputedStyle(element).outlineWidth === "3px"
)"""
# Keep what is connected to the loudspeakers, and hear what they hear.
EAR = """
const connect = AudioNode.prototype.connect;
window.outputs = [];
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode && target.context instanceof AudioContext) {
    window.outputs.push(this);
    window.ear ??= new AnalyserNode(target.context, { fftSize: 8192, smoothingTimeConstant: 0 });
    connect.call(this, window.ear);
  }
  return connect.call(this, target, ...rest);
};
// The loudest level in dB between two frequencies, now.
window.hear = (low_hz, high_hz) => {
  const levels = new Float32Array(4096);
  window.ear.getFloatFrequencyData(levels);
  return Math.max(...levels.slice(Math.round(low_hz / 48000 * 8192), Math.round(high_hz / 48000 * 8192)));
};
"""


@contextmanager
def running_server(data: Path, **variables: str) -> Iterator[str]:
    """A `hifispeech serve` process of its own on a free port; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "hifispeech", "serve", "--workers", "1"]
    words += ["--port", str(port), "--data", str(data)]
    log = data.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env={**os.environ, **variables})
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{address}healthz", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Watched:
    """A page of which nothing wrong goes unnoticed."""

    def __init__(self, context: Any, address: str) -> None:
        self.page = context.new_page()
        self.address, self.errors, self.requests = address, [], []
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.page.add_init_script(EAR)
        self.page.on("console", lambda message: self._console(message))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def _console(self, message: Any) -> None:
        # The browser itself notes every status above 399; what the page does about those is tested.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def check(self) -> None:
        assert self.errors == []
        inside = (self.address, f"blob:{self.address}", "data:")
        assert [url for url in self.requests if not url.startswith(inside)] == []

    def give(self, file: Path) -> None:
        self.page.set_input_files("#file", file)

    def upscale(self, file: Path) -> None:
        """Choose a file and wait until both lanes are drawn."""
        self.give(file)
        self.page.wait_for_selector("#result:visible")
        self.until(
            "[...document.querySelectorAll('.lane:not([hidden]) canvas')].every((canvas) => canvas.width)"
        )

    def until(self, expression: str) -> None:
        """Wait until it is true; Playwright's own way would need `unsafe-eval` in the page."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            self.page.wait_for_timeout(30)

    def gains(self) -> list[float]:
        return self.page.evaluate("outputs.map((node) => node.gain.value)")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def fits(self) -> bool:
        """There is nothing to scroll sideways to."""
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


Open = Callable[..., Watched]


def downloaded(page: Watched, click: Callable[[], None], folder: Path) -> Path:
    with page.page.expect_download() as waiting:
        click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def picture(page: Watched, lane: int) -> np.ndarray:
    """Red channel of a spectrogram as painted, [bins from 24 kHz down, columns]."""
    url = page.page.evaluate('(lane) => document.querySelectorAll(".spectrogram")[lane].toDataURL()', lane)
    import matplotlib.image

    with urllib.request.urlopen(url) as png:
        return (255 * matplotlib.image.imread(png)[:, :, 0]).astype(int)
