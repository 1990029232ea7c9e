"""The fast model: a compact causal generator that works per STFT frame and ends in an inverse STFT.

Like the paper's network it is one generator, a sequence encoder followed by a synthesiser, trained end to
end; unlike it, the synthesiser is not a waveform decoder of 495 GFLOP/s. The encoder (convolution + linear
recurrence) predicts, per frame and band, the gains of excitations above the cutoff: white noise and the low
band translated upwards, both spectrally flat. The sum of the excitations, at these gains, is the generated
spectrum; phase and fine structure come from the excitations.

Everything is relative to a causal running level, so the model is gain-equivariant, and every memory is a
named state tensor, so that streamed, chunked and whole-file outputs agree.
"""

import torch
from torch import Tensor, nn

from hifispeech.models.fast.config import FastConfig
from hifispeech.models.layers import Averager, ConvBlock, MemoryBlock, decay_of, full_precision, repeat_band

POWER_TINY = 1e-30  # keeps logarithms finite; 200 dB below the noise of a 24-bit file
LN10 = 2.302585092994046
LOWEST_BIN = 5  # what lies below 117 Hz, offset and mains hum, is not heard
REFERENCE_BINS = 44  # the 1 kHz below the cutoff to whose level the gains refer
ACTIVE_ENERGY = 1e-13  # energy of a frame (sum of |X|^2) under which it counts as digital silence


def band_centres(config: FastConfig, bands: int) -> Tensor:
    """Band centres in bins, widening slowly with frequency, `[bands]`; the first is 0, the last
    Nyquist.
    """
    position = torch.linspace(0.0, 1.0, bands, dtype=torch.float64)
    knee = 12000.0 / (config.sample_rate / 2) * config.bins
    warped = (
        torch.expm1(position * torch.log(torch.tensor(1 + config.bins / knee, dtype=torch.float64))) * knee
    )
    return warped / warped[-1] * (config.bins - 1)


def triangles(config: FastConfig, bands: int) -> Tensor:
    """Linear interpolation weights between band centres, `[bands, bins]`; every column sums to one."""
    centres = band_centres(config, bands)
    bins = torch.arange(config.bins, dtype=torch.float64)
    upper = torch.searchsorted(centres, bins).clamp(1, bands - 1)
    left, right = centres[upper - 1], centres[upper]
    weight = ((bins - left) / (right - left)).clamp(0, 1)
    table = torch.zeros(bands, config.bins, dtype=torch.float64)
    columns = torch.arange(config.bins)
    table[upper - 1, columns] += 1 - weight
    table[upper, columns] += weight
    return table.to(torch.float32)


def power_of(spectrum: Tensor) -> Tensor:
    """Squared magnitude. Shape: `[..., 2, bins]` (real, imaginary) to `[..., bins]`."""
    real, imaginary = spectrum[..., 0, :], spectrum[..., 1, :]
    return real * real + imaginary * imaginary


