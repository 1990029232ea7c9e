"""The manifest of a folder run: whole lines only, repair after a kill, one run at a time."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hifispeech.errors import AudioError
from hifispeech.runs.manifest import NAME, Entry, Manifest, read_manifest


def entry(output: str = "a.wav", status: str = "done", **values: object) -> Entry:
    fixed = {"input": "in/a.wav", "settings": {"model": "fast"}, "time": "2026-01-01T00:00:00+00:00"}
    return Entry(output=output, status=status, seconds=1.5, **{**fixed, **values})  # type: ignore[arg-type]


def test_entries_come_back_as_they_were(tmp_path: Path) -> None:
    odd_name = os.fsdecode(b"caf\xe9 \n\xff.wav")  # no valid UTF-8
    entries = [
        entry(odd_name, input_sha256="ab", output_sha256="cd", cutoff_hz=(3400.0,), full_band=(False,)),
        entry("b.wav", "failed", error="a bad\nfile"),
    ]
    with Manifest(tmp_path) as manifest:
        for one in entries:
            manifest.append(one)
    assert list(read_manifest(tmp_path / NAME)) == entries
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 2


def test_a_failure_does_not_forget_what_was_done(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(entry(output_sha256="1"))
        manifest.append(entry(output_sha256="2"))
        manifest.append(entry(status="failed"))
    with Manifest(tmp_path) as manifest:
        assert manifest.done["a.wav"].output_sha256 == "2"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10_000))
def test_cut_anywhere_only_the_last_line_is_lost(tmp_path: Path, cut: int) -> None:
    """What a kill in the middle of a write leaves; appending goes on after the last whole line."""
    path = tmp_path / NAME
    path.unlink(missing_ok=True)
    with Manifest(tmp_path) as manifest:
        for number in range(4):
            manifest.append(entry(f"{number}.wav"))
    content = path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    path.write_bytes(kept)
    with Manifest(tmp_path) as manifest:
        assert list(manifest.done) == [f"{number}.wav" for number in range(kept.count(b"\n"))]
        manifest.append(entry("next.wav"))
    lines = path.read_text().splitlines()
    assert [json.loads(line)["output"] for line in lines] == [*manifest.done]


def test_torn_line_longer_than_a_block_is_cut_off(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(entry())
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"output": "' + b"x" * 200_000)
    with Manifest(tmp_path) as manifest:
        assert list(manifest.done) == ["a.wav"]
    assert len(list(read_manifest(tmp_path / NAME))) == 1


def test_foreign_lines_are_ignored_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = dataclasses.asdict(entry())
    lines = [b"\0\0\0", b"[1]", b'{"status": "done"}', b"\xff\xfe", json.dumps({**good, "later": 1}).encode()]
    lines.append(json.dumps({**good, "status": "perhaps"}).encode())
    (tmp_path / NAME).write_bytes(b"\n".join(lines) + b"\n")
    with caplog.at_level(logging.WARNING), Manifest(tmp_path) as manifest:
        assert list(manifest.done) == ["a.wav"]
    assert caplog.text.count("is no entry") == 5


def test_short_write_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a line."""
    with Manifest(tmp_path) as manifest:
        manifest.append(entry())
        whole = (tmp_path / NAME).read_bytes()
        file = manifest._file

        class Full:
            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

            def write(self, data: bytes) -> int:
                return file.write(data[:10])

        monkeypatch.setattr(manifest, "_file", Full())
        with pytest.raises(OSError, match="bytes could be written"):
            manifest.append(entry("b.wav"))
    assert (tmp_path / NAME).read_bytes() == whole


def test_second_run_is_refused_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    """The lock of a process killed with SIGKILL is gone with it."""
    code = (
        "import sys, time; from pathlib import Path; from hifispeech.runs.manifest import Manifest\n"
        "with Manifest(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(AudioError, match="another run"), Manifest(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with Manifest(tmp_path) as manifest:
        manifest.append(entry())
