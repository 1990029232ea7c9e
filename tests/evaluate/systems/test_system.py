"""Systems: what --systems means, which output belongs to a clip, external programs that behave badly."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hifispeech import write
from hifispeech.errors import AudioError, ModelError
from hifispeech.evaluate.systems import system as systems
from hifispeech.evaluate.systems.command import Command

PYTHON = shlex.quote(sys.executable)


def test_list_of_systems_is_understood(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    texts = [f"fast,resample,{tmp_path / 'mine.onnx'},peer=dir:/out", r"cmd:tool --x 1\,2 {in} {out}"]
    found = systems.parse_systems(texts, timeout_s=5)
    assert [(s.label, s.kind) for s in found] == [
        ("fast", "model"),
        ("resample", "baseline"),
        ("mine", "model"),
        ("peer", "folder"),
        ("tool", "command"),
    ]
    assert Command.parse(found[-1].target).words == ("tool", "--x", "1,2", "{in}", "{out}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slow", "unknown system 'slow'; pass a packaged model such as fast"),
        ("fast,fast", "two systems are called 'fast'; name them"),
        ("cmd:tool {in}", "has no {out}"),
        ("cmd:tool '{in} {out}", "cannot be split"),
        ("", "no system to score"),
    ],
)
def test_wrong_systems_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        systems.parse_systems([text])
    with pytest.raises(ModelError, match="no such model file"):
        systems.parse_systems(["nowhere.onnx"])


def test_outputs_of_a_folder_are_found_in_the_usual_places(tmp_path: Path) -> None:
    for name in ("8000/anna/a.wav", "anna/b.flac", "16000/c.wav", "x_d_8000.wav", "e.wav", "e.flac"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    find = systems.find_output
    assert find(tmp_path, "anna/a.flac", 8000) == tmp_path / "8000/anna/a.wav"
    assert find(tmp_path, "anna/b.wav", 8000) == tmp_path / "anna/b.flac"
    assert find(tmp_path, "anna/c.wav", 16000) == tmp_path / "16000/c.wav"
    assert find(tmp_path / "x_{stem}_{rate}", "anna/d.wav", 8000) == tmp_path / "x_d_8000.wav"
    with pytest.raises(AudioError, match="no output for anna/a"):
        find(tmp_path, "anna/a.flac", 16000)
    with pytest.raises(AudioError, match="which one"):
        find(tmp_path, "anna/e.wav", 8000)


def test_digest_changes_with_the_output_and_with_files_of_the_command(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        systems._static_digest.cache_clear()
        return systems.digest(systems.parse_systems([text])[0], "a.wav", 8000)

    script = tmp_path / "tool.py"
    script.write_text("1")
    command = f"cmd:{PYTHON} {script} {{in}} {{out}}"
    first = digest(command)
    assert first == digest(command) != digest(f"{command} -x")
    script.write_text("2")
    assert first != digest(command)
    missing = digest(f"dir:{tmp_path}")
    write(tmp_path / "a.wav", np.zeros((1, 10), np.float32) + 0.1, 48000)
    assert missing != digest(f"dir:{tmp_path}")


def run(code: str, folder: Path, timeout_s: float = 60) -> float:
    """Run Python code as a system on a dummy file; `sys.argv[1:]` are input and output."""
    (folder / "in.wav").write_bytes(b"input")
    command = Command.parse(f"{PYTHON} -c {shlex.quote(code)} {{in}} {{out}} {{rate}}")
    return command.run(folder / "in.wav", folder / "out.wav", 8000, timeout_s).seconds


def test_command_gets_its_words_without_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a folder; $HOME"
    folder.mkdir()
    assert run("import sys; open(sys.argv[2], 'w').write(sys.argv[3])", folder) > 0
    assert (folder / "out.wav").read_text() == "8000"


def test_peak_memory_is_that_of_the_program(tmp_path: Path) -> None:
    command = Command.parse(
        f"{PYTHON} -c \"import sys; x = bytearray(10**8); open(sys.argv[2], 'w').write('x')\" {{in}} {{out}}"
    )
    ran = command.run(tmp_path / "in.wav", tmp_path / "out.wav", 8000, 60)
    assert ran.peak_memory_mb is not None and 100 < ran.peak_memory_mb < 150


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no licence found')", "exit code 1: no licence found"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ("pass", "wrote nothing"),
        ("import sys; open(sys.argv[2], 'w')", "wrote nothing"),
    ],
)
def test_failures_of_a_command_are_told(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=message):
        run(code, tmp_path)


def test_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no-such-program cannot be started"):
        Command.parse("no-such-program {in} {out}").run(tmp_path / "i", tmp_path / "o", 8000, 60)


HANGS = (
    "import subprocess, sys, time\n"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open(sys.argv[1] + '.pid', 'w').write(str(p.pid)); time.sleep(600)"
)


def wait_until(condition, seconds: float = 900) -> None:
    """Wait for something that comes soon; the limit is only there for the day that it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_hanging_command_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "in.wav.pid"
    for timeout_s in (1, 5, 60):  # as long as this machine takes to start the child
        with pytest.raises(AudioError, match=rf"did not end within {timeout_s} s and was killed"):
            run(HANGS, tmp_path, timeout_s=timeout_s)
        if note.is_file() and note.read_text():
            break
    child = int(note.read_text())
    wait_until(lambda: not is_running(child))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_command_ends_when_the_process_that_wanted_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom hifispeech.evaluate.systems.command import Command\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        f"words = (sys.executable, '-c', {HANGS!r}, '{{in}}', '{{out}}')\n"
        "Command(words).run(folder / 'in.wav', folder / 'out.wav', 8000, 600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    note = tmp_path / "in.wav.pid"
    wait_until(lambda: note.is_file() and note.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not is_running(int(note.read_text())))
