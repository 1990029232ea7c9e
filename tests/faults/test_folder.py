"""A folder run is killed again and again: no half file at any time, in the end all is as if undisturbed."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hifispeech.runs.folder import SCRATCH, upscale_folder
from hifispeech.runs.manifest import NAME, read_manifest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

FILES = 5
PROGRAM = [sys.executable, "-m", "hifispeech"]
# Runs the command line with a bomb: the parent kills itself at the n-th line executed in its modules, which
# covers every point between two effects on the disk. With n = 0 it prints how many lines there are.
BOMB = """
import os, signal, sys
from hifispeech.cli import main

end = count = 0
parts = ("runs/folder.py", "runs/manifest.py", "hifispeech/files.py")

def trace(frame, event, argument):
    global count
    if not frame.f_code.co_filename.endswith(parts):
        return None
    count += event == "line"
    if event == "line" and count == end:
        os.kill(os.getpid(), signal.SIGKILL)
    return trace

if __name__ == "__main__":  # workers import this script, too
    end = int(sys.argv.pop(1))
    sys.settrace(trace)
    try:
        main()
    finally:
        sys.settrace(None)
        print("lines:", count)
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of less than half a second."""
    folder = tmp_path_factory.mktemp("killed") / "in"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(FILES):
        place = folder / "deep" if number % 2 else folder
        soundfile.write(place / f"{number}.wav", 0.1 * rng.standard_normal(3000 + 100 * number), 8000)
    return folder


@pytest.fixture(scope="module")
def expected(recordings: Path) -> dict[str, bytes]:
    """What an undisturbed run makes."""
    out = recordings.parent / "undisturbed"
    assert all(result.status == "done" for result in upscale_folder(recordings, out, workers=1))
    return results_in(out)


def results_in(folder: Path) -> dict[str, bytes]:
    """The files under a final name; scratch files of a killed run are not taken for results."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != NAME]
    files = [file for file in files if SCRATCH not in file.parts]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def assert_no_half_file(folder: Path, expected: dict[str, bytes]) -> None:
    for name, content in results_in(folder).items():
        assert content == expected[name], f"{name} has {len(content)} bytes, not {len(expected[name])}"


def assert_complete(folder: Path, expected: dict[str, bytes]) -> None:
    assert results_in(folder) == expected
    assert not (folder / SCRATCH).exists()
    done = {entry.output for entry in read_manifest(folder / NAME) if entry.status == "done"}
    assert done == set(expected)


