"""The package itself: light runtime, public names, version, metadata and what the wheel holds."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hifispeech

RUNTIME = {"numpy", "onnxruntime", "soxr", "soundfile", "av", "typer", "rich"}
HEAVY = ("torch", "scipy", "lightning_fabric", "matplotlib", "onnx", "yaml")


def run_python(code: str) -> str:
    """Stdout of `code` in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pyproject(repo_dir: Path) -> str:
    return (repo_dir / "pyproject.toml").read_text(encoding="utf-8")


def test_version_equals_pyproject(repo_dir: Path) -> None:
    found = re.search(r'^version = "(.+)"$', pyproject(repo_dir), re.MULTILINE)
    assert found is not None
    assert found[1] == hifispeech.__version__
    assert f"## {found[1]}" in (repo_dir / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {found[1]}\n" in (repo_dir / "CITATION.cff").read_text(encoding="utf-8")


def test_public_names_exist_and_are_few() -> None:
    assert len(hifispeech.__all__) <= 15
    assert sorted(hifispeech.__all__) == dir(hifispeech)
    for name in hifispeech.__all__:
        assert getattr(hifispeech, name) is not None, name


def test_unknown_name_is_an_attribute_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'upsample'.*upscale"):
        _ = hifispeech.upsample  # type: ignore[attr-defined]


def test_import_loads_no_audio_library() -> None:
    code = "import sys, hifispeech; print(*sys.modules)"
    assert set(run_python(code).split()).isdisjoint(
        {"numpy", "onnxruntime", "soxr", "soundfile", "av", "rich"}
    )


def test_runtime_imports_no_training_library(phone_clip: Path, tmp_path: Path) -> None:
    """A whole run of the runtime, file to file, in which importing any of the heavy packages would fail."""
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
import hifispeech
hifispeech.inspect({str(phone_clip)!r})
hifispeech.upscale_file({str(phone_clip)!r}, {str(tmp_path / "out.wav")!r})
for name in hifispeech.__all__:
    getattr(hifispeech, name)
"""
    run_python(code)
    assert (tmp_path / "out.wav").stat().st_size > 0


def test_nothing_is_sent_or_stored(phone_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would open a telemetry store in the home folder; the package turns that off."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    (tmp_path / "home").mkdir()
    run_python(f"import hifispeech\nhifispeech.upscale(*hifispeech.read({str(phone_clip)!r}))")
    assert list((tmp_path / "home").rglob("*")) == []


def test_declared_runtime_dependencies(repo_dir: Path) -> None:
    section = pyproject(repo_dir).split("\ndependencies = [")[1].split("\n]")[0]
    assert set(re.findall(r'"([\w-]+)>=', section)) == RUNTIME


def test_declared_extras(repo_dir: Path) -> None:
    section = pyproject(repo_dir).split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = ["train", "eval", "nisqa", "serve", "dist", "live", "docs", "dev"]
    assert re.findall(r"^(\w+) = \[", section, re.MULTILINE) == extras


def test_constraints_pin_what_the_extras_ask_for(repo_dir: Path) -> None:
    text = (repo_dir / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    assert "torch==2.13.0\n" in text
    project = pyproject(repo_dir)
    sections = [project.split("\ndependencies = [")[1].split("\n]")[0]]
    extras = ("train", "eval", "nisqa", "serve", "dev")
    sections += [project.split(f"\n{extra} = [")[1].split("\n]")[0] for extra in extras]
    wanted = {name.lower() for part in sections for name in re.findall(r'"([A-Za-z][\w-]*)[>=]', part)}
    assert wanted - pinned == set()


@pytest.mark.slow
def test_wheel_holds_weights_and_types(repo_dir: Path, tmp_path: Path) -> None:
    """Built by pip as a user would, with the build backend fetched from the registry."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(repo_dir)]
    subprocess.run(pip, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        size = sum(info.compress_size for info in archive.infolist())
    source = repo_dir / "src"
    for file in sorted((source / "hifispeech" / "weights").iterdir()):
        if file.suffix in {".onnx", ".json", ".md"}:
            assert file.relative_to(source).as_posix() in names
    assert any(name.endswith(".onnx") for name in names)
    assert "hifispeech/py.typed" in names
    assert not any(name.startswith(("tests/", "examples/")) or "__pycache__" in name for name in names)
    assert size < 30e6
