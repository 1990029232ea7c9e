"""Every file in configs/ is parsed and built (large networks without memory); mistakes are named."""

from pathlib import Path

import pytest
import torch
import yaml

from hifispeech.models.artefact import config_to_dict
from hifispeech.models.fast.model import FastModel
from hifispeech.models.hifisr import HiFiSR, count_parameters, hifisr_paper, hifisr_small
from hifispeech.models.offline.network import OfflineNetwork
from hifispeech.train.checkpoint import find_weights
from hifispeech.train.config import (
    FastGanTrainConfig,
    FastTrainConfig,
    HiFiSRTrainConfig,
    OfflineAdversarialConfig,
    OfflineTrainConfig,
    load,
    parse,
)
from hifispeech.train.losses.adversarial import GeneratorLoss
from hifispeech.train.losses.discriminators import Discriminators, small_discriminators
from hifispeech.train.losses.maps import MapDiscriminators
from hifispeech.train.run import with_changes
from hifispeech.train.trainer import learning_rate

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))


def hifisr(name: str) -> HiFiSRTrainConfig:
    config = load(CONFIGS / f"{name}.yaml")
    assert isinstance(config, HiFiSRTrainConfig)
    return config


def test_all_published_runs_have_a_file() -> None:
    names = {path.stem for path in FILES}
    ours = {"fast", "fast_level", "fast_gan"}
    ours |= {"offline", "offline_adversarial"}
    assert names == ours | {"hifisr", "hifisr_without_mbd", "hifisr_without_mel", "hifisr_small"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds(path: Path) -> None:
    config = load(path)
    assert learning_rate(config.optimiser, 0) > 0
    assert parse(config_to_dict(config)) == config  # what a checkpoint stores
    if isinstance(config, FastTrainConfig):
        if isinstance(config, FastGanTrainConfig):
            Discriminators(config.discriminators)
        assert count_parameters(FastModel(config.model)) > 1e6
        return
    if isinstance(config, OfflineTrainConfig):
        if isinstance(config, OfflineAdversarialConfig):
            assert 0.1e6 < count_parameters(MapDiscriminators(config.discriminators)) < 1e6
        assert count_parameters(OfflineNetwork(config.model)) > 1e6
        return
    with torch.device("meta"):
        model, adversary = HiFiSR(config.model), Discriminators(config.discriminators)
        GeneratorLoss(config.loss)
    assert count_parameters(model) > 3e6 and count_parameters(adversary) > 1e6
    assert config.segment_samples % config.model.mel.hop == 0


def test_fast_is_the_run_of_the_packaged_model() -> None:
    """The model in the package says by which configuration it was trained: this one, in every field."""
    config = load(CONFIGS / "fast.yaml")
    assert isinstance(config, FastTrainConfig)
    assert parse(find_weights("fast").card["config"]) == config


def test_paper_configuration() -> None:
    config = hifisr("hifisr")
    assert config.model == hifisr_paper()
    assert (config.batch_size, config.segment_samples, config.optimiser.total_steps) == (16, 24576, 500_000)
    assert (config.optimiser.learning_rate, config.optimiser.encoder_learning_rate) == (1e-4, 5e-4)
    assert (config.loss.adversarial, config.loss.feature, config.loss.mel) == (1.0, 1.5, 7.0)
    with torch.device("meta"):
        parts = Discriminators(config.discriminators).parts
    assert set(parts) == {"mpd", "msd", "mbd"}


def test_table_1_rows_differ_from_the_paper_in_one_thing_each() -> None:
    paper = config_to_dict(hifisr("hifisr"))
    for name, section, key in (
        ("hifisr_without_mbd", "discriminators", "mbd"),
        ("hifisr_without_mel", "loss", "mel"),
    ):
        other = config_to_dict(hifisr(name))
        assert not other[section][key] and paper[section][key]
        other[section][key] = paper[section][key]
        assert other == paper


def test_small_configuration() -> None:
    config = hifisr("hifisr_small")
    assert config.model == hifisr_small()
    assert config.discriminators == small_discriminators()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: fast\nbatchsize: 3", "batchsize"),
        ("task: fast\nbatch_size: many", "batch_size"),
        ("task: fast\nbatch_size: 0", "batch_size=0"),
        ("task: fast\nprecision: fp16", "precision"),
        ("task: fast\noptimiser: {learning_rate: 1e-3}", "learning_rate"),  # YAML reads a string
        (
            "task: hifisr\nloss: {mel: 0.0}\nadversarial_from: 300",
            "adversarial_from=300 .* set adversarial_from to 0",
        ),
        ("task: hifisr\nloss: {mel: 0.0, adversarial: 0.0, feature: 0.0}", "all weights of the loss are 0"),
        ("task: vocoder", "one of fast, fast_gan, hifisr"),
        ("batch_size: 3", "task=None"),
        ("- 1", "mapping"),
        ("task: [", "not YAML"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "bad.yaml" in str(caught.value)


def test_changes_on_the_command_line() -> None:
    config = load(CONFIGS / "fast.yaml")
    changed = with_changes(config, ["batch_size=4", "optimiser.learning_rate=0.25", "compile=true"])
    assert (changed.batch_size, changed.optimiser.learning_rate, changed.compile) == (4, 0.25, True)
    for wrong in ("batch_size", "batchsize=4", "batch_size.x=4", "optimiser.rate=1", "batch_size=x"):
        with pytest.raises(ValueError, match=r"batch|rate"):
            with_changes(config, [wrong])


def test_yaml_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump(config_to_dict(HiFiSRTrainConfig())))
    assert load(path) == HiFiSRTrainConfig()
