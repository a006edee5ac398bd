"""Which images come into which batch: functions of (seed, step), for any number of processes."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from score_lightning.runtime.randomness import generator


class TrainingOrder(Sampler[tuple[int, Tensor]]):
    """(step, indices int64) of this rank's share of each global batch: endless shuffled passes over the data.

    Batch `step` is a function of (seed, step) alone, so a run resumed at a step, on any number of processes, sees the
    same global batches.

    Args:
        images: number of images.
        batch_size: images per global batch.
        steps: batches in the whole run.
        start: step to start at.
        rank, ranks: this process and the number of processes; the latter divides batch_size.
    """

    def __init__(
        self, images: int, batch_size: int, steps: int, seed: int, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        self._images, self._batch_size, self._steps, self._seed = images, batch_size, steps, seed
        self._start, self._rank, self._ranks = start, rank, ranks

    def __len__(self) -> int:
        """Batches of the whole run, those before `start` included: Lightning counts them as done when it resumes."""
        return self._steps

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        share = self._batch_size // self._ranks
        order, current = torch.empty(0, dtype=torch.int64), -1
        for step in range(self._start, self._steps):
            parts, place = [], step * self._batch_size + self._rank * share
            end = place + share
            while place < end:
                current, before = place // self._images, current
                if current != before:
                    order = torch.randperm(self._images, generator=generator(self._seed, "order", current))
                parts.append(order[place % self._images :][: end - place])
                place += len(parts[-1])
            yield step, torch.cat(parts)


class ValidationOrder(Sampler[tuple[int, Tensor]]):
    """(number of the batch, numbers of its triples, int64): triple i goes to rank i modulo their number.

    Args:
        n: number of triples.
        batch_size: triples per batch, over all ranks.
        rank, ranks: this process and the number of processes, at most n.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        share = max(1, batch_size // ranks)
        self._batches = torch.arange(rank, n, ranks).split(share)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        return iter(enumerate(self._batches))
