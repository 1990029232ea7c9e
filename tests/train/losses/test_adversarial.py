"""Closed forms of the losses, and the isolation of the two adversarial steps from each other."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hifispeech.train.losses.adversarial import (
    GanLossConfig,
    GeneratorLoss,
    LogSTFTLoss,
    MelLossConfig,
    MultiScaleMelLoss,
    Objective,
    STFTLossConfig,
    discriminator_loss,
    feature_matching_loss,
    frozen,
    generator_adversarial_loss,
    judge,
)
from hifispeech.train.losses.discriminators import (
    Discriminators,
    DiscriminatorsConfig,
    Judgement,
    small_discriminators,
)

NAMES = ("mpd", "msd", "mbd")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def verdicts(value: float, features: float = 0.0) -> dict[str, Judgement]:
    """Two discriminators with two parts each: constant logits and constant features (three layers)."""
    logits = (torch.full((2, 5), value), torch.full((2, 3), value))
    layers = tuple(torch.full((2, 4, n), features) for n in (7, 5, 3))
    return {name: Judgement(logits, (layers, layers)) for name in ("a", "b")}


@pytest.fixture
def discriminators() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(small_discriminators())


@pytest.fixture
def generator() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Conv1d(1, 1, 9, padding=4)


# --- closed forms


@pytest.mark.parametrize(
    ("objective", "real", "fake", "per_part"),
    [
        ("lsgan", 1.0, 0.0, 0.0),
        ("lsgan", 0.0, 1.0, 2.0),
        ("lsgan", 3.0, 0.5, 4.25),
        ("hinge", 1.0, -1.0, 0.0),
        ("hinge", 5.0, -5.0, 0.0),
        ("hinge", 0.0, 0.5, 2.5),
    ],
)
def test_discriminator_loss(objective: Objective, real: float, fake: float, per_part: float) -> None:
    total, parts = discriminator_loss(verdicts(real), verdicts(fake), objective)
    assert total.item() == pytest.approx(4 * per_part)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"discriminator/a": 2 * per_part, "discriminator/b": 2 * per_part}
    )


@pytest.mark.parametrize(
    ("objective", "fake", "per_part"),
    [("lsgan", 1.0, 0.0), ("lsgan", 0.0, 1.0), ("lsgan", 3.0, 4.0), ("hinge", 3.0, -3.0)],
)
def test_adversarial_loss(objective: Objective, fake: float, per_part: float) -> None:
    total, parts = generator_adversarial_loss(verdicts(fake), objective)
    assert total.item() == pytest.approx(4 * per_part)
    assert set(parts) == {"adversarial/a", "adversarial/b"}


def test_feature_matching_loss() -> None:
    total, parts = feature_matching_loss(verdicts(0, features=1.5), verdicts(0, features=1.0))
    assert total.item() == pytest.approx(2 * 2 * 3 * 0.5)  # discriminators x parts x layers x difference
    assert set(parts) == {"feature/a", "feature/b"}


def test_judgements_of_different_discriminators_are_refused() -> None:
    real, fake = verdicts(1), verdicts(0)
    del fake["b"]
    for loss in (discriminator_loss, feature_matching_loss):
        with pytest.raises(ValueError, match="pass the same"):
            loss(real, fake)


def test_a_tenfold_signal_is_one_decade_away() -> None:
    audio = noise(2, 1, 8192)
    # Windows whose every filter holds a bin; an empty one would sit at the floor for both signals.
    config = MelLossConfig(windows=(256, 1024), mels=(40, 160))
    assert MultiScaleMelLoss(config)(10 * audio, audio).item() == pytest.approx(2.0, abs=1e-4)
    assert LogSTFTLoss(STFTLossConfig(windows=(256, 1024)))(10 * audio, audio).item() == pytest.approx(
        1.0, abs=2e-3
    )


def test_spectral_losses_vanish_at_the_target_and_are_symmetric() -> None:
    a, b = noise(1, 1, 8192), noise(1, 1, 8192, seed=1)
    for loss in (MultiScaleMelLoss(), LogSTFTLoss()):
        assert loss(a, a).item() == 0
        assert loss(a, b).item() == pytest.approx(loss(b, a).item()) != 0


def test_target_and_prediction_cover_the_same_band() -> None:
    """The release compared a target mel up to 8 kHz with a predicted one up to 24 kHz."""
    loss = MultiScaleMelLoss()
    time = torch.arange(16384) / 48000
    low = 0.3 * torch.sin(2 * math.pi * 1000 * time)[None, None] + 1e-3 * noise(1, 1, 16384)
    for extra_hz in (9000, 15000, 22000):
        high = low + 0.1 * torch.sin(2 * math.pi * extra_hz * time)[None, None]
        assert loss(low, high).item() > 0.1
        assert loss(high, low).item() == pytest.approx(loss(low, high).item())
    for window in loss.config.windows:
        filters = loss.get_buffer(f"filters_{window}")
        covered = filters.sum(1).nonzero()
        assert covered.max() >= 0.95 * (window // 2) - 1


def test_silent_target_has_finite_gradient() -> None:
    predicted = torch.zeros(1, 1, 8192, requires_grad=True)
    (
        MultiScaleMelLoss()(predicted, noise(1, 1, 8192)) + LogSTFTLoss()(predicted, noise(1, 1, 8192))
    ).backward()
    assert predicted.grad is not None and torch.isfinite(predicted.grad).all()


def test_bfloat16_prediction_is_compared_in_float32() -> None:
    a, b = noise(1, 1, 8192), noise(1, 1, 8192, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = MultiScaleMelLoss()(a, b)
    assert torch.equal(low, MultiScaleMelLoss()(a, b))


@pytest.mark.parametrize("name", ["adversarial", "feature", "mel", "stft"])
def test_negative_weights_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(GanLossConfig(), **{name: -1.0})


def test_mel_windows_and_numbers_pair_up() -> None:
    with pytest.raises(ValueError, match="same length"):
        MelLossConfig(windows=(512,), mels=(10, 20))


# --- the generator's loss


def test_weights_are_those_of_the_paper(discriminators: Discriminators) -> None:
    predicted, target = noise(1, 1, 8192), noise(1, 1, 8192, seed=1)
    with frozen(discriminators):
        total, parts = GeneratorLoss()(discriminators, predicted, target)
    expected = 7 * parts["mel"]
    for name in NAMES:
        expected = expected + parts[f"adversarial/{name}"] + 1.5 * parts[f"feature/{name}"]
    torch.testing.assert_close(total, expected)
    assert len(parts) == 7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["adversarial", "feature"])
def test_every_configured_discriminator_reaches_the_generator(
    discriminators: Discriminators, name: str, kind: str
) -> None:
    """The release trained its multi-band discriminator and left it out here."""
    only = replace(GanLossConfig(adversarial=0, feature=0, mel=0), **{kind: 1.0})
    predicted = noise(1, 1, 8192).requires_grad_()
    with frozen(discriminators):
        total, parts = GeneratorLoss(only)(discriminators, predicted, noise(1, 1, 8192, seed=1))
    assert set(parts) == {f"{kind}/{n}" for n in NAMES}
    torch.testing.assert_close(total, torch.stack(list(parts.values())).sum())
    (gradient,) = torch.autograd.grad(parts[f"{kind}/{name}"], predicted)
    assert gradient.abs().sum() > 0


def test_each_part_can_be_switched_off(discriminators: Discriminators) -> None:
    predicted, target = noise(1, 1, 4096), noise(1, 1, 4096, seed=1)
    small = small_discriminators()
    without_mbd = Discriminators(DiscriminatorsConfig(mpd=small.mpd, msd=small.msd, mbd=None))
    with frozen(without_mbd):
        _, parts = GeneratorLoss()(without_mbd, predicted, target)
        assert set(parts) == {"adversarial/mpd", "adversarial/msd", "feature/mpd", "feature/msd", "mel"}
    with frozen(discriminators):
        _, parts = GeneratorLoss(GanLossConfig(mel=0, feature=0))(discriminators, predicted, target)
        assert set(parts) == {f"adversarial/{name}" for name in NAMES}
    total, parts = GeneratorLoss(GanLossConfig(stft=2.0))(None, predicted, target)
    assert set(parts) == {"mel", "stft"}
    torch.testing.assert_close(total, 7 * parts["mel"] + 2 * parts["stft"])


# --- isolation (style rule 10)


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module: torch.nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_discriminator_step_leaves_the_generator_unchanged(
    generator: torch.nn.Module, discriminators: Discriminators
) -> None:
    before_g, before_d = snapshot(generator), snapshot(discriminators)
    target = noise(2, 1, 8192)
    predicted = generator(noise(2, 1, 8192, seed=1))
    optimiser = torch.optim.AdamW(discriminators.parameters(), lr=1e-2)
    real, fake = judge(discriminators, target, predicted.detach())
    discriminator_loss(real, fake)[0].backward()
    optimiser.step()
    assert unchanged(generator, before_g)
    assert all(p.grad is None for p in generator.parameters())
    for name in NAMES:
        part = discriminators.parts[name]
        assert all(p.grad is not None for p in part.parameters())
        assert not unchanged(part, {k.removeprefix(f"parts.{name}."): v for k, v in before_d.items()})


def test_generator_step_leaves_the_discriminators_untouched(
    generator: torch.nn.Module, discriminators: Discriminators
) -> None:
    """No gradient, no weight and no spectral-norm estimate may change."""
    before = snapshot(discriminators)
    optimiser = torch.optim.AdamW(generator.parameters(), lr=1e-2)
    before_g = snapshot(generator)
    with frozen(discriminators):
        predicted = generator(noise(2, 1, 8192, seed=1))
        total, _ = GeneratorLoss()(discriminators, predicted, noise(2, 1, 8192))
        total.backward()
    optimiser.step()
    assert all(p.grad is None for p in discriminators.parameters())
    assert unchanged(discriminators, before)
    assert not unchanged(generator, before_g)


def test_frozen_restores_what_it_found(discriminators: Discriminators) -> None:
    fixed = next(discriminators.parameters()).requires_grad_(False)
    discriminators.parts["msd"].eval()
    with pytest.raises(RuntimeError, match="inside"), frozen(discriminators):
        assert not any(p.requires_grad for p in discriminators.parameters())
        assert not any(m.training for m in discriminators.modules())
        raise RuntimeError("inside")
    assert [p for p in discriminators.parameters() if not p.requires_grad] == [fixed]
    assert discriminators.training and not discriminators.parts["msd"].training
    assert discriminators.parts["mpd"].training


@torch.no_grad()
def test_joint_judgement_equals_separate_ones(discriminators: Discriminators) -> None:
    target, predicted = noise(2, 1, 5003), noise(2, 1, 5003, seed=1)
    with frozen(discriminators):
        joint = judge(discriminators, target, predicted)
        alone = discriminators(target), discriminators(predicted)
    for one, other in zip(joint, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