def log10(power: Tensor) -> Tensor:
    """Logarithm of a power, floored. A clamp, not a sum: ONNX optimisers drop the addition of 1e-30."""
    return torch.log10(power.clamp(min=POWER_TINY))


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Bins by number (clamped to those there are), for every frame its own or, with index `[1, 1, count]`,
    the same for all.

    Shape: values `[batch, time, bins]` or `[batch, time, 2, bins]`, index `[batch, time, count]`; the last
    axis of `values` becomes `count`.
    """
    index = index.clamp(0, values.shape[-1] - 1).long().expand(values.shape[0], values.shape[1], -1)
    if values.ndim == 4:
        index = index[:, :, None].expand(-1, -1, 2, -1)
    return torch.gather(values, -1, index)


class FastModel(nn.Module):
    """Generator of the band above the cutoff, frame by frame.

    `forward(spectrum, noise, cutoff_bin, *state)` returns `(generated, *state)`. The generated spectrum is
    late by `look_ahead` frames: output frame `t` belongs to input frame `t - look_ahead`.
    """

    analysis: Tensor
    spread: Tensor
    interpolate: Tensor
    level_log_decay: Tensor
    context_log_decay: Tensor
    memory_log_decay: Tensor

    def __init__(self, config: FastConfig | None = None) -> None:
        super().__init__()
        config = config or FastConfig()
        self.config = config
        table = triangles(config, config.analysis_bands)
        self.register_buffer(
            "analysis", (table / table.sum(1, keepdim=True)).T.contiguous(), persistent=False
        )
        self.register_buffer("spread", table, persistent=False)
        self.register_buffer("interpolate", triangles(config, config.gain_bands), persistent=False)
        decays = torch.tensor([decay_of(t) for t in (config.level_frames, *config.context_frames)]).log()
        self.register_buffer("level_log_decay", decays[:1], persistent=False)
        self.register_buffer("context_log_decay", torch.cat([decays[1:], decays[-1:]]), persistent=False)
        memory = torch.tensor([decay_of(t) for t in config.memory_frames], dtype=torch.float64).log()
        self.register_buffer("memory_log_decay", memory.to(torch.float32), persistent=False)
        scale = 1.0 / config.blocks
        self.embed = nn.Linear(config.features, config.channels)
        self.convs = nn.ModuleList(
            ConvBlock(config.channels, config.kernel, config.expansion, scale) for _ in range(config.blocks)
        )
        self.memories = nn.ModuleList(
            MemoryBlock(config.channels, len(config.memory_frames), scale)
            for _ in range(config.blocks // config.memory_every)
        )
        self.norm = nn.LayerNorm(config.channels)
        if config.excitation == "predicted":
            self.phase = nn.Linear(config.channels, 2 * config.bins)
        self.head = nn.Linear(config.channels, 2 * config.gain_bands + config.pass_bins)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.01)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """State before the first frame: zeros. Names and order: see `state_names`."""
        c = self.config
        groups = len(c.memory_frames)
        return (
            torch.zeros(batch, 1, 2),
            torch.zeros(batch, len(c.context_frames) + 1, c.analysis_bands + 1),
            torch.zeros(batch, c.blocks, c.kernel - 1, c.channels),
            torch.zeros(batch, len(self.memories), groups, c.channels // groups),
        )

    @staticmethod
    def state_names() -> tuple[str, ...]:
        return ("level", "context", "conv", "memory")

    def forward(
        self, spectrum: Tensor, noise: Tensor, cutoff_bin: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """One chunk of frames: `look_ahead + time` in, `time` out, the first of both the same frame.

        The chunks overlap by `look_ahead` frames, and the state is that of the last one.

        Shape:
            spectrum `[batch, look_ahead + time, 2, low]` (real, imaginary; bins from 0 on), noise
            `[batch or 1, time, 2, high]` with unit mean power (bins up to Nyquist), state as `initial_state`.
            cutoff_bin, the first bin to generate: `[batch, look_ahead + time]`, with all bins in `low` and
            `high`; or `[1, 1]` for one cutoff throughout, and then low = min(cutoff + pass_bins, bins) and
            high = bins - cutoff will do (an exported graph takes nothing else).
            Returns generated `[batch, time, 2, high]` and the new state. Below the cutoff it means nothing.
        """
        level, context, conv, memory = state
        late, time = self.config.look_ahead, noise.shape[1]
        now, own = cutoff_bin, cutoff_bin  # of the newest frames, which the features see; of those put out
        if cutoff_bin.shape[1] > 1:
            now, own = cutoff_bin[:, late:], cutoff_bin[:, :time]
        with full_precision(spectrum.device):
            bins = torch.arange(spectrum.shape[-1], device=spectrum.device)
            inside = ((bins >= LOWEST_BIN) & (bins < cutoff_bin[..., None])).float()
            power = power_of(spectrum)
            kept = power * inside
            bands = torch.matmul(kept, self.analysis[: spectrum.shape[-1]])
            features, level, context = self.analyse(
                power[:, late:], kept[:, late:], bands[:, late:], now, level, context
            )
            if self.config.excitation == "predicted":
                features = torch.cat([features, self.edge_phases(spectrum[:, late:], now)], dim=-1)
        hidden, conv, memory = self.encode(features, conv, memory)
        with full_precision(spectrum.device):
            filled = torch.matmul(inside, self.analysis[: spectrum.shape[-1]])
            filled = filled if cutoff_bin.shape[1] == 1 else filled[:, :time]
            sources = self.excite(
                spectrum[:, :time], power[:, :time], bands[:, :time], filled, own, noise.shape[-1]
            )
            generated = self.synthesise(hidden.float(), *sources, noise, own)
        return generated, level, context, conv, memory

    def analyse(
        self, power: Tensor, kept: Tensor, bands: Tensor, cutoff_bin: Tensor, level: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features relative to the running level: bands, their long averages and floor, the bins at the edge,
        the cutoff.

        Shape: power and kept (power below the cutoff) `[batch, time, bins]`, bands `[batch, time, bands]` to
        `[batch, time, features]`.
        """
        c = self.config
        energy = kept.sum(-1, keepdim=True)
        active = (energy > ACTIVE_ENERGY).to(power.dtype)
        running, level = Averager.make(self.level_log_decay, power.shape[1])(
            torch.cat([energy * active, active], -1)[:, :, None], level
        )
        log_level = log10(running[..., 0, :1] / running[..., 0, 1:].clamp(min=1e-9)) - 2.0

        log_bands = torch.maximum(log10(bands), log_level - 8.0)
        averages, context = self.averages(log_bands, active, context)
        position = self.around(cutoff_bin, c.pass_bins // 2 - c.edge_bins, c.edge_bins)
        edge = log10(pick(power, position)) - log_level
        relative = torch.cat([log_bands - log_level, averages - log_level, edge.clamp(-8.0, 4.0)], dim=-1)
        code = self.embed_cutoff(cutoff_bin).expand(-1, power.shape[1], -1)
        return torch.cat([relative.clamp(-10.0, 10.0) * 0.5, code], dim=-1), level, context

    @staticmethod
    def around(cutoff_bin: Tensor, first: int, count: int) -> Tensor:
        """Bin numbers from `cutoff + first` on. Shape: `[batch, time]` to `[batch, time, count]`."""
        return cutoff_bin[..., None] + first + torch.arange(count, device=cutoff_bin.device)

    def averages(self, log_bands: Tensor, active: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Long averages of the log bands and a soft minimum (power mean of exponent -1/2), frames of
        silence left out.

        Shape: log_bands `[batch, time, bands]`, active `[batch, time, 1]` to `[batch, time, (contexts + 1)
        * bands]`.
        """
        inverse = torch.exp(-0.5 * LN10 * log_bands)
        values = torch.stack([log_bands] * len(self.config.context_frames) + [inverse], dim=2)
        weight = active[:, :, None].expand(-1, -1, values.shape[2], 1)
        average = Averager.make(self.context_log_decay, log_bands.shape[1])
        sums, context = average(torch.cat([values * weight, weight], -1), context)
        means = sums[..., :-1] / sums[..., -1:].clamp(min=1e-9)
        floor = -2.0 * log10(means[:, :, -1:])
        return torch.cat([means[:, :, :-1], floor], dim=2).flatten(2), context

    def embed_cutoff(self, cutoff_bin: Tensor) -> Tensor:
        """Smooth code of the cutoff. Shape: `[batch, time]` to `[batch, time, 2 * cutoff_features]`."""
        octave = torch.log2(cutoff_bin.clamp(min=1.0) / self.config.bins)[..., None]
        rate = torch.arange(1, self.config.cutoff_features + 1, device=cutoff_bin.device) * 0.5
        return torch.cat([torch.sin(octave * rate), torch.cos(octave * rate)], dim=-1)

    def encode(self, features: Tensor, conv: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape: features `[batch, time, features]` to hidden `[batch, time, channels]`; states updated."""
        x = self.embed(features)
        average = Averager.make(self.memory_log_decay, x.shape[1])
        convs, memories = [], []
        for i, block in enumerate(self.convs):
            x, new = block(x, conv[:, i])
            convs.append(new)
            if (i + 1) % self.config.memory_every == 0:
                j = len(memories)
                x, new = self.memories[j](x, average, memory[:, j])
                memories.append(new)
        return self.norm(x), torch.stack(convs, dim=1), torch.stack(memories, dim=1)

    def synthesise(
        self,
        hidden: Tensor,
        translated: Tensor,
        kept: Tensor,
        reference: Tensor,
        noise: Tensor,
        cutoff_bin: Tensor,
    ) -> Tensor:
        """Excitations at the predicted gains, and the share of the input that is kept just above the cutoff.

        Shape: hidden `[batch, time, channels]`, the results of `excite`, the rest as in `forward`.
        """
        c = self.config
        first = c.bins - noise.shape[-1]
        gains, keep = self.head(hidden).float().split([2 * c.gain_bands, c.pass_bins], dim=-1)
        logs = (4.0 * gains.unflatten(-1, (2, c.gain_bands))).clamp(-24.0, 12.0)
        amplitudes = torch.exp(logs + reference[..., None])
        interpolate = self.interpolate[:, first:]
        if c.excitation == "predicted":
            noise, translated = self.turn(hidden, translated), torch.zeros_like(translated)
        generated = torch.matmul(amplitudes[:, :, :1], interpolate) * noise
        generated = generated + torch.matmul(amplitudes[:, :, 1:], interpolate) * translated
        kept = kept * torch.sigmoid(4.0 * keep + 2.0)[:, :, None]
        position = (self.around(cutoff_bin, 0, c.pass_bins).clamp(max=c.bins - 1) - first).long()
        return generated.scatter_add(-1, position[:, :, None].expand(kept.shape), kept)

    def edge_phases(self, spectrum: Tensor, cutoff_bin: Tensor) -> Tensor:
        """Directions of the bins below the edge (variant "predicted"). Shape: `[batch, time, 2 *
        edge_bins]`.
        """
        position = self.around(cutoff_bin, -self.config.edge_bins, self.config.edge_bins)
        return self.direction(pick(spectrum, position)).flatten(2)

    def turn(self, hidden: Tensor, translated: Tensor) -> Tensor:
        """Predicted phase (variant "predicted"): that of the translated band, turned by what the network
        says.

        Shape: hidden `[batch, time, channels]`, translated `[batch, time, 2, bins]`; unit vectors of that
        shape.
        """
        angles = self.phase(hidden).unflatten(-1, (2, self.config.bins))
        angle = self.direction(angles[..., self.config.bins - translated.shape[-1] :])
        base = self.direction(translated)
        real = base[:, :, 0] * angle[:, :, 0] - base[:, :, 1] * angle[:, :, 1]
        imaginary = base[:, :, 0] * angle[:, :, 1] + base[:, :, 1] * angle[:, :, 0]
        return torch.stack([real, imaginary], dim=2)

    @staticmethod
    def direction(vector: Tensor) -> Tensor:
        """Unit vectors. Shape: `[batch, time, 2, bins]` kept."""
        return vector * torch.rsqrt(power_of(vector).clamp(min=POWER_TINY))[:, :, None]

    def excite(
        self,
        spectrum: Tensor,
        power: Tensor,
        bands: Tensor,
        filled: Tensor,
        cutoff_bin: Tensor,
        high: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the generated band is made of: the translated low band, whitened and with its magnitudes
        compressed; the input just above the cutoff; the log-amplitude just below it, to which gains refer.

        The shift is a multiple of `n_fft / hop` bins, so that a translated partial advances its phase from
        frame to frame as a real one would. `filled` is the share of each band that lies below the cutoff.

        Shape: `[batch, time, 2, high]`, `[batch, time, 2, pass_bins]`, `[batch, time, 1]`.
        """
        c = self.config
        spread = self.spread[:, : spectrum.shape[-1]]
        smooth = torch.matmul(bands, spread) / torch.matmul(filled, spread).clamp(min=1e-3)
        level = smooth.clamp(min=POWER_TINY).sqrt() * power.clamp(min=POWER_TINY).sqrt()
        white = spectrum * torch.rsqrt(level)[:, :, None]
        grid = float(c.n_fft // c.hop)
        cutoff = cutoff_bin[..., None]
        shift = torch.floor(cutoff * c.source_share / grid).clamp(min=1.0) * grid
        if torch.compiler.is_exporting():  # one cutoff, where the high band begins
            translated = repeat_band(white, (cutoff - shift).flatten(), shift.flatten(), high)
        else:
            bins = torch.arange(c.bins - high, c.bins, device=power.device, dtype=power.dtype)
            above = (bins - cutoff).clamp(min=0.0)
            translated = pick(white, bins - shift * (1.0 + torch.floor(above / shift)))
        position = self.around(cutoff_bin, 0, c.pass_bins)
        kept = pick(spectrum, position) * (position < c.bins).to(power.dtype)[:, :, None]
        near = pick(power, self.around(cutoff_bin, -REFERENCE_BINS, REFERENCE_BINS))
        reference = 0.5 * torch.log(near.clamp(min=POWER_TINY)).mean(-1, keepdim=True)
        return translated, kept, reference
