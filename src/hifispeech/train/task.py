"""What a model brings to the trainer, and what the trainer offers it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from hifispeech.train.losses.frames import Shared

Parts = dict[str, Tensor]
LossFunction = Callable[[nn.Module, Any], tuple[Tensor, Parts]]


@dataclass
class Validation:
    """Scores by name; the lowest `score` chooses the best checkpoint; clips `[time]` to listen to."""

    scores: dict[str, float]
    score: float
    clips: dict[str, np.ndarray] = field(default_factory=dict)


class Updates(Protocol):
    """The side of the trainer a task sees during a step."""

    @property
    def step(self) -> int: ...

    @property
    def frozen_until(self) -> int: ...

    @property
    def shared(self) -> Shared:
        """Mean of a count over all processes; see `frame_losses`."""
        ...

    def module(self, name: str) -> nn.Module:
        """A network as it is to be called in training (compiled, distributed)."""
        ...

    def autocast(self) -> Any: ...

    def update(self, name: str, loss: LossFunction, batches: Sequence[Any]) -> Parts:
        """One optimiser step of the network `name` over the batches; returns the mean loss and its parts."""
        ...


class Task(Protocol):
    """A model with its data, losses and validation; "model" in `networks` is the one averaged and kept."""

    config: Any
    networks: dict[str, nn.Module]

    def optimiser(self, name: str) -> Optimizer:
        """A fresh optimiser of one network; the trainer scales its rates by the schedule."""
        ...

    def batch(self, index: int, rank: int, world: int) -> Any:
        """This process' share of a batch: a pure function of the arguments, called in workers too."""
        ...

    def train_step(self, updates: Updates, batches: Sequence[Any]) -> Parts:
        """One step over the batches; what it returns is logged."""
        ...

    def validate(self, model: nn.Module) -> Validation | None:
        """Judge the averaged weights on held-out speakers; None without such."""
        ...

    def card(self) -> dict[str, Any]:
        """What is to be known of the training, as JSON data: sources, licences."""
        ...
