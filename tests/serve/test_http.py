"""The HTTP service through real requests to a real process: results, streaming, errors, headers, pages."""

from __future__ import annotations

import io
import json
import re
import struct
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

import hifispeech
from hifispeech.weights.packaged import PACKAGED

BUSY = 'hifispeech_busy_workers{pool="requests"} 1.0'


def send(client: httpx.Client, path: str, file: Path, **query: Any) -> httpx.Response:
    return client.post(path, files={"file": (file.name, file.read_bytes())}, params=query)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "opus", "mp3"])
def test_result_is_that_of_the_command_line(
    kind: str, http: httpx.Client, short_clip: Path, tmp_path: Path, live: Any
) -> None:
    answer = send(http, "/v1/upscale", short_clip, format=kind)
    assert answer.status_code == 200, answer.text
    target = tmp_path / f"out.{kind}"
    report = hifispeech.Upscaler(threads=1).process_file(short_clip, target)
    if kind in ("wav", "flac", "mp3"):
        assert answer.content == target.read_bytes()
    else:  # Ogg streams carry a random number
        assert len(answer.content) == target.stat().st_size
    audio, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    np.testing.assert_array_equal(audio, soundfile.read(target, dtype="float32")[0])
    assert rate == 48000
    assert answer.headers["X-Hifispeech-Cutoff-Hz"] == ",".join(f"{hz:.1f}" for hz in report.cutoff_hz)
    assert answer.headers["X-Hifispeech-Full-Band"] == "false"
    assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="short_48k.{kind}"')
    assert live.temporary() == []


def test_raw_body_and_given_cutoff(http: httpx.Client, short_clip: Path) -> None:
    data = short_clip.read_bytes()
    answers = [
        http.post("/v1/upscale?cutoff=3000", content=data, headers={"Content-Type": kind})
        for kind in ("audio/wav", "application/octet-stream")
    ]
    answers.append(send(http, "/v1/upscale", short_clip, cutoff=3000))
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].headers["X-Hifispeech-Cutoff-Hz"] == "3000.0,3000.0"
    assert soundfile.info(io.BytesIO(answers[0].content)).frames == 48000


def test_wav_is_sent_while_it_is_computed_with_its_final_header(http: httpx.Client, long_clip: Path) -> None:
    """The first second is here while the worker is at work; the sizes in it are those of the whole."""
    with (
        long_clip.open("rb") as file,
        http.stream("POST", "/v1/upscale", files={"file": file}) as answer,
    ):
        parts = answer.iter_bytes(96_000)
        first = next(parts)
        assert BUSY in http.get("/metrics").text
        whole = first + b"".join(parts)
    assert struct.unpack("<I", first[4:8])[0] == len(whole) - 8
    assert soundfile.info(io.BytesIO(whole)).frames == 100 * 48000


def test_client_that_leaves_frees_the_worker(http: httpx.Client, long_clip: Path, live: Any) -> None:
    with long_clip.open("rb") as file, http.stream("POST", "/v1/upscale", files={"file": file}) as answer:
        next(answer.iter_bytes(96_000))
    id = answer.headers["X-Request-Id"]
    deadline = time.monotonic() + 60
    # The worker is free a moment before the end of the request is written down.
    while (
        BUSY in http.get("/metrics").text
        or live.temporary()
        or not (lines := [record for record in live.log if record["request_id"] == id])
    ):
        assert time.monotonic() < deadline
    assert [line["outcome"] for line in lines] == ["client gone"]


def test_inspection_is_that_of_the_library(http: httpx.Client, speech_clip: Path) -> None:
    answer = send(http, "/v1/inspect", speech_clip)
    found = hifispeech.inspect(speech_clip)._replace(path=speech_clip.name)
    assert answer.json() == json.loads(json.dumps(found._asdict()))


def test_models_are_listed_with_their_cards(http: httpx.Client) -> None:
    cards = http.get("/v1/models").json()["models"]
    assert [card["name"] for card in cards] == list(PACKAGED)
    assert all(card["licence"] == "Apache-2.0" and card["parameters"] > 1e6 for card in cards)


