"""Request bodies to files, and names that are safe to show, for any input."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
from starlette.requests import Request

from hifispeech.serve.errors import ApiError
from hifispeech.serve.routes.audio import attachment
from hifispeech.serve.upload import Upload, receive, safe_name

LIMIT = 5000


def body(data: bytes, name: str = "call.wav") -> bytes:
    """A multipart body with a field before and one after the file."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    other = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    return other + head + data + b"\r\n" + other + b"--b--\r\n"


def take(parts: Iterable[bytes], kind: str = "multipart/form-data; boundary=b") -> tuple[Upload, bytes]:
    """Receive a body that comes in these parts."""
    waiting = iter([*({"type": "http.request", "body": part, "more_body": True} for part in parts)])

    async def get() -> Any:
        return next(waiting, {"type": "http.request", "body": b"", "more_body": False})

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        upload = asyncio.run(receive(Request(scope, get), path, LIMIT, 5.0))
        return upload, path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 600), max_size=8))
def test_file_is_the_same_however_the_body_is_cut(data: bytes, cuts: list[int]) -> None:
    whole = body(data)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parts = [whole[a:b] for a, b in itertools.pairwise(edges)]
    upload, got = take(parts)
    assert got == data and (upload.name, upload.size) == ("call.wav", len(data))


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=400))
def test_damaged_bodies_are_refused(noise: bytes) -> None:
    """Cut off anywhere, or not multipart at all: a clear error, never another exception."""
    whole = body(b"data")
    for data in (noise, whole[: len(noise) % (len(whole) - 20)], whole[:40] + noise):
        with pytest.raises(ApiError) as error:
            take([data])
        assert error.value.status in (400, 413)


def test_limit_counts_every_part() -> None:
    assert take([body(bytes(LIMIT))])[0].size == LIMIT
    for data in (body(bytes(LIMIT + 1)), body(b"x").replace(b"hello", bytes(30_000))):
        with pytest.raises(ApiError) as error:
            take([data])
        assert error.value.status == 413


@settings(max_examples=100, deadline=None)
@given(name=st.text(max_size=300))
def test_names_are_safe_to_show(name: str) -> None:
    shown = safe_name(name)
    assert 0 < len(shown) <= 100 and shown.isprintable() and not set(shown) & set('/\\"<>|*?:;\r\n')
    assert shown not in (".", "..") and not shown.startswith(".")
    header = attachment(shown, "wav")
    assert header.isascii() and header.isprintable() and header.count('"') == 2
    assert unquote(header.split("''")[1]).endswith("_48k.wav")


def test_suffix_of_a_long_name_stays() -> None:
    assert safe_name("a" * 300 + ".flac") == "a" * 95 + ".flac"
    assert safe_name("Grüße 1.wav") == "Grüße 1.wav"
