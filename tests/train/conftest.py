"""Tiny configurations, so that the trainer's tests take seconds."""

import pytest
from lightning_fabric import Fabric

from hifispeech.models.fast.config import FastConfig
from hifispeech.models.hifisr import DecoderConfig, EncoderConfig, HiFiSRConfig, MelConfig
from hifispeech.train.config import FastTrainConfig, GanOptimiserConfig, HiFiSRTrainConfig, OptimiserConfig
from hifispeech.train.losses.adversarial import GanLossConfig, MelLossConfig
from hifispeech.train.losses.discriminators import DiscriminatorsConfig, MBDConfig, MPDConfig, MSDConfig
from hifispeech.train.simulate import SimulateConfig


@pytest.fixture(scope="session")
def fast_config() -> FastTrainConfig:
    """A frame model of a few thousand parameters."""
    return FastTrainConfig(
        batch_size=2,
        segment_frames=16,
        precision="32-true",
        validate_every=1000,
        checkpoint_every=1000,
        model=FastConfig(channels=8, blocks=2, memory_frames=(3.0, 50.0)),
        optimiser=OptimiserConfig(warm_up_steps=2, total_steps=20),
        simulate=SimulateConfig(codec=0.0),
    )


@pytest.fixture(scope="session")
def gan_config() -> HiFiSRTrainConfig:
    """The paper's structure with a few thousand parameters; all three discriminators."""
    return HiFiSRTrainConfig(
        batch_size=2,
        segment_samples=2048,
        min_bandwidth_hz=0.0,
        precision="32-true",
        validate_every=1000,
        checkpoint_every=1000,
        discriminator_warm_up=2,
        model=HiFiSRConfig(
            mel=MelConfig(n_mels=20),
            encoder=EncoderConfig(
                depth=1, width=16, hidden=32, query_key=16, rotary=8, group=8, kernel=3, fsmn_width=8
            ),
            decoder=DecoderConfig(latent=8, width=16, block_kernels=(3,), block_dilations=(1,)),
        ),
        discriminators=DiscriminatorsConfig(
            mpd=MPDConfig(periods=(2,), channels=(4, 4)),
            msd=MSDConfig(scales=1, channels=(4, 4), kernels=(5, 5), strides=(2, 2), groups=(1, 1)),
            mbd=MBDConfig(windows=(256,), channels=2),
        ),
        optimiser=GanOptimiserConfig(warm_up_steps=2, total_steps=20),
        loss=GanLossConfig(mel_loss=MelLossConfig(windows=(256,), mels=(20,))),
    )


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    """One CPU process."""
    return Fabric(accelerator="cpu", devices=1)
