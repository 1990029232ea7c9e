"""Jobs through a real server: their way, cancelling, expiry, and what a restart keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import hifispeech
from hifispeech.serve.jobs.database import Job, Jobs, new_id


def submit(client: httpx.Client, file: Path, **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", files={"file": (file.name, file.read_bytes())}, params=query)
    assert answer.status_code == 202, answer.text
    return answer.json()


def wait(client: httpx.Client, id: str, *statuses: str) -> dict[str, Any]:
    """Ask until the job has one of these statuses; its progress never falls on the way."""
    progress, deadline = 0.0, time.monotonic() + 240
    while True:
        job = client.get(f"/v1/jobs/{id}").json()
        assert job["status"] != "running" or job["progress"] >= progress
        progress = job["progress"]
        if job["status"] in statuses:
            return job
        assert time.monotonic() < deadline, f"still {job['status']}"
        time.sleep(0.05)


def test_a_job_from_start_to_end(http: httpx.Client, short_clip: Path, tmp_path: Path, live: Any) -> None:
    job = submit(http, short_clip, format="flac")
    assert (job["status"], job["progress"], job["error"]) == ("queued", 0.0, None)
    done = wait(http, job["id"], "done", "failed")
    target = tmp_path / "out.flac"
    report = hifispeech.Upscaler(threads=1).process_file(short_clip, target)
    assert (done["status"], done["progress"], done["name"]) == ("done", 1.0, "short.wav")
    assert (tuple(done["cutoff_hz"]), done["duration_s"]) == (report.cutoff_hz, report.duration_s)
    result = http.get(f"/v1/jobs/{job['id']}/result")
    assert result.content == target.read_bytes() and len(result.content) == done["result_bytes"]
    assert result.headers["Content-Type"] == "audio/flac"
    part = http.get(f"/v1/jobs/{job['id']}/result", headers={"Range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == result.content[4:8]
    assert list(live.data.glob("uploads/*")) == []
    assert http.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert http.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert list(live.data.glob("results/*")) == []


def test_a_bad_file_fails_with_a_reason(http: httpx.Client, tmp_path: Path, live: Any) -> None:
    bad = tmp_path / "note.wav"
    bad.write_bytes(b"I am no audio" * 99)
    failed = wait(http, submit(http, bad)["id"], "done", "failed")
    assert failed["status"] == "failed" and failed["error"].startswith("note.wav: not audio")
    assert str(live.data) not in failed["error"]
    answer = http.get(f"/v1/jobs/{failed['id']}/result")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_done")


def test_cancelled_jobs_stop_and_leave_nothing(
    http: httpx.Client, long_clip: Path, short_clip: Path, live: Any
) -> None:
    running, waiting = submit(http, long_clip)["id"], submit(http, short_clip)["id"]
    wait(http, running, "running")
    for id in (waiting, running):
        assert http.delete(f"/v1/jobs/{id}").status_code == 204
        assert http.get(f"/v1/jobs/{id}").json()["status"] == "cancelled"
    after = submit(http, short_clip)["id"]
    wait(http, after, "done")  # the worker is free again
    assert [path.stem for path in live.data.glob("results/*")] == [after]
    assert list(live.data.glob("uploads/*")) == [] and live.temporary() == []


@pytest.mark.parametrize("id", ["0" * 32, "../../jobs.sqlite3", "..%2f..%2fjobs.sqlite3", "x"])
def test_unknown_ids(id: str, http: httpx.Client) -> None:
    for path in (f"/v1/jobs/{id}", f"/v1/jobs/{id}/result"):
        assert http.get(path).status_code in (404, 422)
    assert http.delete(f"/v1/jobs/{id}").status_code in (404, 405, 422)


@pytest.mark.slow
def test_a_restart_loses_nothing(
    start_server: Callable[..., Any], short_clip: Path, long_clip: Path, tmp_path: Path
) -> None:
    """SIGTERM in the middle: the running job waits again, the waiting one too; both are done after."""
    server = start_server("--grace", 0, folder=tmp_path)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        done = submit(client, short_clip)["id"]
        wait(client, done, "done")
        running, waiting = submit(client, long_clip)["id"], submit(client, short_clip)["id"]
        wait(client, running, "running")
    assert server.stop() == 0
    assert server.temporary() == []
    assert any(record["event"] == "jobs left for the next start" for record in server.log)

    orphan = server.data / "results" / f"{new_id()}.wav"
    orphan.write_bytes(b"of no job")
    server = start_server(folder=tmp_path)
    assert not orphan.exists()
    with httpx.Client(base_url=server.url, timeout=120) as client:
        assert client.get(f"/v1/jobs/{done}").json()["status"] == "done"
        assert client.get(f"/v1/jobs/{done}/result").status_code == 200
        assert client.delete(f"/v1/jobs/{running}").status_code == 204
        wait(client, waiting, "done")
    assert server.stop() == 0

    server = start_server("--keep-hours", 0, folder=tmp_path)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for id in (done, waiting):  # their time is over
            for _ in range(200):
                if client.get(f"/v1/jobs/{id}").status_code == 404:
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("an expired job is still there")
    assert list(server.data.glob("results/*")) == []
    assert server.stop() == 0


@pytest.mark.slow
def test_two_servers_do_not_share_a_folder(start_server: Callable[..., Any], live: Any) -> None:
    with pytest.raises(RuntimeError, match="another server keeps its jobs here"):
        start_server("--data", live.data)


def test_rows_change_as_they_may(tmp_path: Path) -> None:
    """The state machine of the table, and that it survives a reopening."""
    jobs = Jobs(tmp_path / "jobs.sqlite3")
    ids = [new_id() for _ in range(4)]
    for at, id in enumerate(ids):
        jobs.add(Job(id, "queued", f"{at}.wav", "wav", 3400.0 if at else None, float(at)))
    first, second = jobs.claim(), jobs.claim()
    assert first is not None and second is not None and [first.id, second.id] == ids[:2]
    assert first.status == "running" and first.cutoff_hz is None and second.cutoff_hz == 3400.0
    assert not jobs.finish(ids[2], {}), "was not running"
    assert jobs.finish(ids[0], {"peak": 0.5}) and not jobs.fail(ids[0], "late")
    assert jobs.cancel(ids[2]) and not jobs.cancel(ids[2]) and not jobs.cancel(ids[0])
    jobs.close()

    jobs = Jobs(tmp_path / "jobs.sqlite3")
    assert jobs.counts() == {"queued": 1, "running": 1, "done": 1, "failed": 0, "cancelled": 1}
    assert jobs.requeue() == 1 and jobs.requeue() == 0
    again = jobs.claim()
    assert again is not None and (again.id, again.attempts) == (ids[1], 2), "at its old place"
    found = jobs.get(ids[0])
    assert found is not None and found.report == {"peak": 0.5}
    ended = jobs.ended_before(time.time() + 1)
    assert sorted(job.id for job in ended) == sorted([ids[0], ids[2]])
    jobs.remove(ids[0])
    assert jobs.get(ids[0]) is None and len(jobs.all()) == 3
    jobs.close()
