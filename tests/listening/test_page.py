"""The page in a real browser (Debian's Chromium, by Playwright) against a real `hifispeech abx serve`."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = Path(os.environ.get("HIFISPEECH_CHROMIUM", "/usr/bin/chromium"))
if not CHROMIUM.is_file():
    pytest.skip(
        f"there is no browser at {CHROMIUM}; install chromium or set HIFISPEECH_CHROMIUM",
        allow_module_level=True,
    )
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from hifispeech.listening import definition as test  # noqa: E402
from hifispeech.listening.store import Answer, Store  # noqa: E402

PATIENCE_MS = 120_000
expect = playwright_api.expect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a way out of this machine."""
    flags = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    expect.set_options(timeout=PATIENCE_MS)
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


class Listener:
    """Someone in front of a browser of their own, who uses the keyboard alone."""

    def __init__(self, browser: Any, address: str, **look: Any) -> None:
        self.context = browser.new_context(**look)
        self.address, self.errors, self.requests = address, [], []
        self.open()

    def open(self) -> None:
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(self.address)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def join(self, name: str) -> None:
        expect(self.page.locator("#name")).to_be_focused()
        self.page.keyboard.type(name)
        self.press("Enter")

    def at(self, heading: str) -> None:
        """Wait until this question is loaded and ready."""
        expect(self.page.locator("#heading")).to_have_text(heading)
        expect(self.page.locator("#hint")).to_contain_text("Still to")

    def hear(self, *keys: str) -> None:
        """Play all in a loop, and give each key's recording time to be heard."""
        expect(self.page.locator("#play")).to_have_attribute("aria-label", "Play")
        self.press("i", "Space")  # all of it again and again: it may be short, and the machine slow
        for key in keys:
            name = {"x": "X", "a": "A", "b": "B", "0": "Reference"}.get(key, key)
            self.press(key)
            expect(self.page.locator("#hint")).not_to_have_text(re.compile(rf"hear:.*\b{name}\b"))

    def answer_abx(self, choice: str) -> None:
        self.hear("x", "a", "b")
        self.press({"a": "1", "b": "2"}[choice])
        expect(self.page.locator("#hint")).to_have_text("")
        self.press("Enter")

    def check(self) -> None:
        assert self.errors == []
        assert all(url.startswith(self.address) for url in self.requests)


def answers(folder: Path) -> list[Answer]:
    return Store(folder, test.load(folder)).answers()


def test_whole_abx_by_keyboard_with_a_reload_a_kill_and_a_second_listener(
    browser: Any, abx_test: Path, serve: Callable[[Path], Any]
) -> None:
    server = serve(abx_test)
    anna = Listener(browser, server.address)
    anna.join("Anna")
    anna.at("Question 1 of 4")
    anna.press("2", "Enter")  # not heard yet: not accepted
    expect(anna.page.locator("#announcer")).to_contain_text("Still to hear")
    anna.answer_abx("a")
    anna.at("Question 2 of 4")

    anna.page.reload()  # in the middle
    anna.at("Question 2 of 4")
    assert [answer.value for answer in answers(abx_test)] == ["a"]

    ben = Listener(browser, server.address)  # at the same time, in the other order
    ben.join("code 17")
    ben.at("Question 1 of 4")
    ben.answer_abx("b")
    anna.answer_abx("b")
    ben.at("Question 2 of 4")
    anna.at("Question 3 of 4")

    server.kill()  # between two answers, and before one can be saved
    anna.hear("x", "a", "b")
    anna.press("1", "Enter")
    expect(anna.page.locator("#problem")).to_contain_text("Nothing is lost")
    server.start()
    anna.at("Question 4 of 4")
    expect(anna.page.locator("#problem")).to_be_hidden()

    anna.page.close()  # a closed browser window
    anna.open()
    anna.at("Question 4 of 4")
    anna.answer_abx("b")
    expect(anna.page.locator("#thanks-text")).to_contain_text("All 4 answers are saved")
    ben.answer_abx("a")
    ben.at("Question 3 of 4")

    found = [(answer.listener, answer.number, answer.value) for answer in answers(abx_test)]
    assert found == [
        ("Anna", 1, "a"),
        ("Anna", 2, "b"),
        ("Anna", 3, "a"),
        ("Anna", 4, "b"),
        ("code 17", 1, "b"),
        ("code 17", 2, "a"),
    ]
    anna.check()
    ben.check()


