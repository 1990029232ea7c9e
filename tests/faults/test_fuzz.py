"""Damaged files of every container through `io`, the command line and the HTTP API; see `fuzz/run.py`.

HIFISPEECH_FUZZ_COUNT sets the number of files of each container in the slow test (the full run: 5000).
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hifispeech.audio import io
from hifispeech.audio.io.sndfile import AudioInfo
from hifispeech.errors import AudioError

RUN = Path(__file__).parent / "fuzz" / "run.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")


def fuzz(*arguments: object) -> list[list[str]]:
    """The rows of the table, without the header."""
    words = [sys.executable, str(RUN), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20_000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]


def test_damaged_files_never_do_harm() -> None:
    rows = fuzz("--count", 40, "--targets", "io")
    assert len(rows) == 10 and all(row[2] == "40" and row[5] == "0" for row in rows)


@pytest.mark.slow
def test_many_damaged_files_never_do_harm() -> None:
    count = int(os.environ.get("HIFISPEECH_FUZZ_COUNT", "500"))
    targets = ["io", "cli"]
    try:
        import fastapi  # noqa: F401
        import httpx  # noqa: F401
    except ImportError:  # the extra `serve` is not installed
        pass
    else:
        targets.append("http")
    rows = fuzz("--count", count, "--share", 0.02, "--targets", *targets)
    assert len(rows) == 10 * len(targets)
    assert sum(int(row[3]) for row in rows) > 0.2 * sum(int(row[2]) for row in rows)  # not all is refused


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("os.kill(os.getpid(), 11)", "code -11"),
        ("raise KeyError('bug')", "KeyError"),
        ("bytearray(3 << 29)", "MB"),
        ("while True: pass", "hangs"),
    ],
)
def test_the_fuzzer_sees_harm(harm: str, told: str, tmp_path: Path) -> None:
    """A crash, an exception, too much memory and a hang, each put into the reader on purpose."""
    code = (
        "import os, hifispeech.audio.io as io\n"
        "before, calls = io.open_reader, []\n"
        "def open_reader(path):\n"
        "    calls.append(path)\n"
        f"    if len(calls) == 3:\n        {harm}\n"
        "    return before(path)\n"
        "io.open_reader = open_reader\n"
    )
    (tmp_path / "sitecustomize.py").write_text(code)
    words = ["--count", "3", "--targets", "io", "--containers", "wav", "--keep", str(tmp_path / "found")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    if told == "hangs":  # only there: on a slow machine, filling 1.5 GB takes seconds too
        environment["HIFISPEECH_FUZZ_HANG_S"] = "2"
    done = subprocess.run(
        [sys.executable, str(RUN), *words], capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 1 and told in done.stderr, done.stdout + done.stderr
    assert "| wav | io | 3 |" in done.stdout  # the rest went on
    if told != "MB":
        assert [file.stem for file in (tmp_path / "found").iterdir()] == ["io-wav-1"]


def test_codec_without_a_name_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: PyAV gives such a stream no codec context."""
    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000), 8000, subtype="MS_ADPCM")
    content = bytearray(path.read_bytes())
    content[20:22] = (0x7E57).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(AudioError, match="unknown codec"):
        io.read(path)


def test_stream_that_begins_mid_file_is_stepped_over(speech_clip: Path) -> None:
    """Found by fuzzing: a Flash file in whose midst PyAV met a packet of a stream it had no entry for."""
    import av

    from hifispeech.audio.io.ffmpeg import _Decoder

    with av.open(str(speech_clip)) as real:
        packets = real.demux(real.streams.audio[0])

        def demux(_: Any) -> Any:
            for number, packet in enumerate(packets):
                yield packet
                if number == 2:
                    raise IndexError("list index out of range")

        container: Any = SimpleNamespace(format=real.format, demux=demux)
        samples = sum(frame.samples for frame in _Decoder(container, real.streams.audio[0]).frames())
    assert samples == io.read(speech_clip)[0].shape[1]


def test_samples_that_are_only_claimed_are_an_error(tmp_path: Path) -> None:
    """Found by fuzzing: an Ogg Vorbis file whose last page counts samples that do not decode."""
    info = AudioInfo(8000, 1, 4000, 0.5, "ogg", "vorbis")
    source: Any = SimpleNamespace(info=info, warnings=[], chunks=lambda: iter(()))
    with io.AudioReader(tmp_path / "a.ogg", source) as reader, pytest.raises(AudioError, match="no audio"):
        next(reader.blocks())


def test_thousands_of_gaps_are_counted_not_listed(tmp_path: Path) -> None:
    """Found by fuzzing: a bad line of AMR wrote a warning for every lost frame."""
    frames = bytearray(b"#!AMR\n")
    rng = np.random.default_rng(0)
    for number in range(600):
        speech_frame = bytes([0x3C]) + rng.bytes(31)  # 12.2 kbit/s
        frames += bytes([0x4C]) + rng.bytes(4) if number % 3 == 2 else speech_frame
    path = tmp_path / "a.amr"
    path.write_bytes(frames)
    with io.open_reader(path) as reader:
        for _ in reader.blocks():
            pass
        assert len(reader.warnings) <= 8, reader.warnings
