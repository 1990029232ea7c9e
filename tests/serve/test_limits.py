"""Limits, keys and failures of workers, through a real server with tight limits."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hifispeech.serve.settings import read_keys

KEY = "a-key-of-more-than-sixteen-characters"


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@contextlib.contextmanager
def half_an_upload(url: str) -> Iterator[socket.socket]:
    """A request that has begun and does not end: it keeps its place."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80)) as connection:
        head = f"POST /v1/upscale HTTP/1.1\r\nHost: {address.host}\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}Content-Type: audio/wav\r\nContent-Length: 1000\r\n\r\nRIFF".encode())
        yield connection


def wait_for_places(client: httpx.Client, taken: int) -> None:
    """Until so many requests are inside."""
    deadline = time.monotonic() + 60
    while f"hifispeech_requests_admitted {taken}.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_too_large_is_refused_with_and_without_a_length(http_small: httpx.Client) -> None:
    data = bytes(1_100_000)
    kind = {"Content-Type": "audio/wav"}
    for content in (data, iter([data[:600_000], data[600_000:]])):
        answer = http_small.post("/v1/upscale", content=content, headers=kind)
        assert refusal(answer) == (413, "too_large")
    files = {"file": ("x.wav", data), "other": ("y", b"")}
    assert refusal(http_small.post("/v1/jobs", files=files)) == (413, "too_large")


def test_too_long_and_too_many_channels(http_small: httpx.Client, phone_clip: Path, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(13 * 8000), 8000)
    data = path.read_bytes()
    answer = http_small.post("/v1/upscale", files={"file": ("long.flac", data)})
    assert refusal(answer) == (413, "too_long") and "0.2 minutes" in answer.text
    assert http_small.post("/v1/inspect", files={"file": ("long.flac", data)}).status_code == 200
    soundfile.write(path, np.zeros((800, 3)), 8000)
    answer = http_small.post("/v1/upscale", files={"file": ("three.flac", path.read_bytes())})
    assert refusal(answer) == (413, "too_long") and "3 channels" in answer.text


def test_full_queue_says_when_to_come_back(http_small: httpx.Client, small: Any, short_clip: Path) -> None:
    files = {"file": ("a.wav", short_clip.read_bytes())}
    with half_an_upload(small.url):
        wait_for_places(http_small, 1)
        answer = http_small.post("/v1/upscale", files=files)
        assert refusal(answer) == (429, "busy")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    for _ in range(200):  # the place of a client that is gone is free again
        if (answer := http_small.post("/v1/upscale", files=files)).status_code == 200:
            break
        time.sleep(0.05)
    assert answer.status_code == 200


def test_client_that_stalls_is_shown_out(http_small: httpx.Client, small: Any) -> None:
    wait_for_places(http_small, 0)
    with half_an_upload(small.url) as connection:
        connection.settimeout(60)
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert small.temporary() == []


def test_job_queue_is_bounded(http_small: httpx.Client, small: Any, short_clip: Path) -> None:
    """A stopped worker holds the first job, the second waits, the third is one too many."""
    files = {"file": ("a.wav", short_clip.read_bytes())}
    first = http_small.post("/v1/jobs", files=files).json()["id"]
    while http_small.get(f"/v1/jobs/{first}").json()["status"] in ("queued", "running"):
        time.sleep(0.01)  # until the worker of jobs has started
    workers, ids = small.workers(), []
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        while (answer := http_small.post("/v1/jobs", files=files)).status_code == 202:
            ids.append(answer.json()["id"])
            while len(ids) == 1 and http_small.get(f"/v1/jobs/{ids[0]}").json()["status"] == "queued":
                time.sleep(0.01)
        assert len(ids) == 2
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert refusal(answer) == (429, "busy") and "Retry-After" in answer.headers
    for id in ids:
        assert http_small.delete(f"/v1/jobs/{id}").status_code == 204


