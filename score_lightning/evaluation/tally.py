"""What is noted of images on their way to the feature network."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from score_lightning.evaluation.metrics import OrderedRows
from score_lightning.generation.generator import check_finite
from score_lightning.generation.store import Batch
from score_lightning.runtime.processes import Rank


class Tally:
    """Counts images, notes broken ones, and keeps the first ones.

    Args:
        image: (C, H, W), which gives the shape and type of images.
        shown: first images to keep.
        device: of this process.
    """

    def __init__(self, image: Tensor, shown: int, device: torch.device | str) -> None:
        self._first, self._count = shown, 0
        self._pictures = OrderedRows(image).to(device)
        self._broken: list[int] = []

    def watch(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """(indices (B,), images (B, C, H, W)) of the batches."""
        for indices, images, finite in batches:
            self._count += len(indices)
            self._broken += indices[~finite].tolist()
            first = indices < self._first
            self._pictures.update(images[first.to(images.device)], indices[first])
            yield indices, images

    def check_finite(self, rank: Rank) -> None:
        """Raises UserError on every rank where images of any rank were broken."""
        parts = rank.gather((self._broken, self._count))
        check_finite([i for broken, _ in parts for i in broken], sum(count for _, count in parts))

    def shown(self) -> Tensor:
        """(shown, C, H, W), the first images of all ranks."""
        return self._pictures.compute().cpu()
