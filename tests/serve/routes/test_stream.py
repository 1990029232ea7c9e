"""`WS /v1/stream` and the client, against a live server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import hifispeech
from hifispeech.client import Client, ServiceError
from hifispeech.infer.live.stream import Stream
from hifispeech.weights.packaged import PACKAGED

pytest.importorskip("websockets", reason="the extra `serve` is not installed")
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

KEY = "a-key-of-more-than-sixteen-characters"


@pytest.fixture
def client(live: Any) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


def open_socket(server: Any, query: str, headers: dict[str, str] | None = None) -> ClientConnection:
    url = f"ws{server.url.removeprefix('http')}/v1/stream?{query}"
    return connect(url, additional_headers=headers or {}, open_timeout=60)


def converse(server: Any, query: str, data: bytes, size: int) -> bytes:
    """Send `data` in messages of `size` bytes; all that comes back."""
    heard = b""
    with open_socket(server, query) as socket:
        for at in range(0, len(data), size):
            socket.send(data[at : at + size])
        socket.send(json.dumps({"type": "flush"}))
        for message in socket:
            if isinstance(message, str):
                assert json.loads(message) == {"type": "end"}
                break
            heard += message
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(60)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
    return heard


def expected(path: Path) -> np.ndarray:
    """What the library's stream makes of the file, `[channels, time]`."""
    audio, rate = hifispeech.read(path)
    stream = Stream(rate, audio.shape[0])
    return np.concatenate([stream.push(audio), stream.flush()], axis=1)


@pytest.mark.parametrize("size", [333, 64_000])
def test_stream_is_that_of_the_library(size: int, live: Any, short_clip: Path) -> None:
    """In messages that cut samples in two, or all in one."""
    audio, rate = soundfile.read(short_clip, dtype="int16")
    heard = converse(live, f"rate={rate}&channels=2&output=f32le", audio.tobytes(), size)
    made = np.frombuffer(heard, "<f4").reshape(-1, 2).T
    np.testing.assert_allclose(made, expected(short_clip), atol=1e-5)


def test_formats_of_samples(live: Any, short_clip: Path) -> None:
    audio, rate = soundfile.read(short_clip, dtype="float32")
    heard = converse(live, f"rate={rate}&channels=2&format=f32le", audio.astype("<f4").tobytes(), 16_000)
    made = np.frombuffer(heard, "<i2").reshape(-1, 2).T / 32768
    np.testing.assert_allclose(made, expected(short_clip), atol=1e-4)


def test_client_streams_as_the_library(client: Client, short_clip: Path) -> None:
    audio, rate = hifispeech.read(short_clip)
    with client.stream(rate, 2) as stream:
        parts = [stream.push(audio[:, at : at + 160]) for at in range(0, audio.shape[1], 160)]
        made = np.concatenate([*parts, stream.flush()], axis=1)
    np.testing.assert_allclose(made, expected(short_clip), atol=1e-5)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "rate="),
        ("rate=fast", "rate='fast'"),
        ("rate=100", "2000 to 768000"),
        ("rate=8000&channels=0", "channels='0'"),
        ("rate=8000&channels=9", "pass 1 to 8"),
        ("rate=8000&format=mp3", "s16le, f32le"),
        ("rate=8000&volume=11", "unknown parameter 'volume'"),
        ("rate=8000&cutoff=9999", "1000..4000"),
        ("rate=8000&cutoff=x", "no frequency"),
    ],
)
def test_wrong_streams_say_why(query: str, message: str, live: Any) -> None:
    with open_socket(live, query) as socket:
        told = json.loads(socket.recv(60))
        assert told["type"] == "error" and message in told["message"]
        with pytest.raises(ConnectionClosed):
            socket.recv(60)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (np.full(9, np.nan, "<f4").tobytes(), "NaN"),
        ("stop", '"flush"'),
        ("[]", '"flush"'),
    ],
)
def test_wrong_messages_say_why(sent: bytes | str, message: str, live: Any) -> None:
    with open_socket(live, "rate=8000&format=f32le") as socket:
        socket.send(sent)
        told = json.loads(socket.recv(60))
        assert told["type"] == "error" and message in told["message"]


