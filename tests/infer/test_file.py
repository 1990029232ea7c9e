"""The one loop over a file: every pass sees all of it, and what watches it may end the work."""

from pathlib import Path

import numpy as np
import pytest

from hifispeech import Upscaler, read
from hifispeech.infer.file import InputFile


def test_a_pass_gives_the_samples_a_second_at_a_time(phone_clip: Path) -> None:
    seen: list[tuple[int, float]] = []
    with InputFile(phone_clip) as file:
        audio = file.samples(lambda block, seconds: seen.append((block.shape[1], seconds)))
    expected, rate = read(phone_clip)
    np.testing.assert_array_equal(audio, expected)
    assert file.frames == expected.shape[1] and all(frames == rate for frames, _ in seen[:-1])
    assert [seconds for _, seconds in seen] == list(np.cumsum([frames for frames, _ in seen]) / rate)


def test_what_a_watch_raises_ends_the_pass(phone_clip: Path) -> None:
    def stop(block: np.ndarray, seconds: float) -> None:
        if seconds >= 2:
            raise TimeoutError

    with InputFile(phone_clip) as file, pytest.raises(TimeoutError):
        file.measure(stop)
    assert file.frames == 2 * file.info.sample_rate


def test_steps_make_what_the_upscaler_makes(phone_clip: Path, tmp_path: Path) -> None:
    upscaler = Upscaler(threads=1)
    report = upscaler.process_file(phone_clip, tmp_path / "whole.wav")
    with InputFile(phone_clip) as file:
        file.measure()
    with file:  # entered again, as a batch does
        writer = file.writer(tmp_path / "steps.wav")
        with writer:
            file.generate(upscaler.run_blocks, writer, lambda: None)
    again = file.report(tmp_path / "whole.wav", writer)
    assert again == report
    assert (tmp_path / "steps.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_a_file_that_was_never_opened_says_so(phone_clip: Path) -> None:
    with pytest.raises(RuntimeError, match="with InputFile"):
        _ = InputFile(phone_clip).info
