"""The web page in a real browser (Debian's Chromium, by Playwright) against a real `hifispeech serve`."""

import os
import re
import shutil
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

import matplotlib.image
import numpy as np
import pytest

import hifispeech

playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = Path(os.environ.get("HIFISPEECH_CHROMIUM", "/usr/bin/chromium"))
if not CHROMIUM.is_file():
    pytest.skip(
        f"there is no browser at {CHROMIUM}; install chromium or set HIFISPEECH_CHROMIUM",
        allow_module_level=True,
    )
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


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


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
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


def downloaded(page: Watched, click: Callable[[], None], folder: Path) -> Path:
    with page.page.expect_download() as waiting:
        click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def picture(page: Watched, lane: int) -> np.ndarray:
    """Red channel of a spectrogram as painted, [bins from 24 kHz down, columns]."""
    url = page.page.evaluate('(lane) => document.querySelectorAll(".spectrogram")[lane].toDataURL()', lane)
    with urllib.request.urlopen(url) as png:
        return (255 * matplotlib.image.imread(png)[:, :, 0]).astype(int)


def test_upload_listen_and_download(open_page: Open, server: str, phone_clip: Path, tmp_path: Path) -> None:
    """The way of a first visitor."""
    page = open_page(server)
    page.upscale(phone_clip)
    assert page.text("#verdict") == "Speech up to 3.4 kHz became full band"
    assert "phone_8k.wav" in page.text("#facts")

    # The edge is drawn where it was measured, and the pictures show what is above it.
    cutoff_hz = hifispeech.inspect(phone_clip).cutoff_hz
    for top in page.page.eval_on_selector_all(".edge", "all => all.map((edge) => edge.style.top)"):
        assert float(top.rstrip("%")) == pytest.approx(100 * (1 - cutoff_hz / 24000), abs=0.5)
    assert page.page.locator(".edge").all_inner_texts() == ["detected edge 3.4 kHz"] * 2
    before, after = picture(page, 0), picture(page, 1)
    row = round(len(before) * (1 - 1.25 * cutoff_hz / 24000))
    assert np.ptp(before[:row]) <= 8  # nothing
    assert np.ptp(after[:row]) > 100
    below = round(len(before) * (1 - 0.8 * cutoff_hz / 24000))
    assert np.corrcoef(before[below:].ravel(), after[below:].ravel())[0, 1] > 0.99  # aligned, kept

    # What is heard is what is chosen, in the middle of playing.
    page.page.click("#play")
    page.page.keyboard.press("i")  # all of it, again and again
    page.until("hear(6000, 16000) > -80")
    page.page.check("[name=track] >> nth=0", force=True)
    page.until("outputs[0].gain.value === 1")
    assert page.gains() == [1, 0]
    page.page.wait_for_timeout(300)  # until the ear has forgotten what it heard before
    levels = []
    for _ in range(10):
        levels.append(page.page.evaluate("hear(6000, 16000)"))
        page.page.wait_for_timeout(50)
    assert max(levels) < -100
    page.until("hear(300, 3000) > -60")  # yet it sounds
    page.page.keyboard.press("2")
    page.until("outputs[1].gain.value === 1")
    assert page.gains() == [0, 1]
    page.until("hear(6000, 16000) > -80")
    page.page.click("#play")
    assert page.page.get_attribute("#play", "aria-label") == "Play"

    made = downloaded(page, lambda: page.page.click("#save button"), tmp_path)
    assert made.name == "phone_8k-48k.wav"
    audio, sample_rate = hifispeech.read(made)
    spoken, spoken_rate = hifispeech.read(phone_clip)
    assert sample_rate == 48000
    assert audio.shape == (1, round(spoken.shape[1] * 48000 / spoken_rate))
    hifispeech.upscale_file(phone_clip, tmp_path / "reference.wav")
    reference, _ = hifispeech.read(tmp_path / "reference.wav")
    assert np.abs(audio - reference).max() <= 2 / 32768

    (job,) = {url for url in page.requests if re.search(r"/v1/jobs/\w+$", url)}
    with pytest.raises(urllib.error.HTTPError, match="404"):  # the server keeps nothing
        urllib.request.urlopen(job)

    page.page.select_option("#format", "flac")
    other = downloaded(page, lambda: page.page.click("#save button"), tmp_path)
    assert other.name == "phone_8k-48k.flac"
    assert np.array_equal(hifispeech.read(other)[0], audio)


