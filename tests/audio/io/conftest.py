"""Files that several tests read in blocks."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hifispeech.audio import io

from .recordings import encode_av, tone_speech


@pytest.fixture(scope="module")
def block_files(tmp_path_factory) -> dict[str, tuple[Path, np.ndarray]]:
    folder = tmp_path_factory.mktemp("blocks")
    audio = tone_speech(7_001, 16_000, channels=2)
    soundfile.write(folder / "a.wav", audio.T, 16_000)
    encode_av(folder / "a.m4a", audio, 16_000, "aac")
    encode_av(folder / "a.webm", audio, 16_000, "libopus")
    return {name: (folder / name, io.read(folder / name)[0]) for name in ("a.wav", "a.m4a", "a.webm")}
