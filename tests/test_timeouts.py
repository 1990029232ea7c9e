"""No test hangs the suite: pytest in a process of its own, with tests that hang."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# A child in its own session that leaves a grandchild, as a server or Ray does.
HANGS = """
import ctypes, subprocess, sys, time

CHILD = "import subprocess, sys, time; "
CHILD += "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
CHILD += "print(p.pid, flush=True); time.sleep(600)"


def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, start_new_session=True)
    with open({pids!r}, "w") as file:
        file.write(f"{{child.pid}} {{int(child.stdout.readline())}}")
    {hang}


def test_after():
    pass
"""


def run(folder: Path, hang: str, *options: str) -> tuple[str, list[int]]:
    """What pytest says about the two tests with these files' settings, and what they had started."""
    ours = Path(__file__).parent
    for name in ("conftest.py", "warden.py"):
        (folder / "tests").mkdir(exist_ok=True)
        (folder / "tests" / name).write_text((ours / name).read_text().replace("GRACE_S = 20", "GRACE_S = 2"))
    (folder / "pyproject.toml").write_text((ours.parent / "pyproject.toml").read_text())
    pids = folder / "pids"
    (folder / "tests" / "test_one.py").write_text(HANGS.format(pids=str(pids), hang=hang))
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "4", *options]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr, [int(pid) for pid in pids.read_text().split()]


def gone(pids: list[int]) -> bool:
    """Within some seconds."""
    for _ in range(100):
        left = [pid for pid in pids if Path(f"/proc/{pid}/environ").exists() and alive(pid)]
        if not left:
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("hang", "options"),
    [("child.wait()", ("-n", "1")), ("ctypes.PyDLL(None).sleep(600)", ())],
    ids=["waits for a child, xdist", "keeps the interpreter's lock"],
)
def test_a_hanging_test_ends_with_its_stacks_and_children(
    hang: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    said, started = run(tmp_path, hang, *options)
    assert hang in said or "in test_hangs" in said, said  # the stacks
    assert len(started) == 2 and gone(started)
    if options:
        assert "crashed while running 'tests/test_one.py::test_hangs" in said, said
