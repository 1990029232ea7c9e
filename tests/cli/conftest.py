"""What the tests of the program work on."""

from pathlib import Path

import pytest
import soundfile


@pytest.fixture
def clip(tmp_path: Path, phone_clip: Path) -> Path:
    """A second of telephone speech in a folder of its own."""
    audio, sample_rate = soundfile.read(phone_clip, frames=8000)
    path = tmp_path / "call.wav"
    soundfile.write(path, audio, sample_rate)
    return path