def command(recordings: Path, out: Path) -> list[str]:
    return ["upscale", str(recordings), "-o", str(out), "--workers", "2", "--resume", "--quiet"]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def killed_at_lines(recordings: Path, expected: dict[str, bytes], work: Path, kills: int, seed: int) -> None:
    """Kill at lines drawn by lot, look after each kill, resume; a new folder after every fourth."""
    bomb = work / "bomb.py"
    bomb.write_text(BOMB)
    whole = run([sys.executable, str(bomb), "0", *command(recordings, work / "counted")])
    assert whole.returncode == 0, whole.stderr
    found = re.search(r"lines: (\d+)", whole.stdout)
    assert found is not None
    lines, draw = int(found[1]), random.Random(seed)
    for story in range(-(-kills // 4)):
        out = work / f"story{story}"
        for _ in range(min(4, kills - 4 * story)):
            end = str(draw.randint(1, lines))
            done = run([sys.executable, str(bomb), end, *command(recordings, out)])
            assert done.returncode in (-signal.SIGKILL, 0), done.stderr  # a resumed run has fewer lines
            assert_no_half_file(out, expected)
        last = run([*PROGRAM, *command(recordings, out)])
        assert last.returncode == 0, last.stderr
        assert_complete(out, expected)


def test_killed_at_any_line_and_resumed(recordings: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    killed_at_lines(recordings, expected, tmp_path, kills=3, seed=1)


@pytest.mark.slow
def test_killed_at_many_lines_and_resumed(
    recordings: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    killed_at_lines(recordings, expected, tmp_path, kills=40, seed=2)


@pytest.mark.slow
def test_killed_at_any_time_and_resumed(recordings: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """The parent, a worker, or all of them at once."""
    draw = random.Random(3)
    for number in range(20):
        out = tmp_path / f"story{number // 5}"
        words = [*PROGRAM, *command(recordings, out)]
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            wait_until(lambda out=out: (out / SCRATCH).exists(), process)
            time.sleep(draw.uniform(0.0, 1.5))
            victim = draw.choice(["parent", "worker", "all"])
            kill(process, victim, draw)
            if victim == "parent":
                wait_for_orphans(out)
        assert_no_half_file(out, expected)
        if number % 5 == 4:
            last = run(words)
            assert last.returncode == 0, last.stderr
            assert_complete(out, expected)


def test_lost_worker_costs_one_file(recordings: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """What the system does when memory is short: the file fails, the run goes on, --resume does the rest."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    long = 0.1 * np.random.default_rng(1).standard_normal(8000 * 600)
    soundfile.write(source / "0-long.wav", long, 8000)
    soundfile.write(source / "1-short.wav", long[:4000], 8000)
    words = [*PROGRAM, "upscale", str(source), "-o", str(out), "--workers", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: list(out.glob(f"{SCRATCH}/.*.tmp")), process)
        (worker,) = workers_of(process.pid)
        os.kill(worker, signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "0-long.wav" in stderr and "SIGKILL" in stderr and "1 of 2 files failed" in stderr
    assert set(results_in(out)) == {"1-short.wav"} and not (out / SCRATCH).exists()
    assert {entry.output: entry.status for entry in read_manifest(out / NAME)} == {
        "0-long.wav": "failed",
        "1-short.wav": "done",
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_is_clean_and_can_be_resumed(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of a terminal, a polite kill to the parent only."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    long = 0.1 * np.random.default_rng(1).standard_normal(8000 * 600)
    soundfile.write(source / "0-short.wav", long[:4000], 8000)
    soundfile.write(source / "1-long.wav", long, 8000)
    words = [*PROGRAM, "upscale", str(source), "-o", str(out), "--workers", "1"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_until(lambda: (out / "0-short.wav").exists() and list(out.glob(f"{SCRATCH}/.*.tmp")), process)
        workers = workers_of(process.pid)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in stderr and "--resume" in stderr
    assert set(results_in(out)) == {"0-short.wav"} and not (out / SCRATCH).exists()
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    soundfile.write(source / "1-long.wav", long[:4000], 8000)
    resumed = run([*words, "--resume"])
    assert resumed.returncode == 0 and "1 done before and unchanged" in resumed.stdout, resumed.stderr


# --- processes


def wait_until(is_true, process: subprocess.Popen) -> None:  # type: ignore[no-untyped-def, type-arg]
    deadline = time.monotonic() + 120
    while not is_true() and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.01)


def workers_of(parent: int) -> list[int]:
    """The spawned workers of a run; the resource tracker of `multiprocessing` is none."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == parent and b"spawn_main" in (entry / "cmdline").read_bytes():
                    children.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
    return children


def kill(process: subprocess.Popen, victim: str, draw: random.Random) -> None:  # type: ignore[type-arg]
    if victim == "worker":
        for worker in draw.sample(found := workers_of(process.pid), min(1, len(found))):
            os.kill(worker, signal.SIGKILL)
        process.wait(timeout=300)
    elif process.poll() is None:
        if victim == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def wait_for_orphans(out: Path) -> None:
    """Workers end when their parent is gone; give them the moment that this takes."""
    deadline = time.monotonic() + 60
    while _mentions(out) and time.monotonic() < deadline:
        time.sleep(0.05)


def _mentions(out: Path) -> bool:
    """Whether any process has a file in `out` open."""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(out) in os.readlink(entry):
                return True
        except OSError:
            continue
    return False