def test_resume_in_another_browser(browser: Any, abx_test: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(abx_test)
    first = Listener(browser, server.address)
    first.join("Anna")
    first.at("Question 1 of 4")
    first.answer_abx("a")
    first.at("Question 2 of 4")
    second = Listener(browser, server.address)
    second.join("anna")
    second.at("Question 2 of 4")
    expect(second.page.locator("#saved")).to_contain_text("Welcome back")
    second.answer_abx("b")
    second.at("Question 3 of 4")
    first.answer_abx("a")  # the same question, answered elsewhere already
    first.at("Question 3 of 4")
    assert [answer.value for answer in answers(abx_test)] == ["a", "b"]
    first.page.get_by_role("button", name="Change listener").focus()
    first.press("Enter")
    expect(first.page.locator("#name")).to_be_focused()
    first.check()


def test_whole_mushra_by_keyboard(browser: Any, mushra_test: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(mushra_test)
    anna = Listener(browser, server.address)
    anna.join("Anna")
    for number in range(1, 5):
        anna.at(f"Question {number} of 4")
        anna.hear("0", "1", "2", "3", "4", "5")
        for slot in range(1, 6):
            anna.press(str(slot), *["PageUp"] * slot, "ArrowUp")  # from 50
        expect(anna.page.locator("#hint")).to_have_text("")
        assert anna.page.locator("output").all_inner_texts() == ["61", "71", "81", "91", "100"]
        anna.press("Enter")
    expect(anna.page.locator("#thanks-text")).to_contain_text("All 4 answers are saved")
    assert [answer.value for answer in answers(mushra_test)] == [
        {"1": 61, "2": 71, "3": 81, "4": 91, "5": 100}
    ] * 4
    anna.check()


def test_nothing_in_the_browser_tells_what_is_heard(
    browser: Any, mushra_test: Path, serve: Callable[[Path], Any]
) -> None:
    """The whole document, all addresses and what is stored, with a question open."""
    server = serve(mushra_test)
    anna = Listener(browser, server.address)
    anna.join("Anna")
    anna.at("Question 1 of 4")
    stored = anna.context.storage_state()
    seen = f"{anna.page.content()} {anna.requests} {stored}".lower()
    made = test.load(mushra_test)
    hidden = [*made.systems, *made.anchors, made.id, *(item.name for item in made.items)]
    hidden += [name for item in made.items for name in item.files.values()]
    assert [name for name in hidden if name.lower() in seen] == []
    anna.check()


def test_loop_and_seek_by_keyboard(browser: Any, abx_test: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(abx_test)
    anna = Listener(browser, server.address)
    anna.join("Anna")
    anna.at("Question 1 of 4")
    bar = anna.page.get_by_role("slider", name="Position")
    bar.focus()
    anna.press("Shift+ArrowRight", "Shift+ArrowRight", "i")  # from 0.2 s
    expect(anna.page.locator(".loop-region")).to_be_visible()
    anna.press("Shift+ArrowRight", "Shift+ArrowRight", "o")  # to 0.4 s
    left, width = anna.page.locator(".loop-region").evaluate("(e) => [e.style.left, e.style.width]")
    assert float(left.strip("%")) == pytest.approx(100 / 3, abs=0.5)
    assert float(width.strip("%")) == pytest.approx(100 / 3, abs=0.5)
    anna.press("l")
    expect(anna.page.locator(".loop-region")).to_be_hidden()
    anna.check()


@pytest.mark.parametrize("kind", ["abx", "mushra"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_names_and_contrast(
    browser: Any, kind: str, scheme: str, serve: Callable[[Path], Any], request: pytest.FixtureRequest
) -> None:
    """Nothing sticks out at 360 px, every control has a name, text stands out from its ground by 4.5 to 1."""
    server = serve(request.getfixturevalue(f"{kind}_test"))
    anna = Listener(browser, server.address, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    anna.join("Anna")
    anna.at("Question 1 of 4")
    assert anna.page.evaluate("() => document.documentElement.scrollWidth") <= 360
    controls = anna.page.locator("button:visible, input, [role=slider], [role=radiogroup], progress")
    nameless = controls.evaluate_all(
        "(all) => all.filter((e) => e.checkVisibility() && !(e.ariaLabel || e.innerText || e.labels?.length))"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert anna.page.evaluate("() => document.documentElement.lang") == "en"
    assert [text for text, ratio in anna.page.evaluate(CONTRASTS) if ratio < 4.5] == []
    anna.check()


# Every visible text with its contrast (WCAG 2) to the nearest opaque ground under it.
CONTRASTS = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (parts) => parts.slice(0, 3)
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const parts = rgb(getComputedStyle(e).backgroundColor);
      if (parts.length === 3 || parts[3] === 1) return parts;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
      return [e.innerText, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""
