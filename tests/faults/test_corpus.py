"""A corpus on a Ray cluster of two nodes, started here: workers, nodes and drivers are killed by signal 9."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hifispeech
from hifispeech.files import file_sha256
from hifispeech.runs.manifest import read_manifest

pytest.importorskip("ray", reason="needs the extra dist")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),  # one Ray at a time: it takes all cores
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

FILES = 12
STORE_BYTES = 80 << 20
PATIENCE_S = 900


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, on loopback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # for the processes started below, as in this one
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "node_ip_address": "127.0.0.2"}
        nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            nodes.add_node(**node)
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, synthetic_speech: Callable[..., np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(FILES):
        audio = synthetic_speech(8.0 + 0.1 * number, 8000, seed=number)[None]
        hifispeech.write(folder / f"{number:02}.wav", audio, 8000)
    return folder


@contextmanager
def corpus_run(cluster: Any, recordings: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """`hifispeech corpus` as a process of its own; ended in any case."""
    command = [sys.executable, "-m", "hifispeech", "corpus", str(recordings), "-o", str(output)]
    process = subprocess.Popen(
        [*command, "--cluster", cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(output: Path) -> dict[Path, tuple[int, int]]:
    """The rows that are there, with what tells whether a file was written anew."""
    rows = sorted(output.glob("audio/*/*.json"))
    return {row: (row.stat().st_ino, row.stat().st_mtime_ns) for row in rows}


def wait_for(count: int, process: subprocess.Popen[str], output: Path) -> dict[Path, tuple[int, int]]:
    """Until `count` files are done; meanwhile no more than one file a worker may be on its way."""
    deadline = time.monotonic() + PATIENCE_S
    while len(done := finished(output)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{len(done)} files done"
        assert len(list(output.glob(".work/*/*.flac"))) <= 2
        time.sleep(0.05)
    return done


def workers_of(node: Any) -> list[int]:
    """Process ids of the model actors that a node of our cluster started."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == raylet and b"CorpusActor" in words:
            found.append(int(entry.name))
    return found


def assert_complete(output: Path, recordings: Path) -> None:
    """Every input has one row and one whole result; nothing else is left."""
    entries = list(read_manifest(output / "hifispeech.jsonl"))
    assert Counter(entry.input for entry in entries) == Counter(map(str, recordings.glob("*.wav")))
    assert {entry.status for entry in entries} == {"done"}
    for entry in entries:
        assert file_sha256(output / entry.output) == entry.output_sha256
    names = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    results = {entry.output for entry in entries}
    rows = {result.replace(".flac", ".json") for result in results}
    assert names == {"corpus.json", "hifispeech.jsonl", *results, *rows}


def assert_all_counted(said: str) -> None:
    """Every file is counted once. A worker that outlives its driver may finish a file before the next run."""
    found = re.search(r"(\d+) files done, (\d+) done before, 0 failed", said)
    assert found is not None and int(found[1]) + int(found[2]) == FILES, said


def test_killed_driver_goes_on_where_it_was(cluster: Any, recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with corpus_run(cluster, recordings, output) as process:
        before = wait_for(3, process, output)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert not (output / "hifispeech.jsonl").exists()
    with corpus_run(cluster, recordings, output) as process:
        said, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    assert_all_counted(said)
    assert before.items() <= finished(output).items(), "what was done is not done again"
    assert_complete(output, recordings)


def test_killed_worker_and_lost_node_lose_nothing(cluster: Any, recordings: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    head, second = cluster.head_node, next(iter(cluster.worker_nodes))
    with corpus_run(cluster, recordings, output) as process:
        wait_for(1, process, output)
        (worker,) = workers_of(head) or workers_of(second)
        os.kill(worker, signal.SIGKILL)
        before = wait_for(4, process, output)
        cluster.remove_node(second, allow_graceful=False)
        said, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    assert_all_counted(said)
    assert before.items() <= finished(output).items()
    assert_complete(output, recordings)
