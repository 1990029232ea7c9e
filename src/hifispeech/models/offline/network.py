"""The offline model's network: band powers below the cutoff in, band powers of the whole spectrum out.

It predicts the envelope only; `hifispeech.infer` turns it into sound with excitations made from the low band
and noise. Three things follow from what was measured (docs/models/offline.md): the envelope decides how the
result sounds, context of the whole recording tells microphone and room, and an envelope as smooth as a
regression makes it sounds dull, hence the noise input, which the adversarial stage learns to use.

Levels are relative to the recording's own speech: the mean power of the frames within `ACTIVE_DB` of the
loudest. Pauses, whatever noise they hold, count neither for the level nor for the pooled context.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hifispeech.audio.bands import BANDS, CENTRES_HZ, LOG_SILENCE
from hifispeech.models.offline.config import OfflineConfig

FIRST_LEVEL_BAND = 2  # 190 Hz: hum and rumble below say nothing of the speech
LOUDEST_FRAMES = 16  # the reference of the level is the loudest frame but 15: clicks are no speech
ACTIVE_DB = 20.0
LOUD_DB = 12.0
NEAR_FRAMES = 94  # what is farther than a second from a frame says nothing of its room
SMOOTH_FRAMES = 3
CONTEXT_DB = 25.0  # frames farther below the loudest say more of another talker than of the microphone
EDGE_BANDS = 4
CUTOFF_RATES = 12
LOWEST, HIGHEST = -10.0, 6.0  # range of relative log10 powers
SILENT = LOG_SILENCE + 1.0  # log10 of the mean power under which a frame is digital silence


class ConvBlock(nn.Module):
    """ConvNeXt block over time, centred. Shape: `[batch, time, channels]` kept."""

    def __init__(self, channels: int, kernel: int, dilation: int, expansion: int) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation // 2
        self.depthwise = nn.Conv1d(
            channels, channels, kernel, dilation=dilation, groups=channels, padding=reach
        )
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.reduce = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.reduce(F.gelu(self.expand(self.norm(y))))


class ContextBlock(nn.Module):
    """What all active frames say together, added to every frame: attention pooling with several heads."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.value = nn.Linear(channels, channels)
        self.score = nn.Linear(channels, heads)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: x `[batch, time, channels]`, active `[batch, time, 1]`; x, and `[batch, 1, channels]`."""
        y = self.norm(x)
        weight = torch.exp(self.score(y).float().clamp(-8.0, 8.0)) * active
        value = self.value(y).float()
        total = over_time(weight, torch.ones_like(active)).clamp(min=1e-6)
        means = (over_time(weight, value) / total).unflatten(-1, (self.heads, -1))  # of all channels
        # Every head keeps its own channels: the diagonal.
        pooled = means.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1)[:, None]
        return x + self.out(pooled.to(x.dtype)), pooled


class OfflineNetwork(nn.Module):
    """Predicts log10 band powers above the cutoff from those below: speech, and the floor under it."""

    bands: Tensor
    octaves: Tensor

    def __init__(self, config: OfflineConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or OfflineConfig()
        self.register_buffer("bands", torch.arange(BANDS, dtype=torch.float32), persistent=False)
        octaves = np.log2(np.append(np.maximum(CENTRES_HZ, 1.0), 24000.0) / 24000.0)
        self.register_buffer("octaves", torch.tensor(octaves, dtype=torch.float32), persistent=False)
        self.embed = nn.Linear(2 * BANDS + 2 * CUTOFF_RATES, c.channels)
        self.embed_floor = nn.Linear(BANDS, c.channels, bias=False)
        self.blocks = nn.ModuleList(
            ConvBlock(c.channels, c.kernel, c.dilations[i % len(c.dilations)], c.expansion)
            for i in range(c.blocks)
        )
        self.contexts = nn.ModuleList(
            ContextBlock(c.channels, c.heads) for _ in range(c.blocks // c.context_every)
        )
        self.noise = nn.Linear(c.noise, c.channels)
        self.details = nn.ModuleList(
            ConvBlock(c.channels, c.detail_kernel, 1, c.expansion) for _ in range(c.detail_blocks)
        )
        self.norm = nn.LayerNorm(c.channels)
        self.head = nn.Linear(c.channels, BANDS)
        self.floor_hidden = nn.Linear(c.channels + 2 * BANDS + 2 * CUTOFF_RATES, c.channels)
        self.floor_head = nn.Linear(c.channels, BANDS)
        nn.init.zeros_(self.embed_floor.weight)
        nn.init.constant_(self.floor_head.bias, -1.0)

    def forward(self, logs: Tensor, first_band: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The envelope of speech, that of the stationary floor, and the level of the recording's speech.

        The whole envelope is `whole(speech, floor)`: powers add.

        Shape:
            logs `[batch, time, BANDS]`, log10 band powers, of which only those below `first_band` are used
            `[batch, time]` (number of the first unknown band); noise `[batch, time, config.noise]`, normally
            distributed. Returns speech and floor `[batch, time, BANDS]` (log10 powers) and
            level `[batch, 1, 1]`.
        """
        known = (self.bands < first_band[..., None]).float()
        power = torch.pow(10.0, logs) * known
        level, active, sounding = self.level(power, known)
        relative = (logs - level).clamp(LOWEST + 2.0, HIGHEST - 2.0)
        floor_seen = self.floor(relative, sounding)
        code = self.cutoff_code(first_band)
        x = self.embed(torch.cat([relative * known * 0.5, known, code], dim=-1))
        x = x + self.embed_floor(floor_seen * known * 0.5)
        pooled = x[:, :1]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if (i + 1) % self.config.context_every == 0:
                x, pooled = self.contexts[i // self.config.context_every](x, active)
        x = x + self.noise(noise)
        for block in self.details:
            x = block(x)
        inner = (self.bands >= first_band[..., None] - EDGE_BANDS).float() * known
        edge = ((logs - level) * inner).sum(-1, keepdim=True) / inner.sum(-1, keepdim=True).clamp(min=1.0)
        speech = edge.clamp(LOWEST + 2.0, HIGHEST - 2.0) + 2.0 * self.head(self.norm(x)).float()
        # The floor reads what the context knows, but does not shape it.
        seen = [pooled.detach().expand_as(x), floor_seen * known * 0.5, known, code]
        middle = F.gelu(self.floor_hidden(torch.cat(seen, dim=-1)))
        floor = 2.0 * self.floor_head(middle).float() - 3.0
        pause = self.pause(power, level, sounding, inner)
        floor_edge = (floor_seen * inner).sum(-1, keepdim=True) / inner.sum(-1, keepdim=True).clamp(min=1.0)
        floor = torch.minimum(floor + (pause - floor_edge).clamp(-2.0, 0.5), pause)
        return speech.clamp(LOWEST, HIGHEST) + level, floor.clamp(LOWEST, HIGHEST) + level, level

    def level(self, power: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Speech level, log10 of the mean power per bin; which frames tell of the microphone (active: loud
        enough, and near loud speech); which are not digital silence (sounding).

        Shape: power and known `[batch, time, BANDS]` to `[batch, 1, 1]` and twice `[batch, time, 1]`.
        """
        heard = known * (self.bands >= FIRST_LEVEL_BAND).float()
        frame = (power * heard).sum(-1, keepdim=True) / heard.sum(-1, keepdim=True).clamp(min=1.0)
        count = min(LOUDEST_FRAMES, power.shape[1]) if not torch.compiler.is_exporting() else LOUDEST_FRAMES
        loudest = frame.topk(count, dim=1).values[:, -1:].clamp(min=10.0**SILENT)
        speech = (frame >= loudest * 10.0 ** (-ACTIVE_DB / 10)).float()
        mean = over_time(speech, frame) / over_time(speech, torch.ones_like(speech)).clamp(min=1.0)
        loud = (frame >= loudest * 10.0 ** (-LOUD_DB / 10)).float()
        near = (around(loud, NEAR_FRAMES) > 0.5).float()
        active = near * (frame >= loudest * 10.0 ** (-CONTEXT_DB / 10)).float()
        return torch.log10(mean.clamp(min=10.0**SILENT)), active, (frame > 10.0**SILENT).float()

    @staticmethod
    def floor(relative: Tensor, sounding: Tensor) -> Tensor:
        """The recording's own floor per band around each frame: a soft minimum over a second before and
        after, frames of digital silence left out.

        Power mean with exponent -1/2. Shape: `[batch, time, BANDS]` kept.
        """
        inverse = around(torch.pow(10.0, -0.5 * relative) * sounding, NEAR_FRAMES)
        mean = inverse / around(sounding, NEAR_FRAMES).clamp(min=1.0)
        return (-2.0 * torch.log10(mean.clamp(min=1e-3))).clamp(LOWEST, HIGHEST)

    @staticmethod
    def pause(power: Tensor, level: Tensor, sounding: Tensor, inner: Tensor) -> Tensor:
        """How loud the bands just below the cutoff are in the pauses around each frame.

        The noise of a recording goes on above the cutoff as it is below, or falls. Below, it can be measured:
        in the quietest of the smoothed frames (power mean with exponent -4), where the soft minimum of
        `floor` lies higher the fewer pauses there are.

        Shape: power and inner (1 in the bands below the cutoff) `[batch, time, BANDS]`, level
        `[batch, 1, 1]`, sounding `[batch, time, 1]` to `[batch, time, 1]`, relative to the level.
        """
        edge = (power * inner).sum(-1, keepdim=True) / inner.sum(-1, keepdim=True).clamp(min=1.0)
        edge = edge * torch.pow(10.0, -level)
        smooth = around(edge, SMOOTH_FRAMES) / around(sounding, SMOOTH_FRAMES).clamp(min=1.0)
        inverse = around(smooth.clamp(min=2e-9).pow(-4.0) * sounding, NEAR_FRAMES)
        mean = inverse / around(sounding, NEAR_FRAMES).clamp(min=1.0)
        return -0.25 * torch.log10(mean.clamp(min=1e-8))

    def cutoff_code(self, first_band: Tensor) -> Tensor:
        """Smooth code of the cutoff in octaves.

        Shape: `[batch, time]` to `[batch, time, 2 * CUTOFF_RATES]`.
        """
        octave = self.octaves[first_band.long()][..., None]
        phase = octave * torch.arange(1, CUTOFF_RATES + 1, device=octave.device) * 0.5
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)


def over_time(weight: Tensor, values: Tensor) -> Tensor:
    """Weighted sums over time, as a matrix product: ONNX Runtime's own sums depend on its threads.

    Shape: `[batch, time, heads]` and `[batch, time, channels]` to `[batch, heads, channels]`.
    """
    with torch.autocast(weight.device.type, enabled=False):
        return torch.matmul(weight.float().transpose(1, 2), values.float())


def around(values: Tensor, reach: int) -> Tensor:
    """Sum over the frames at most `reach` away. Shape: `[batch, time, channels]` kept."""
    width = 2 * reach + 1
    # In float64: the difference of two long sums must not lose what lies between them.
    total = F.pad(values.double(), (0, 0, reach + 1, reach)).cumsum(1)
    return (total[:, width:] - total[:, :-width]).to(values.dtype)


def whole(speech: Tensor, floor: Tensor) -> Tensor:
    """log10 of the sum of the powers of speech and floor. Shape: `[batch, time, BANDS]`."""
    high = torch.maximum(speech, floor)
    return high + torch.log10(torch.pow(10.0, speech - high) + torch.pow(10.0, floor - high))
