"""Tasks in processes that die: nothing is lost but the task at hand, and nothing outlives the parent."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PREPARE = textwrap.dedent(
    """
    import logging, os, signal, sys, time
    from contextlib import closing
    from pathlib import Path
    from hifispeech.errors import ModelError
    from hifispeech.runs.processes import Crashed, run_tasks

    def handle(task, on_fraction):
        kind, _, value = task.partition(":")
        if kind == "die":
            os.kill(os.getpid(), getattr(signal, value))
        if kind == "wait":
            time.sleep(4)
            os._exit(3)
        if kind == "exit":
            os._exit(3)
        if kind == "log":
            logging.getLogger("somewhere").warning("said %s", value)
        if kind == "sleep":
            Path(value).write_text(str(os.getpid()))
            time.sleep(60)
        on_fraction(0.5)
        return f"{task} done"

    def setup():
        return handle

    def broken():
        raise ModelError("no such model")

    def dying():
        os._exit(7)
    """
)


def run_script(folder: Path, body: str, *arguments: object) -> "subprocess.Popen[str]":
    """A script in a process of its own: processes are spawned, which imports the script again."""
    script = folder / "script.py"
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    script.write_text(f'{PREPARE}\nif __name__ == "__main__":\n{indented}')
    words = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_of(folder: Path, body: str) -> list[str]:
    process = run_script(folder, body)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return stdout.splitlines()


def test_lost_tasks_are_told_and_all_others_done(tmp_path: Path) -> None:
    lines = lines_of(
        tmp_path,
        """
        tasks = ["a", "die:SIGKILL", "b", "exit", "log:hello", "die:SIGSEGV", "c"]
        def on_progress(task, fraction): print("Progress", task, fraction)
        def on_log(task, record): print("Logged", task, record.name, record.levelname, record.getMessage())
        for task, result in run_tasks(setup, tasks, 2, on_progress=on_progress, on_log=on_log):
            is_lost = isinstance(result, Crashed)
            print("Lost" if is_lost else "Finished", task, result.reason if is_lost else result)
        """,
    )
    finished = {line.split()[1] for line in lines if line.startswith("Finished")}
    lost = {line.split(maxsplit=2)[1]: line.split(maxsplit=2)[2] for line in lines if line.startswith("Lost")}
    assert finished == {"a", "b", "c", "log:hello"}
    assert set(lost) == {"die:SIGKILL", "exit", "die:SIGSEGV"}
    assert "memory" in lost["die:SIGKILL"] and "SIGSEGV" in lost["die:SIGSEGV"] and "3" in lost["exit"]
    assert "Logged log:hello somewhere WARNING said hello" in lines
    assert sum(line.startswith("Progress") for line in lines) == 4


def test_no_task_starts_far_ahead_of_an_unfinished_one(tmp_path: Path) -> None:
    """The first takes long and then dies: of the others no more than two are done until then."""
    lines = lines_of(
        tmp_path,
        """
        tasks = ["wait", "a", "b", "c", "d"]
        for task, result in run_tasks(setup, tasks, 3, max_ahead=3):
            print(task, type(result).__name__)
        """,
    )
    assert sorted(lines[:2]) == ["a str", "b str"] and lines[2] == "wait Crashed"
    assert sorted(lines[3:]) == ["c str", "d str"]


def test_failed_setup_is_raised(tmp_path: Path) -> None:
    process = run_script(tmp_path, "list(run_tasks(broken, ['a'], 2))")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1 and "ModelError: no such model" in stderr


def test_processes_that_never_get_ready_end_the_run(tmp_path: Path) -> None:
    process = run_script(tmp_path, "list(run_tasks(dying, ['a', 'b'], 1))")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1 and "before they are ready" in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("end", ["killed", "closed"])
def test_processes_do_not_outlive_the_parent(tmp_path: Path, end: str) -> None:
    place = tmp_path / "pid"
    process = run_script(
        tmp_path,
        """
        with closing(run_tasks(setup, ["a", "sleep:" + sys.argv[1]], 1)) as events:
            for _ in events:
                if sys.argv[2] == "closed":
                    while not Path(sys.argv[1]).exists(): time.sleep(0.01)
                    break
        """,
        place,
        end,
    )
    with process:
        worker = int(_wait_for(place))
        if end == "killed":
            process.kill()
        process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(worker)


def _wait_for(path: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} never appeared")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
