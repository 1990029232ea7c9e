"""The documents run: README commands and examples, options they mention, help texts, recordings, links."""

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import hifispeech
from hifispeech.cli import app

PAGES = (
    "docs/quickstart.md",
    "docs/guarantees.md",
    "docs/architecture.md",
    "docs/folders.md",
    "docs/streaming.md",
    "docs/serving.md",
    "docs/web.md",
    "docs/evaluation.md",
    "docs/listening.md",
    "docs/scaling.md",
)
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "examples/README.md", *PAGES)
PLAIN = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


def marked_block(text: str, mark: str) -> str:
    """The code block after the line `<!-- mark -->`."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"no block {mark}"
    return found[1]


def commands() -> dict[str, list[str]]:
    """Each subcommand of the program with the options it knows; a group knows those of its own commands."""

    def options(command: Any) -> list[str]:
        own = [option for parameter in command.params for option in parameter.opts]
        return own + [
            option for below in getattr(command, "commands", {}).values() for option in options(below)
        ]

    group: Any = typer.main.get_command(app)
    return {name: options(command) for name, command in group.commands.items()}


def code_blocks(text: str) -> list[tuple[bool, str, str]]:
    """Every code block of a document: whether `<!-- run -->` stands before it, its language, its text."""
    found = re.findall(r"(<!-- run -->\n)?^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(bool(mark), language, code) for mark, language, code in found]


def mentioned(text: str) -> list[list[str]]:
    """Every `hifispeech ...` command in the code blocks and code spans of a document, split into words."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(
        r"`(hifispeech [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )
    lines = [part for block in blocks for line in block.splitlines() for part in re.split(r"&&|\|", line)]
    return [line.split() for line in [*lines, *spans] if line.split()[:1] == ["hifispeech"]]


@pytest.fixture
def readme(repo_dir: Path) -> str:
    return (repo_dir / "README.md").read_text(encoding="utf-8")


def test_readme_order(readme: str) -> None:
    marks = [
        "# hifispeech",
        "<!-- picture:begin",
        "<!-- command:try",
        "<!-- command:test",
        "<!-- example:python",
    ]
    marks += ["<!-- quality:begin", "<!-- quality:end", "<!-- speed:begin", "<!-- speed:end", "## More"]
    places = [readme.index(mark) for mark in marks]
    assert places == sorted(places)


