"""Batches in order, made ahead of time by worker processes if asked for."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from hifispeech.train.task import Task


@dataclass(frozen=True)
class Share:
    """Which part of each batch a process makes."""

    rank: int = 0
    world: int = 1


class _Batches(Dataset[Any]):
    """Batch number `index` of a task; the order is the sampler's."""

    def __init__(self, task: Task, share: Share) -> None:
        self.task, self.share = task, share

    def __getitem__(self, index: int) -> Any:
        return self.task.batch(index, self.share.rank, self.share.world)


def batches(
    task: Task, first: int, end: int, share: Share, workers: int, pin: bool
) -> Generator[Any, None, None]:
    """Batches `first` to `end - 1`; with `workers` processes they are made while the model trains.

    The order and the content do not depend on `workers`: each batch is a pure function of its number.
    """
    if workers == 0:
        for index in range(first, end):
            yield task.batch(index, share.rank, share.world)
        return
    yield from DataLoader(
        _Batches(task, share),
        batch_size=None,
        sampler=range(first, end),
        num_workers=workers,
        prefetch_factor=4,
        collate_fn=_as_it_is,
        pin_memory=pin,
        worker_init_fn=_one_thread,
        persistent_workers=False,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