def test_streams_are_few_keyed_and_not_for_foreign_pages(small: Any) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    for headers in ({}, {"Authorization": "Bearer no"}, {**key, "Origin": "https://foe.example"}):
        with pytest.raises(Exception, match=r"40[13]"), open_socket(small, "rate=8000", headers):
            pass
    with open_socket(small, "rate=8000", key) as first:
        first.send(bytes(3200))
        first.recv(60)  # it is open
        with open_socket(small, "rate=8000", key) as second:
            assert "the limit" in json.loads(second.recv(60))["message"]
    with Client(small.url, KEY) as client, client.stream(8000) as third:
        assert third.push(np.zeros((1, 800), np.float32)).shape[0] == 1


def test_stream_that_says_nothing_is_closed(small: Any) -> None:
    with open_socket(small, "rate=8000", {"X-Api-Key": KEY}) as socket:
        assert "no message came for 4 s" in json.loads(socket.recv(60))["message"]


def test_client_upscales_files(client: Client, short_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.flac"
    done = client.upscale(short_clip, target)
    report = hifispeech.Upscaler(threads=1).process_file(short_clip, tmp_path / "own.flac")
    assert target.read_bytes() == (tmp_path / "own.flac").read_bytes()
    assert done.cutoff_hz == pytest.approx(report.cutoff_hz, abs=0.06) and not done.is_full_band
    with pytest.raises(hifispeech.AudioError, match="exists already"):
        client.upscale(short_clip, target)
    assert client.upscale(short_clip, target, cutoff_hz=3000, force=True).cutoff_hz == (3000, 3000)
    assert client.inspect(short_clip) == hifispeech.inspect(short_clip)._replace(path="short.wav")
    assert [card["name"] for card in client.models()] == list(PACKAGED)


def test_client_runs_jobs(client: Client, short_clip: Path, tmp_path: Path) -> None:
    job = client.submit(short_clip, format="flac")
    done = client.wait(job.id, timeout_s=240)
    assert (done.status, done.progress, done.error, done.details["channels"]) == ("done", 1.0, None, 2)
    client.result(job.id, tmp_path / "job.flac")
    client.upscale(short_clip, tmp_path / "direct.flac")
    assert (tmp_path / "job.flac").read_bytes() == (tmp_path / "direct.flac").read_bytes()
    client.delete(job.id)
    with pytest.raises(ServiceError, match="no such job") as error:
        client.job(job.id)
    assert (error.value.status, error.value.code) == (404, "not_found")


def test_client_errors_are_the_servers(client: Client, tmp_path: Path, live: Any) -> None:
    bad, target = tmp_path / "bad.wav", tmp_path / "out.wav"
    bad.write_bytes(b"I am no audio" * 99)
    with pytest.raises(ServiceError, match=r"bad\.wav: not audio") as error:
        client.upscale(bad, target)
    assert any(record["request_id"] == error.value.request_id for record in live.log)
    with pytest.raises(hifispeech.AudioError, match="cannot be read"):
        client.inspect(tmp_path / "none.wav")
    with Client("http://127.0.0.1:9", timeout_s=5) as nobody, pytest.raises(ServiceError, match="running"):
        nobody.models()
    assert list(tmp_path.iterdir()) == [bad]


def test_client_waits_for_a_busy_server(small: Any, short_clip: Path) -> None:
    """Two clients, one place: the second is refused, and served when it asks again."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as threads, Client(small.url, KEY) as client:
        found = list(threads.map(client.inspect, [short_clip] * 4))
    assert len(set(found)) == 1
    with Client(small.url, "b" * 20) as stranger, pytest.raises(ServiceError, match="API key") as error:
        stranger.models()
    assert error.value.status == 401
