"""The estimator counts what a step does, and agrees with the steps that were measured."""

import csv
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from hifispeech.cli import app
from hifispeech.train.config import FastTrainConfig, HiFiSRTrainConfig, load
from hifispeech.train.estimate import (
    DEVICES,
    Device,
    _Step,
    count,
    device_of,
    estimate,
    fake_batch,
    make_task,
    measured_device,
    operations,
)

# How far measured steps may be from the estimate, either way; docs/training.md states these figures.
TIME_TOLERANCE, MEMORY_TOLERANCE = 5.0, 1.6


@pytest.fixture(params=["fast", "hifisr"])
def config(
    request: pytest.FixtureRequest, fast_config: FastTrainConfig, gan_config: HiFiSRTrainConfig
) -> FastTrainConfig | HiFiSRTrainConfig:
    return fast_config if request.param == "fast" else gan_config


def test_counts_are_those_of_a_real_step(config: FastTrainConfig | HiFiSRTrainConfig) -> None:
    """The same step on tensors with data: the operations are equal, the kept bytes nearly."""
    task = make_task(config)
    step = _Step(config, task)
    with operations() as counter, step.kept.watched():
        task.train_step(step, [fake_batch(config)])
    work = count(config)
    assert work.operations == counter.get_total_flops() > 0
    assert step.kept.peak * 0.95 < work.kept_bytes < step.kept.peak * 1.05


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_a_convolution_cost_twice_its_forward_pass(groups: int, transposed: bool) -> None:
    """Also with groups, down to depthwise; half of it where the input needs no gradient."""
    kind = torch.nn.ConvTranspose1d if transposed else torch.nn.Conv1d
    conv = kind(8, 16, 3, stride=2, groups=groups)
    x = torch.randn(2, 8, 20, requires_grad=True)
    with operations() as forward:
        y = conv(x)
    places = (x if transposed else y).shape[-1]
    assert forward.get_total_flops() == 2 * 2 * places * 8 * 16 * 3 // groups
    with operations() as backward:
        y.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops()
    y = conv(x.detach())
    with operations() as backward:
        y.sum().backward()
    assert backward.get_total_flops() == forward.get_total_flops()


def test_work_grows_with_the_batch(gan_config: HiFiSRTrainConfig) -> None:
    small, large = count(gan_config), count(replace(gan_config, batch_size=4))
    assert large.operations == 2 * small.operations
    assert large.state_bytes == small.state_bytes
    assert 1.8 * small.kept_bytes < large.kept_bytes < 2.05 * small.kept_bytes


@pytest.mark.slow
def test_generator_of_the_paper(repo_dir: Path) -> None:
    """All of its 109.6 M parameters get gradients, and a step costs three times its forward passes: the
    generator's (495 GFLOP per second of audio) and the discriminators' on two signals; and three more of the
    discriminators for the generator's loss, whose gradient only the made signal wants.
    """
    config = load(repo_dir / "configs" / "hifisr.yaml")
    assert isinstance(config, HiFiSRTrainConfig)
    config = replace(config, batch_size=1)
    work = count(config)
    made = 495e9 * config.segment_samples / 48000
    with FakeTensorMode(allow_non_fake_inputs=True):
        judge = make_task(config).networks["discriminators"]
        with operations() as counter:
            judge(fake_batch(config).target)
    judged = counter.get_total_flops()
    assert work.operations == pytest.approx(3 * made + (6 + 3) * judged, rel=0.02)
    assert work.gradient_bytes > 4 * 109.6e6


def test_more_devices(gan_config: HiFiSRTrainConfig) -> None:
    device = Device("test", 1e9, 2e9, 1.0, 0.0, link_gb_s=1.0, network_gb_s=0.1)
    config = replace(gan_config, batch_size=8)
    one, two = estimate(config, device), estimate(config, device, 2)
    nodes = estimate(config, device, 1, 2)
    exchanged = count(config).gradient_bytes / 1e9  # 2 (n - 1) / n of it, n = 2
    assert two.step_s == pytest.approx(one.step_s / 2 + exchanged)
    assert nodes.step_s == pytest.approx(one.step_s / 2 + 10 * exchanged)
    assert two.memory_gb < one.memory_gb
    assert one.hours == pytest.approx(one.step_s * 20 / 3600)
    assert estimate(replace(config, precision="bf16-mixed"), device).step_s < 0.6 * one.step_s
    assert one.fits and not estimate(config, replace(device, memory_gb=1e-6)).fits
    with pytest.raises(ValueError, match="does not divide by 3"):
        estimate(config, device, 3)


def test_measured_steps(repo_dir: Path) -> None:
    """Every step benchmarks/train_step.py measured is as estimated, within the stated tolerance."""
    path = repo_dir / "docs" / "benchmarks" / "train_step.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    for row in rows:
        time = float(row["steps_per_s"]) / float(row["estimated_steps_per_s"])
        memory = float(row["peak_gb"]) / float(row["estimated_gb"])
        assert 1 / TIME_TOLERANCE < time < TIME_TOLERANCE, row
        assert 1 / MEMORY_TOLERANCE < memory < MEMORY_TOLERANCE, row


@pytest.mark.slow
def test_measurements_are_compared_with_todays_estimator(repo_dir: Path) -> None:
    """The table's estimates are what the estimator says now, given the rate that was measured then."""
    path = repo_dir / "docs" / "benchmarks" / "train_step.csv"
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["way"] == "as configured"]
    for row in rows:
        config = load(repo_dir / "configs" / f"{row['configuration']}.yaml")
        rate = float(row["rate"])
        device = Device("then", rate, rate, 64.0, 0.5)
        now = estimate(replace(config, batch_size=int(row["batch"]), precision="32-true"), device)
        assert 1 / now.step_s == pytest.approx(float(row["estimated_steps_per_s"]), rel=0.25), row


@pytest.mark.slow
@pytest.mark.skipif(
    "HIFISPEECH_ESTIMATES" not in os.environ,
    reason="makes the whole table, five minutes; set HIFISPEECH_ESTIMATES=1",
)
def test_table_in_the_documentation(repo_dir: Path) -> None:
    sys.path.insert(0, str(repo_dir / "benchmarks"))
    try:
        import estimates  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    page = (repo_dir / "docs" / "training.md").read_text(encoding="utf-8")
    assert "\n".join(estimates.table()) in page, "run: python benchmarks/estimates.py"


def test_devices() -> None:
    assert device_of("a100") is DEVICES["a100"]
    with pytest.raises(ValueError, match="use here or one of"):
        device_of("abacus")
    torch.set_num_threads(1)
    here = measured_device("here", repeats=1)
    assert here.float32 > 1e8 and here.memory_gb > 0.5


def test_command(repo_dir: Path, tmp_path: Path) -> None:
    config = str(repo_dir / "configs" / "hifisr_small.yaml")
    done = CliRunner().invoke(app, ["estimate", config, "--device", "h100", "--devices", "2"])
    assert done.exit_code == 0, done.output
    assert "of 80 GB per device (fits)" in done.output and "hours for 4000 steps" in done.output
    done = CliRunner().invoke(app, ["estimate", config, "--device", "abacus"])
    assert done.exit_code == 1 and "abacus" in done.output
