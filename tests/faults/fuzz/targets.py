"""What a damaged file is given to, and what must hold then. A broken promise is an `AssertionError`."""

import atexit
import json
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hifispeech.audio import io
from hifispeech.errors import HifispeechError

LONGEST_S = 4 * 3600  # seeds are 0.3 s, mutated files at most 128 kB


def through_io(path: Path) -> str:
    """Read the file block by block: a clear error, or finite samples of the shape it claims."""
    try:
        with io.open_reader(path) as reader:
            info = reader.info
            assert info.sample_rate >= 1 and info.channels >= 1, info
            frames = 0
            for block in reader.blocks():
                assert block.dtype == np.float32 and block.ndim == 2, (block.dtype, block.shape)
                assert block.shape[0] == info.channels and block.shape[1] >= 1, (block.shape, info)
                assert np.isfinite(block).all(), "samples that are not finite"
                frames += block.shape[1]
            assert frames >= 1, "no samples, and no error"
            assert frames <= LONGEST_S * info.sample_rate, f"{frames} samples"
            assert frames == (info.frames or frames) or reader.warnings, (frames, info.frames)
    except HifispeechError as error:
        assert str(path) in str(error) and len(str(error)) > len(str(path)) + 20, str(error)
        return "refused"
    return "read"


def through_cli(path: Path) -> str:
    """`hifispeech upscale`: exit code 0 and a whole file, or 1, one line and nothing."""
    runner, command = _program()
    target = path.with_name("out.wav")
    result = runner.invoke(command, ["upscale", str(path), "-o", str(target), "--threads", "1"])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    left = {file.name for file in path.parent.iterdir()} - {path.name}
    lines = result.stderr.splitlines()
    assert all(line.startswith("hifispeech: ") for line in lines), result.stderr
    if result.exit_code == 1:
        errors = [line for line in lines if not line.startswith("hifispeech: warning: ")]
        assert left == set() and len(errors) == 1, (left, result.stderr)
        return "refused"
    assert result.exit_code == 0 and left == {target.name}, (result.exit_code, left)
    assert through_io(target) == "read"
    target.unlink()
    return "read"


@lru_cache(maxsize=1)
def _program() -> tuple[Any, Any]:
    """The command line with its parser made and its model read once: the files are what differs."""
    from click.testing import CliRunner
    from typer.main import get_command

    from hifispeech.cli import app
    from hifispeech.infer import load

    load.open_session = lru_cache(maxsize=None)(load.open_session)
    return CliRunner(), get_command(app)


def through_http(path: Path) -> str:
    """`POST /v1/upscale`, as raw body or form: audio, or a JSON error of the client's making (4xx)."""
    client = _client()
    content = path.read_bytes()
    if len(content) % 2:
        headers = {"Content-Type": "application/octet-stream"}
        answer = client.post("/v1/upscale", content=content, headers=headers)
    else:
        answer = client.post("/v1/upscale", files={"file": (path.name, content)})
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
        error = json.loads(answer.text)["error"]
        assert error["code"] and error["message"] and error["request_id"], error
        return "refused"
    target = path.with_name("out.wav")
    target.write_bytes(answer.content)
    try:
        assert through_io(target) == "read"
        audio, rate = io.read(target)
        assert rate == 48000 and np.isfinite(audio).all()
    finally:
        target.unlink()
    return "read"


@lru_cache(maxsize=1)
def _client() -> Any:
    """The application with its worker process, but for the socket."""
    from fastapi.testclient import TestClient

    from hifispeech import Upscaler
    from hifispeech.serve.app import create_app
    from hifispeech.serve.settings import Settings

    settings = Settings(Path(tempfile.mkdtemp(prefix="server-")), workers=1)
    client = TestClient(create_app(settings, Upscaler(threads=1)))
    client.__enter__()  # starts the workers
    atexit.register(client.__exit__, None, None, None)
    return client


TARGETS: dict[str, Callable[[Path], str]] = {"io": through_io, "cli": through_cli, "http": through_http}

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