def test_key_is_needed(small: Any) -> None:
    with httpx.Client(base_url=small.url) as client:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": f"Bearer {KEY[:-1]}"},
            {"X-Api-Key": ""},
        ):
            answer = client.get("/v1/models", headers=headers)
            assert refusal(answer) == (401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert refusal(client.get("/metrics")) == (401, "unauthorized")
        for headers in ({"Authorization": f"bearer {KEY}"}, {"X-Api-Key": KEY}):
            assert client.get("/v1/models", headers=headers).status_code == 200
        assert [client.get(path).status_code for path in ("/healthz", "/docs", "/")] == [200, 200, 200]


def test_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the call centre\n{KEY}\n\n{KEY}2\n")
    assert read_keys(file) == (KEY, f"{KEY}2")
    monkeypatch.setenv("HIFISPEECH_API_KEY", KEY)
    assert read_keys(None) == (KEY,)
    for text in ("", "# nothing\n", "short\n", "with blanks in between\n", "ünprintable-in-a-header\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"characters|holds no key"):
            read_keys(file)


def test_friends_may_come_from_their_site(small: Any) -> None:
    friend = {"Origin": "https://friend.example"}
    with httpx.Client(base_url=small.url) as client:
        asked = client.options("/v1/upscale", headers={**friend, "Access-Control-Request-Method": "POST"})
        assert asked.headers["Access-Control-Allow-Origin"] == friend["Origin"]
        answer = client.get("/v1/models", headers={**friend, "X-Api-Key": KEY})
        assert answer.status_code == 200 and "access-control-allow-credentials" not in answer.headers
        assert client.get("/v1/models", headers={"Origin": "https://foe.example"}).status_code == 403


def test_decoder_that_hangs_or_dies_is_replaced(
    http_small: httpx.Client, small: Any, short_clip: Path
) -> None:
    """A stopped worker stands for a decoder that hangs, a killed one for a crash."""
    files = {"file": ("a.wav", short_clip.read_bytes())}
    assert http_small.post("/v1/inspect", files=files).status_code == 200
    before = small.workers()
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    assert refusal(http_small.post("/v1/inspect", files=files)) == (504, "timeout")
    assert http_small.post("/v1/inspect", files=files).status_code == 200
    assert set(small.workers()) != set(before)
    for pid in small.workers():  # a stopped one of jobs among them
        os.kill(pid, signal.SIGKILL)
    assert http_small.post("/v1/inspect", files=files).status_code == 200
    assert small.temporary() == []


def test_cut_off_answers_do_not_look_whole(http: httpx.Client, live: Any, long_clip: Path) -> None:
    """The worker dies when a part has been sent: the client gets an error, not a shorter file."""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        long_clip.open("rb") as file,
        http.stream("POST", "/v1/upscale", files={"file": file}) as answer,
    ):
        for at, _ in enumerate(answer.iter_bytes(96_000)):
            if at == 2:
                for pid in live.workers():
                    os.kill(pid, signal.SIGKILL)
    assert http.get("/healthz").status_code == 200


@pytest.mark.slow
def test_time_out(start_server: Callable[..., Any], long_clip: Path) -> None:
    server = start_server("--timeout", 1)
    with long_clip.open("rb") as file:
        # FLAC is sent when it is whole, so that the answer can still be an error.
        answer = httpx.post(f"{server.url}/v1/upscale?format=flac", files={"file": file}, timeout=120)
    assert refusal(answer) == (504, "timeout")
    assert server.temporary() == []
    assert server.stop() == 0


@pytest.mark.slow
def test_what_has_begun_is_finished_after_sigterm(start_server: Callable[..., Any], short_clip: Path) -> None:
    server = start_server("--grace", 60)
    with half_an_upload(server.url) as connection:
        with httpx.Client(base_url=server.url) as client:
            wait_for_places(client, 1)
        server.process.send_signal(signal.SIGTERM)
        while not any(record["event"] == "shutting down" for record in server.log):
            time.sleep(0.01)
        connection.sendall(short_clip.read_bytes()[4:1000])
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        while connection.recv(1 << 16):
            pass
    assert server.process.wait(timeout=120) == 0
    assert server.temporary() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")
