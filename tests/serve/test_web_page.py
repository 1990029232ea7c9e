"""How the web page sounds while it plays, what is in it, and how it looks; in a real browser."""

import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from .browser import Open, picture


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


def test_document_names_tests_and_shows_every_look(repo_dir: Path) -> None:
    text = (repo_dir / "docs" / "web.md").read_text(encoding="utf-8")
    assert len(re.findall(r"`tests/serve/test_web\w*\.py::\w+`", text)) > 5
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
