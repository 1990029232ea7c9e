"""Make the pictures of docs/listening.md: `python tests/listening/pictures.py docs/images`.

The page is photographed in Chromium with a real clip of tests/data; the answers behind the bars are invented.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

import hifispeech
from hifispeech.evaluate.report.plots import save_figure
from hifispeech.listening.analysis import Choice, preferences
from hifispeech.listening.create import Options, create
from hifispeech.listening.plots import abx_figure
from hifispeech.listening.stimuli import low_pass

CLIP = Path(__file__).resolve().parents[1] / "data" / "speech_48k.flac"
CHROMIUM = "/usr/bin/chromium"
WIDE, PHONE = {"width": 900, "height": 640}, {"width": 390, "height": 844}


def make_tests(root: Path) -> None:
    """An ABX and a MUSHRA test of 12 items: one clip, low-passed at two frequencies, under twelve names."""
    audio, rate = hifispeech.read(CLIP)
    for name, heard in {
        "truth": audio,
        "one": low_pass(audio, rate, 8000),
        "two": low_pass(audio, rate, 5000),
    }.items():
        (root / name).mkdir()
        for number in range(12):
            hifispeech.write(root / name / f"{number}.wav", heard, rate)
    systems = {"one": root / "one", "two": root / "two"}
    create(root / "truth", systems, root / "abx", Options(title="Speech: which is closer?"))
    create(root / "truth", systems, root / "mushra", Options(kind="mushra", title="Speech quality"))


@contextmanager
def served(test: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "hifispeech", "abx", "serve", str(test), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split(" at ")[1].split()[0]
    finally:
        process.terminate()
        process.wait()


def question(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    expect(page.locator("#hint")).to_contain_text("Still to")


def hear(page: Page, names: str) -> None:
    page.keyboard.press("Space")
    for name in names:
        page.keyboard.press(name.lower())
        expect(page.locator("#hint")).not_to_have_text(re.compile(rf"hear:.*\b{name}\b"))


def abx_answer(page: Page) -> None:
    hear(page, "XAB")
    page.keyboard.press("2")


def photograph(
    browser: Any, address: str, target: Path, kind: str, scheme: str, size: dict[str, int]
) -> None:
    page = browser.new_context(color_scheme=scheme, viewport=size).new_page()
    question(page, address, "Anna" if scheme == "light" else "Ben")
    if kind == "abx":
        abx_answer(page)
        page.keyboard.press("Enter")
        expect(page.locator("#heading")).to_contain_text("Question 2")
        expect(page.locator("#hint")).to_contain_text("Still to")
        abx_answer(page)
        bar = page.locator("#bar").bounding_box()
        assert bar is not None
        page.mouse.move(bar["x"] + 0.3 * bar["width"], bar["y"] + 9)
        page.mouse.down()
        page.mouse.move(bar["x"] + 0.62 * bar["width"], bar["y"] + 9, steps=4)
        page.mouse.up()
    else:
        hear(page, "123")
        for key, steps in {"1": 4, "2": -2, "3": 2}.items():
            page.keyboard.press(key)
            for _ in range(abs(steps)):
                page.keyboard.press("PageUp" if steps > 0 else "PageDown")
    page.wait_for_timeout(300)
    page.screenshot(path=target, full_page=True)
    page.context.close()


def bars(target: Path) -> None:
    invented = {"4000": 71, "8000": 66, "16000": 58, "32000": 52}
    choices = [
        Choice("hifisr", "nvsr", rate, k < wins) for rate, wins in invented.items() for k in range(100)
    ]
    save_figure(abx_figure(preferences(choices)), target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    expect.set_options(timeout=120_000)
    bars(folder / "abx-bars.png")
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        make_tests(Path(root))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with served(Path(root) / "abx") as address:
            photograph(browser, address, folder / "abx-question.png", "abx", "light", WIDE)
            photograph(browser, address, folder / "abx-phone.png", "abx", "dark", PHONE)
        with served(Path(root) / "mushra") as address:
            photograph(browser, address, folder / "abx-mushra.png", "mushra", "light", WIDE)
            photograph(browser, address, folder / "abx-mushra-phone.png", "mushra", "dark", PHONE)
        browser.close()


if __name__ == "__main__":
    main()
