"""The web page in a real browser (Debian's Chromium, by Playwright) against a real `hifispeech serve`."""

import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hifispeech

from .browser import KEY, PATIENCE_S, Open, downloaded, picture, running_server


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
    assert 1.95 * 48000 <= audio.shape[1] < 60 * 48000  # the page rounds to tenths of a second
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
