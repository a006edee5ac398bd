"""Sets of images: tensors in memory, and pictures on disk that are decoded when a batch asks for them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from score_lightning.data.files import ImageFiles
from score_lightning.data.pixels import EIGHT_BITS, Depth


@dataclass(frozen=True)
class Source:
    """What is known of images besides their pixels.

    Args:
        classes: names of the classes, by number; None where labels are numbers only, or there are none.
        content: hash of the names and sizes of their files, by which data are known again wherever they are moved;
            None where a configuration says which images they are.
        notes: what was skipped, or changed, of what is stored there.
    """

    classes: tuple[str, ...] | None = None
    content: str | None = None
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Classes and content as plain data, which checkpoints hold."""
        return {"classes": None if self.classes is None else list(self.classes), "content": self.content}


class ImageSet(Dataset[Tensor]):
    """Images in memory, or in a file that is mapped into it.

    Args:
        stored: (M, C, H, W), of the depth's type.
        labels: int64 (N,), or None.
        source: of the images.
        order: int64 (N,), which of those stored, in which order; all when None.
        depth: how pixels are stored.

    Raises:
        ValueError: when images are of another type than the depth.

    Attributes:
        conditions: the pictures that they are paired with, one for each; None without.
    """

    conditions: "ImageSet | None" = None

    def __init__(
        self,
        stored: Tensor,
        labels: Tensor | None = None,
        source: Source | None = None,
        order: Tensor | None = None,
        depth: Depth = EIGHT_BITS,
    ) -> None:
        self._stored, self.labels, self.source, self._order = stored, labels, source or Source(), order
        self.depth = depth
        if stored.ndim == 4 and stored.dtype != depth.dtype:
            raise ValueError(f"images of type {stored.dtype} need a depth of that type, got {depth}")

    def __len__(self) -> int:
        return len(self._stored if self._order is None else self._order)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        if self._order is not None:
            return self._stored.index_select(0, self._order[indices])
        # many times faster than indexing
        return self._stored[indices] if isinstance(indices, slice) else self._stored.index_select(0, indices)

    @property
    def images(self) -> Tensor:
        """All of them: (N, C, H, W)."""
        return self[:]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return tuple(self._stored.shape[1:])

    def subset(self, indices: Tensor) -> Self:
        """The images at the indices; those stored are shared."""
        labels = None if self.labels is None else self.labels[indices]
        order = indices if self._order is None else self._order[indices]
        return type(self)(self._stored, labels, self.source, order, self.depth)

    @cached_property
    def sha256(self) -> str:
        """Hash of the images and their order; labels are no part of it."""
        depth = "" if self.depth == EIGHT_BITS else f" {self.depth}"
        digest = hashlib.sha256(f"{torch.Size((len(self), *self.shape))}{depth}".encode())
        for start in range(0, len(self), 10_000):
            digest.update(self[start : start + 10_000].contiguous().numpy().data)
        return digest.hexdigest()


class LazyImageSet(ImageSet):
    """Pictures that are decoded whenever a batch needs them.

    Args:
        files: the pictures.
        labels: int64, one for each, or None.
        source: of the pictures.
        order: which of them, in which order; all when None.
    """

    def __init__(
        self,
        files: ImageFiles,
        labels: Tensor | None = None,
        source: Source | None = None,
        order: Tensor | None = None,
    ) -> None:
        self.files, self.labels, self.source = files, labels, source or Source(content=files.content)
        self.order = torch.arange(len(files)) if order is None else order
        self.depth = files.shape.depth

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return self.files.decode(self.order[indices].tolist())

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.files.shape.dimensions

    @cached_property
    def sha256(self) -> str:
        """Hash of the files, their order and the shape that they are decoded to."""
        digest = hashlib.sha256(f"{self.files.shape} {self.files.crop} {len(self)}".encode())
        for content in self.files.contents(self.order.tolist()):
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def subset(self, indices: Tensor) -> Self:
        """The images at the indices."""
        labels = None if self.labels is None else self.labels[indices]
        return type(self)(self.files, labels, self.source, self.order[indices])

    def examined(self) -> Self:
        """The same with the remarks on its pictures, of which only the headers are read, among the notes."""
        return self.noted(self.files.notes(self.files.remarks(self.order.tolist())))

    def noted(self, notes: Sequence[str]) -> Self:
        """The same with more notes."""
        source = replace(self.source, notes=(*self.source.notes, *notes))
        return type(self)(self.files, self.labels, source, self.order)


class PairedImages(ImageSet):
    """Images, each paired with a picture to condition on.

    Args:
        paired: the images, with their labels and what is known of them.
        conditions: as many pictures, in the same order.
    """

    conditions: ImageSet

    def __init__(self, paired: ImageSet, conditions: ImageSet) -> None:
        self.paired, self.conditions = paired, conditions
        self.labels, self.depth = paired.labels, paired.depth
        notes = dict.fromkeys((*paired.source.notes, *conditions.source.notes))
        content = f"{paired.source.content} {conditions.source.content}"
        self.source = replace(paired.source, content=hashlib.sha256(content.encode()).hexdigest(), notes=tuple(notes))

    def __len__(self) -> int:
        return len(self.paired)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return self.paired[indices]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.paired.shape

    @property
    def sha256(self) -> str:
        """That of the images alone."""
        return self.paired.sha256

    def subset(self, indices: Tensor) -> Self:
        """The pairs at the indices."""
        return type(self)(self.paired.subset(indices), self.conditions.subset(indices))