def test_keyboard_alone(open_page: Open, server: str, phone_clip: Path, tmp_path: Path) -> None:
    """Everything can be reached and used without a pointer, and the focus is always to be seen."""
    page = open_page(server)
    choosers: list[Any] = []
    page.page.on("filechooser", lambda chooser: choosers.append(chooser))
    press = page.page.keyboard.press
    focused = "document.activeElement.id || document.activeElement.name"

    def tab_to(name: str) -> None:
        for _ in range(12):
            press("Tab")
            if page.page.evaluate(focused) == name:
                break
        assert page.page.evaluate(focused) == name
        shown = (
            "(e) => [e, e.nextElementSibling].some((x) => x && getComputedStyle(x).outlineWidth === '3px')"
        )
        assert page.page.evaluate(f"({shown})(document.activeElement)"), f"focus on {name} cannot be seen"

    tab_to("file")
    press("Enter")
    deadline = time.monotonic() + PATIENCE_S
    while not choosers:
        assert time.monotonic() < deadline, "Enter opened no file chooser"
        page.page.wait_for_timeout(30)
    choosers[0].set_files(phone_clip)
    page.page.wait_for_selector("#result:visible")
    assert page.page.evaluate(focused) == "verdict"
    assert page.text("#announcer").startswith("Done.")

    press("Space")  # from anywhere
    page.page.wait_for_selector("#play.playing")
    press("Space")
    page.page.wait_for_selector("#play:not(.playing)")
    press("Home")
    tab_to("play")
    press("Enter")
    page.page.wait_for_selector("#play.playing")
    press("Enter")
    tab_to("track")
    press("ArrowLeft")
    assert page.page.is_checked("[name=track] >> nth=0")
    assert page.page.get_attribute(".lane >> nth=0", "class") == "lane heard"
    press("2")
    assert page.page.is_checked("[name=track] >> nth=1")
    tab_to("bar")
    press("Home")
    press("ArrowRight")
    assert page.page.get_attribute("#bar", "aria-valuenow") == "1.00"
    assert page.page.get_attribute("#bar", "aria-valuetext") == "0:01.0 of 0:04.4"
    press("i")
    press("ArrowRight")
    press("o")
    assert "Repeats 0:01.0 to 0:02.0" in page.text("#unloop")
    press("l")
    assert not page.page.is_visible("#unloop")
    tab_to("format")
    press("Tab")
    made = downloaded(page, lambda: press("Enter"), tmp_path)
    assert hifispeech.read(made)[1] == 48000


@pytest.mark.parametrize("name", ["broken.wav", "empty.wav", "notes.txt"])
def test_bad_file_shows_what_is_wrong(
    open_page: Open, server: str, phone_clip: Path, tmp_path: Path, name: str
) -> None:
    content = {"broken.wav": b"RIFF\xff\xff\xff\xffWAVEjunk", "empty.wav": b"", "notes.txt": b"hello"}[name]
    (tmp_path / name).write_bytes(content)
    page = open_page(server)
    page.give(tmp_path / name)
    page.page.wait_for_selector("#problem:visible")
    assert page.page.get_attribute("#problem", "role") == "alert"
    assert page.text("#problem-title") == f"{name} could not be upscaled"
    assert re.fullmatch(r"[A-Z].{30,}\.", page.text("#problem-text"), re.DOTALL)
    assert "tmp" not in page.text("#problem")  # nothing of the server's disk
    assert not page.page.is_visible("#work")
    page.upscale(phone_clip)  # and the page goes on
    assert not page.page.is_visible("#problem")