def test_readme_python_example_runs(readme: str, repo_dir: Path, tmp_path: Path) -> None:
    code = marked_block(readme, "example:python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    (tmp_path / "examples").mkdir()
    shutil.copy(repo_dir / "examples" / "phone_8k.wav", tmp_path / "examples")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.wav").stat().st_size > 48000


def run_marked_blocks(page: Path, repo_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """All marked blocks, one after the other in one folder, as a newcomer would paste them; their number."""
    blocks = code_blocks(page.read_text(encoding="utf-8"))
    marked = [(language, code) for run, language, code in blocks if run]
    assert [code for run, language, code in blocks if not run and language == "python"] == []
    for name, command in (("hifispeech", "-m hifispeech"), ("python", "")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "recordings" / "monday").mkdir(parents=True)
    for place in (".", "recordings", "recordings/monday"):
        shutil.copy(repo_dir / "examples" / "phone_8k.wav", tmp_path / place)
    for language, code in marked:
        words = (
            ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        )
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
    return len(marked)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for bash")
def test_quick_start_runs(repo_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = repo_dir / "docs" / "quickstart.md"
    assert run_marked_blocks(page, repo_dir, tmp_path, monkeypatch) >= 6
    made = ("out.wav", "given.wav", "upscaled/monday/phone_8k.flac", "wide.flac", "talk.wav")
    assert all((tmp_path / name).is_file() for name in made)


def test_sample_output_of_the_quick_start_is_real(repo_dir: Path, tmp_path: Path) -> None:
    """The line it shows is what the program prints today, but for the time."""
    blocks = code_blocks((repo_dir / "docs" / "quickstart.md").read_text(encoding="utf-8"))
    (shown,) = [code for _, language, code in blocks if language == "text"]
    clip = repo_dir / "examples" / "phone_8k.wav"
    printed = CliRunner().invoke(app, ["upscale", str(clip), "-o", str(tmp_path / "out.wav")]).stdout
    printed = printed.replace(str(clip), clip.name).replace(str(tmp_path / "out.wav"), "out.wav")
    assert printed.split(" in ")[0] == shown.split(" in ")[0]
    assert len(printed.split()) == len(shown.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for bash")
def test_page_on_folders_runs(repo_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = repo_dir / "docs" / "folders.md"
    assert run_marked_blocks(page, repo_dir, tmp_path, monkeypatch) == 3
    assert (tmp_path / "upscaled" / "monday" / "phone_8k.wav").is_file()
    assert (tmp_path / "upscaled" / "hifispeech.jsonl").read_text().count("\n") == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for bash")
def test_page_of_the_examples_runs(repo_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(repo_dir / "examples" / "phone_8k.wav", tmp_path / "examples")
    assert run_marked_blocks(repo_dir / "examples" / "README.md", repo_dir, tmp_path, monkeypatch) == 1
    assert (tmp_path / "out.wav").is_file()


@pytest.mark.parametrize(("page", "promises"), [("guarantees.md", 20), ("folders.md", 8)])
def test_tests_named_by_the_guarantees_exist(page: str, promises: int, repo_dir: Path) -> None:
    text = (repo_dir / "docs" / page).read_text(encoding="utf-8")
    table = text[text.index("| promise | test |") :]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) >= promises
    assert all("::test_" in row for row in rows), "a promise without a test"


def test_tests_named_by_documents_exist(repo_dir: Path) -> None:
    for page in (repo_dir / "docs").rglob("*.md"):
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
            tree = ast.parse((repo_dir / path).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                page,
                name,
            )


def test_modules_named_by_the_architecture_exist(repo_dir: Path) -> None:
    text = (repo_dir / "docs" / "architecture.md").read_text(encoding="utf-8")
    source = repo_dir / "src" / "hifispeech"
    names = {path.stem for path in source.rglob("*")}
    listed = re.findall(r"`(?:hifispeech\.)?(\w+)` \(", text) + re.findall(r"`hifispeech\.(\w+)`", text)
    listed += re.findall(r"^(?:.*: )?(?:audio|infer)\.(\w+)", text, re.MULTILINE)
    assert len(listed) > 10
    assert set(listed) <= names, set(listed) - names


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_named_by_their_path_exist(page: str, repo_dir: Path) -> None:
    """The ways through the code, and where to add things: paths below the repository or the package."""
    roots = (repo_dir, repo_dir / "src" / "hifispeech")
    named = re.findall(r"`([\w/]+/[\w/]+\.\w+|paths\.py)`", (repo_dir / page).read_text(encoding="utf-8"))
    assert len(named) > 8
    for path in named:
        assert any((root / path).exists() for root in roots), path


def test_package_docstring_runs() -> None:
    failed, tried = doctest.testmod(hifispeech)
    assert tried and not failed


def test_readme_first_command_upscales_the_example(readme: str, repo_dir: Path, tmp_path: Path) -> None:
    """The part after `pip install . &&`; .ci/run runs the whole line in an empty environment."""
    install, upscale = marked_block(readme, "command:try").strip().split(" && ")
    assert install == "pip install ."
    words = upscale.split()
    words[words.index("-o") + 1] = str(tmp_path / "out.wav")
    words = [str(repo_dir / word) if word.startswith("examples/") else word for word in words]
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.wav").stat().st_size > 48000


def test_ci_takes_both_commands_from_the_readme(readme: str, repo_dir: Path) -> None:
    script = (repo_dir / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("try", "test"):
        assert f"in_fresh_venv {name} " in script
        assert marked_block(readme, f"command:{name}").strip() not in script
    assert "pip install" not in script


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_in_documents_exist(document: str, repo_dir: Path) -> None:
    known = commands()
    for words in mentioned((repo_dir / document).read_text(encoding="utf-8")):
        options = [word.split("=")[0] for word in words[1:] if re.match("--?[a-z]", word)]
        if words[1].startswith("-"):
            assert options[0] in ("--help", "--version"), words
            continue
        assert words[1] in known, words
        assert set(options) <= {*known[words[1]], "--help"}, words


@pytest.mark.parametrize("command", ["", *commands()])
def test_help_runs_and_has_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"], env=PLAIN)
    assert result.exit_code == 0
    assert f"hifispeech {command}".strip() in result.output


@pytest.mark.parametrize("command", list(commands()))
def test_options_in_help_examples_exist(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"], env=PLAIN).output
    examples = [line.split() for line in text.splitlines() if line.strip().startswith("hifispeech ")]
    assert examples
    for words in examples:
        assert words[1] in commands()
        assert {word for word in words if word.startswith("-")} <= set(commands()[words[1]])


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/training.md", "tests/data/README.md"])
def test_relative_links_point_to_files(document: str, repo_dir: Path) -> None:
    path = repo_dir / document
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("folder", ["examples", "tests/data"])
def test_every_recording_is_listed_with_its_licence(folder: str, repo_dir: Path) -> None:
    text = (repo_dir / folder / "README.md").read_text(encoding="utf-8")
    recordings = [file for file in (repo_dir / folder).iterdir() if file.suffix in {".wav", ".flac"}]
    assert recordings
    for file in recordings:
        assert file.name in text
        assert file.stat().st_size < 500_000
    assert "CC0 1.0" in text


def test_package_examples_are_valid_python(repo_dir: Path) -> None:
    for script in (repo_dir / "examples").glob("*.py"):
        ast.parse(script.read_text(encoding="utf-8"))
        done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