def test_silence_and_full_band_are_told(http: httpx.Client, tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(8000), 8000)
    headers = send(http, "/v1/upscale", silence).headers
    assert (headers["X-Hifispeech-Cutoff-Hz"], headers["X-Hifispeech-Full-Band"]) == ("0.0", "false")
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, 0.1 * np.random.default_rng(0).standard_normal(48000), 48000)
    answer = send(http, "/v1/upscale", noise)
    assert answer.headers["X-Hifispeech-Full-Band"] == "true"
    np.testing.assert_array_equal(
        soundfile.read(io.BytesIO(answer.content), dtype="int16")[0], soundfile.read(noise, dtype="int16")[0]
    )


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/v1/upscale", b"", {"Content-Type": "audio/wav"}, 400, "bad_audio"),
        ("/v1/upscale", b"I am no audio" * 99, {"Content-Type": "audio/wav"}, 400, "bad_audio"),
        ("/v1/inspect", b"RIFF\0\0", {"Content-Type": "audio/wav"}, 400, "bad_audio"),
        ("/v1/upscale", b"x", {"Content-Type": "text/plain"}, 415, "bad_type"),
        ("/v1/upscale", b"x", {}, 415, "bad_type"),
        ("/v1/upscale", b"x", {"Content-Type": "multipart/form-data; boundary=y"}, 400, "bad_request"),
        ("/v1/upscale?format=aiff", b"x", {"Content-Type": "audio/wav"}, 422, "bad_parameter"),
        ("/v1/upscale?cutoff=loud", b"x", {"Content-Type": "audio/wav"}, 422, "bad_parameter"),
        ("/v1/nothing", b"", {}, 404, "not_found"),
        ("/v1/models", b"", {}, 405, "bad_method"),
    ],
)
def test_errors_have_one_shape(
    path: str, body: bytes, headers: dict[str, str], status: int, code: str, http: httpx.Client, live: Any
) -> None:
    answer = http.post(path, content=body, headers={**headers, "X-Request-Id": "mine-42"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["request_id"]) == (status, code, "mine-42"), error
    assert answer.headers["X-Request-Id"] == "mine-42"
    assert str(live.data) not in answer.text and "Traceback" not in answer.text
    assert live.temporary() == []


def test_parameters_that_do_not_fit_the_file(http: httpx.Client, short_clip: Path, tmp_path: Path) -> None:
    answer = send(http, "/v1/upscale", short_clip, cutoff=5000)
    assert answer.status_code == 422 and "1000..4000" in answer.json()["error"]["message"]
    three = tmp_path / "three.wav"
    soundfile.write(three, np.zeros((800, 3)), 8000)
    answer = send(http, "/v1/upscale", three, format="mp3")
    assert answer.status_code == 422 and "channels=3" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "a\\b\\..\\passwd", "pass\nwd", "$(id)`id`"]
)
def test_names_from_clients_are_only_shown(
    name: str, http: httpx.Client, short_clip: Path, live: Any
) -> None:
    before = sorted(live.data.rglob("*"))
    answer = http.post("/v1/inspect", files={"file": (name, short_clip.read_bytes())})
    assert answer.status_code == 200
    shown = answer.json()["path"]
    assert "/" not in shown and "\\" not in shown and shown.isprintable()
    assert sorted(live.data.rglob("*")) == before


@pytest.mark.parametrize("claim", [0x7FFF_0000, 0xFFFF_FFF0])
def test_header_that_claims_hours_costs_nothing(
    claim: int, http: httpx.Client, short_clip: Path, live: Any
) -> None:
    """The sizes say 37 hours, a second is there: that second is the result, and memory stays small."""
    data = bytearray(short_clip.read_bytes())
    data[4:8] = struct.pack("<I", claim)
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", claim - 36)
    answer = http.post("/v1/upscale", content=bytes(data), headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 200, answer.text
    assert soundfile.info(io.BytesIO(answer.content)).frames == 48000
    for pid in [live.process.pid, *live.workers()]:
        status = Path(f"/proc/{pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak is not None and int(peak[1]) < 1_000_000


def test_every_request_is_in_the_log_once_with_its_id(http: httpx.Client, live: Any) -> None:
    http.get("/v1/models", headers={"X-Request-Id": "find-me"})
    http.get("/v1/models", headers={"X-Request-Id": "bad id\twith\x07blanks"})
    lines = [record for record in live.log if record["request_id"] == "find-me"]
    assert [(line["path"], line["status"], line["level"]) for line in lines] == [("/v1/models", 200, "info")]
    assert all(" " not in record["request_id"] for record in live.log)


def test_health_and_metrics(http: httpx.Client, short_clip: Path) -> None:
    assert send(http, "/v1/upscale", short_clip).status_code == 200
    assert http.get("/v1/nothing").status_code == 404
    assert http.get("/healthz").json() == {"status": "ok", "version": hifispeech.__version__}
    text = http.get("/metrics").text
    for name in ("requests_total", "request_seconds_bucket", "busy_workers", "jobs", "audio_seconds_total"):
        assert f"\nhifispeech_{name}{{" in text
    assert "nothing" not in text  # no client chooses a label
    assert "\nprocess_resident_memory_bytes " in text


def test_pages_need_nothing_from_elsewhere(http: httpx.Client) -> None:
    policy = http.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "'unsafe" not in policy and "http" not in policy
    assert http.get("/").status_code == 200
    page = http.get("/docs")
    assert page.status_code == 200 and not re.search(r"<script|https?://|<[^>]+ on\w+=", page.text)
    for path in ("/v1/upscale", "/v1/jobs/{id}/result", "/v1/inspect"):
        assert path in page.text
    assert http.get("/static/../app.py").status_code == 404
    assert http.get("/static/%2e%2e/app.py").status_code == 404


def test_openapi_tells_bodies_errors_and_examples(http: httpx.Client) -> None:
    told = http.get("/openapi.json").json()
    upscale = told["paths"]["/v1/upscale"]["post"]
    assert set(upscale["requestBody"]["content"]) >= {"multipart/form-data", "application/octet-stream"}
    assert set(upscale["responses"]) >= {"200", "400", "401", "413", "415", "422", "429", "503", "504"}
    assert {"audio/wav", "audio/flac", "audio/mpeg"} <= set(upscale["responses"]["200"]["content"])
    job = told["components"]["schemas"]["JobAnswer"]["properties"]
    assert all("examples" in field for field in job.values())


def test_foreign_pages_and_names_are_refused(http: httpx.Client, live: Any) -> None:
    """No CORS by default; a page elsewhere cannot use the server of who looks at it, under any name."""
    answer = http.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    assert http.get("/v1/models", headers={"Origin": live.url}).status_code == 200
    assert http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400
    assert http.options("/v1/upscale", headers={"Origin": live.url}).status_code == 405