@pytest.mark.slow
def test_full_band_and_silent_recordings_say_so(
    open_page: Open, server: str, speech_clip: Path, tmp_path: Path
) -> None:
    page = open_page(server)
    page.upscale(speech_clip)
    assert page.text("#verdict") == "Already full band: nothing had to be added"
    assert page.page.locator(".edge").count() == 0
    hifispeech.write(tmp_path / "silent.wav", np.zeros((2, 8000), np.float32), 8000)
    page.upscale(tmp_path / "silent.wav")
    assert "silence" in page.text("#verdict")
    assert "stereo" in page.text("#facts")


@pytest.mark.slow
def test_file_only_the_server_can_read(
    open_page: Open, server: str, phone_clip: Path, tmp_path: Path
) -> None:
    """Chromium plays no AIFF: the result alone is shown, with a reason."""
    import soundfile

    samples, rate = soundfile.read(phone_clip)
    soundfile.write(tmp_path / "call.aiff", samples, rate)
    page = open_page(server)
    page.upscale(tmp_path / "call.aiff")
    assert "cannot play the original" in page.text("#notes")
    assert page.page.locator(".lane:visible").count() == 1
    assert page.page.is_disabled("[name=track] >> nth=0")
    page.page.click("#play")
    page.until("hear(6000, 16000) > -80")


@pytest.mark.slow
def test_record_from_the_microphone(open_page: Open, server: str, tmp_path: Path) -> None:
    page = open_page(server)
    page.page.click("#record")
    page.until("document.querySelector('#recorded').textContent >= '0:01.5'")
    page.page.click("#discard")
    assert page.page.is_visible("#choose")
    page.page.click("#record")
    page.until("document.querySelector('#recorded').textContent >= '0:02.0'")
    page.until("document.querySelector('#level').value > 0.01")
    page.page.click("#stop")
    page.page.wait_for_selector("#result:visible")
    assert page.text("#facts").startswith("recording.wav")
    audio, sample_rate = hifispeech.read(downloaded(page, lambda: page.page.click("#save button"), tmp_path))
    assert sample_rate == 48000
    assert 2 * 48000 <= audio.shape[1] < 60 * 48000
    assert np.abs(audio).max() > 0.01


@pytest.mark.slow
def test_drop_and_pointer(open_page: Open, server: str, phone_clip: Path) -> None:
    """A dropped file; a click goes there, a drag repeats a part, a click outside ends that."""
    page = open_page(server)
    page.page.evaluate(
        """async (bytes) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
          for (const type of ["dragover", "drop"]) {
            const options = { dataTransfer, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent(type, options));
          }
        }""",
        list(phone_clip.read_bytes()),
    )
    page.page.wait_for_selector("#result:visible")
    assert page.text("#facts").startswith("dropped.wav")
    page.page.locator("#lanes").scroll_into_view_if_needed()
    box = page.page.locator("#bar").bounding_box()
    width, y = box["width"], box["y"] + 10

    def now() -> float:
        return float(page.page.get_attribute("#bar", "aria-valuenow"))

    page.page.mouse.click(box["x"] + width / 2, y)
    assert now() == pytest.approx(4.37 / 2, abs=0.05)
    page.page.mouse.move(box["x"] + width * 0.25, y)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + width * 0.5, y, steps=4)
    page.page.mouse.up()
    assert "Repeats 0:01.1 to 0:02.2" in page.text("#unloop")
    page.page.mouse.click(box["x"] + width * 0.75, y)
    assert not page.page.is_visible("#unloop")
    assert now() == pytest.approx(4.37 * 0.75, abs=0.05)


