"""Files in batches: the results are those of each file alone, and errors stay with their file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hifispeech
from hifispeech.errors import AudioError
from hifispeech.infer.file import FileReport
from hifispeech.infer.upscaler import Upscaler

pytest.importorskip("torch")
from hifispeech.infer.batch import files
from hifispeech.infer.batch.files import FileJob, TooLongError, upscale_files
from hifispeech.infer.batch.upscaler import BatchUpscaler

TOLERANCE = 1e-4  # of full scale, in float files


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler("fast", "cpu", threads=1)


@pytest.fixture(scope="module")
def batch() -> BatchUpscaler:
    return BatchUpscaler("fast", "cpu", batch_size=2, threads=1)


@pytest.fixture
def jobs(tmp_path: Path, synthetic_speech: Callable[..., np.ndarray]) -> list[FileJob]:
    """Telephone clips, one of them with a silent second channel, others, and a file that is no audio."""
    phone = synthetic_speech(0.4, 8000, seed=1)
    clips = {
        "a.wav": (phone[None, :2400], 8000),
        "b.wav": (np.stack([phone, 0 * phone]), 8000),
        "c.flac": (synthetic_speech(0.3, 16000, seed=2)[None], 16000),
        "full.wav": (synthetic_speech(0.3, 48000, seed=3)[None], 48000),
    }
    for name, (audio, rate) in clips.items():
        hifispeech.write(tmp_path / name, audio, rate)
    (tmp_path / "bad.wav").write_text("no audio")
    return [
        FileJob(tmp_path / name, tmp_path / "out" / f"{name}.wav")
        for name in ("a.wav", "bad.wav", "b.wav", "full.wav", "c.flac")
    ]


def test_files_are_what_they_are_alone(
    jobs: list[FileJob], upscaler: Upscaler, batch: BatchUpscaler, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    ends = dict(upscale_files(batch, jobs, encoding="float"))
    assert sorted(ends) == [0, 1, 2, 3, 4]
    assert isinstance(ends[1], AudioError) and "bad.wav: not audio" in str(ends[1])
    assert not jobs[1].target.exists()
    for number in (0, 2, 3, 4):
        alone = tmp_path / f"{number}.wav"
        wanted, found = upscaler.process_file(jobs[number].source, alone, encoding="float"), ends[number]
        assert isinstance(found, FileReport), found
        assert (found.input, found.output) == jobs[number]
        for field in (
            "sample_rate",
            "channels",
            "duration_s",
            "cutoff_hz",
            "full_band",
            "silent",
            "warnings",
        ):
            assert getattr(found, field) == getattr(wanted, field), field
        one, other = hifispeech.read(jobs[number].target)[0], hifispeech.read(alone)[0]
        assert one.shape == other.shape and np.abs(one - other).max() <= TOLERANCE


def test_long_files_are_left_to_others_whatever_their_header_says(
    jobs: list[FileJob], batch: BatchUpscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(files, "MOST_S", 0.35)
    ends = dict(upscale_files(batch, [jobs[0], jobs[2]]))
    assert isinstance(ends[0], FileReport) and isinstance(ends[1], TooLongError)
    assert not jobs[2].target.exists()
    monkeypatch.undo()
    file = files._File(0, jobs[2], None, 2)  # its header tells no more than is allowed
    monkeypatch.setattr(files, "MOST_S", 0.35)
    with pytest.raises(TooLongError):
        file.prepare().result()


def test_outputs_that_cannot_be_written_are_errors_of_their_files(
    jobs: list[FileJob], batch: BatchUpscaler, tmp_path: Path
) -> None:
    ends = dict(upscale_files(batch, [jobs[0]._replace(target=tmp_path / "none" / "x.wav")]))
    assert isinstance(ends[0], AudioError)