@pytest.mark.slow
def test_key_is_asked_for_only_when_needed(open_page: Open, phone_clip: Path, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", HIFISPEECH_API_KEY=KEY) as address:
        page = open_page(address)
        assert not page.page.is_visible("#unlock")
        page.give(phone_clip)
        page.page.wait_for_selector("#unlock:visible")
        assert page.page.evaluate("document.activeElement.id") == "key"
        assert not page.page.is_visible("#refused")
        page.page.keyboard.type("wrong")
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("#refused:visible")
        page.page.fill("#key", KEY)
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("#result:visible")
        assert not page.page.is_visible("#unlock")
        assert KEY not in "".join(page.requests)


@pytest.mark.slow
def test_busy_server_progress_and_cancel(open_page: Open, server: str, phone_clip: Path) -> None:
    """A full queue and a lost answer are waited for; progress is spoken; cancelling removes the job."""
    page = open_page(server)
    answers, losses = iter([429]), iter([True])

    def submit(route: Any) -> None:
        if next(answers, None) is None:
            route.continue_()
        else:
            error = {"code": "busy", "message": "the queue is full", "request_id": "1"}
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": error})

    def status(route: Any) -> None:
        if route.request.method == "DELETE":
            route.continue_()
        elif next(losses, False):
            route.abort()
        else:
            route.fulfill(json={"id": "1", "status": "running", "progress": 0.31, "error": None})

    page.page.route("**/v1/jobs?*", submit)
    page.page.route("**/v1/jobs/*", status)
    page.give(phone_clip)
    page.until("document.querySelector('#stage').textContent.includes('is busy')")
    page.until("document.querySelector('#stage').textContent.includes('does not answer; trying again')")
    page.until("document.querySelector('#progress').value === 0.31")
    assert page.text("#stage") == "Upscaling phone_8k.wav 31 %"
    assert page.page.text_content("#announcer") == "Upscaling phone_8k.wav: 25 percent"
    with page.page.expect_request(lambda request: request.method == "DELETE") as removed:
        page.page.click("#cancel")
    assert removed.value.response().status < 300
    assert not page.page.is_visible("#work") and not page.page.is_visible("#problem")


def test_lost_server_is_said(open_page: Open, server: str, phone_clip: Path) -> None:
    page = open_page(server)
    page.page.route("**/v1/**", lambda route: route.abort())
    page.give(phone_clip)
    page.page.wait_for_selector("#problem:visible")
    assert "does not answer" in page.text("#problem-text")


def test_switching_has_no_gap(open_page: Open, server: str) -> None:
    """Rendered sample by sample: equal tracks stay one unbroken tone through any number of switches."""
    page = open_page(server)
    worst = page.page.evaluate(
        """async () => {
          const { AlignedPlayer } = await import("/static/player.js");
          const tone = (n) => 0.5 * Math.sin(2 * Math.PI * 440 * n / 48000);
          const buffer = (frames) => {
            const made = new AudioBuffer({ length: frames, sampleRate: 48000 });
            made.copyToChannel(Float32Array.from({ length: frames }, (_, n) => tone(n)), 0);
            return made;
          };
          const context = new OfflineAudioContext(1, 48000, 48000);
          const player = new AlignedPlayer(context);
          player.load([buffer(96000), buffer(90000), buffer(96000)]);  // unequal lengths, too
          const switches = [[0.1, 1], [0.2, 0], [0.203, 2], [0.207, 1], [0.21, 2], [0.5, 0], [0.505, 1]];
          for (const [at, track] of switches) {
            context.suspend(at).then(() => { player.select(track); context.resume(); });
          }
          await player.play();
          const out = (await context.startRendering()).getChannelData(0);
          return Math.max(...out.map((x, n) => Math.abs(x - tone(n))));
        }"""
    )
    assert worst < 1e-5


def test_loop_repeats_to_the_sample(open_page: Open, server: str) -> None:
    """Outside its faded ends, a loop plays exactly its region; every track does so in step."""
    page = open_page(server)
    heard = page.page.evaluate(
        """async () => {
          const { AlignedPlayer } = await import("/static/player.js");
          const ramp = (scale) => {
            const made = new AudioBuffer({ length: 48000, sampleRate: 48000 });
            made.copyToChannel(Float32Array.from({ length: 48000 }, (_, n) => scale * n / 48000), 0);
            return made;
          };
          const context = new OfflineAudioContext(1, 48000, 48000);
          const player = new AlignedPlayer(context);
          player.load([ramp(1), ramp(-1)]);
          player.setLoop(0.5, 0.25);
          context.suspend(0.6).then(() => { player.select(1); context.resume(); });
          await player.play();
          return Array.from((await context.startRendering()).getChannelData(0));
        }"""
    )
    out, n = np.array(heard), np.arange(48000)
    inside = n % 12000
    expected = (12000 + inside) / 48000 * np.where(n < 0.6 * 48000, 1, -1)
    steady = (inside > 500) & (inside < 11500) & ((n < 28700) | (n > 29500))
    assert np.abs(out - expected)[steady].max() < 1e-6
    assert np.abs(np.diff(out)).max() < 0.01  # no click where it starts again


def test_page_is_strict_and_complete(open_page: Open, server: str, repo_dir: Path) -> None:
    """No inline code, nothing from elsewhere, in the files as in what the browser is allowed."""
    page = open_page(server)
    with urllib.request.urlopen(server) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "'self'" in policy and "unsafe" not in policy and "http" not in policy
    folder = repo_dir / "src" / "hifispeech" / "serve" / "static"
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        elsewhere = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not elsewhere, (file, elsewhere)
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src)", html)
    unnamed = page.page.evaluate(
        """[...document.querySelectorAll("input, select, button")].filter((control) =>
          !control.labels?.length && !control.ariaLabel && !control.textContent.trim() && !control.hidden
        ).map((control) => control.id)"""
    )
    assert unnamed == []


def test_document_names_tests_and_pictures(repo_dir: Path) -> None:
    text = (repo_dir / "docs" / "web.md").read_text(encoding="utf-8")
    named = re.findall(r"`tests/serve/test_web\.py::(\w+)`", text)
    assert len(named) > 5
    assert set(named) <= set(globals())
    pictures = re.findall(r"\]\((images/[\w-]+\.png)\)", text)
    assert {f"images/web-{look}.png" for look in LOOKS} == set(pictures)
    assert all(0 < (repo_dir / "docs" / name).stat().st_size < 200_000 for name in pictures)


LOOKS = {
    "light": {"viewport": {"width": 1000, "height": 700}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1000, "height": 700}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light", "device_scale_factor": 1.5},
    "error": {"viewport": {"width": 1000, "height": 560}, "color_scheme": "light"},
}


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_looks(open_page: Open, server: str, phone_clip: Path, tmp_path: Path, look: str) -> None:
    """Fits a desktop and a phone. HIFISPEECH_SCREENSHOTS=docs/images makes the pictures of the docs."""
    page = open_page(server, **LOOKS[look])
    assert page.fits()
    if look == "error":
        (tmp_path / "broken.wav").write_bytes(b"this is not audio")
        page.give(tmp_path / "broken.wav")
        page.page.wait_for_selector("#problem:visible")
    else:
        page.upscale(phone_clip)
        page.page.click("summary")
        assert page.fits()
        page.page.click("summary")
        page.page.focus("#verdict")
        page.page.keyboard.press("ArrowRight")  # the playhead on its way
    assert page.fits()
    small = page.page.eval_on_selector_all(
        "button:enabled, .button, select, .switch span",
        "all => all.filter((x) => x.offsetHeight && x.offsetHeight < 36).map((x) => x.outerHTML)",
    )
    assert small == []  # a finger can hit them
    shot = tmp_path / f"web-{look}.png"
    page.page.screenshot(path=shot, full_page=True)
    folder = os.environ.get("HIFISPEECH_SCREENSHOTS")
    if folder:
        from PIL import Image

        Image.open(shot).convert("RGB").quantize(128).save(shot, optimize=True)
        shutil.copy(shot, Path(folder) / shot.name)


@pytest.mark.slow
def test_theme_changes_with_the_system(open_page: Open, server: str, phone_clip: Path) -> None:
    page = open_page(server, color_scheme="light")
    page.upscale(phone_clip)
    light = picture(page, 0)
    page.page.evaluate("() => { window.light = document.querySelector('.spectrogram').toDataURL(); }")
    page.page.emulate_media(color_scheme="dark")
    page.until("document.querySelector('.spectrogram').toDataURL() !== light")
    assert light[0].mean() > 240 and picture(page, 0)[0].mean() < 30
