"""Images of any `torch.utils.data.Dataset` that has a length: each item is read once, before the training.

From then on they are like those of any other source: their order, and so resuming and the number of processes, are no
business of the data set.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset
from tqdm.auto import tqdm

from score_lightning.data.decoded import FORMAT, SHARE, in_memory, shared
from score_lightning.data.images import ImageSet, Source
from score_lightning.data.items import Items
from score_lightning.data.loader import Loader
from score_lightning.data.pictures import Shape
from score_lightning.errors import UserError
from score_lightning.runtime.files import cache_folder, write_text
from score_lightning.runtime.memory import available_bytes

CHUNK = 256  # items that are read at once
COMPARED = 16  # items that are read twice


def from_dataset(
    dataset: Dataset[Any],
    shape: Shape,
    classes: Sequence[str] | None = None,
    content: str | None = None,
    workers: int = 0,
) -> ImageSet:
    """The images of a data set, brought to a shape as pictures in a folder are, and their labels.

    Items are images, (image, label), or dicts of `image` and, if there are any, `label`. An image is one of Pillow's, a
    tensor (C, H, W) or (H, W), or an array (H, W), (H, W, C) or (C, H, W); a label is a whole number from 0.

    Args:
        dataset: with a length and items by number, which are the same whenever they are read.
        shape: of the images.
        classes: names of the classes, by number; `dataset.classes` when None, where it has them.
        content: a name for these images, another one for each version of them. They are then kept in the cache folder
            under it, where all processes and later runs find them, and may be larger than the memory. Without it they
            are read into the memory of each process, and are known again by a hash of all of them.
        workers: processes that read items.

    Raises:
        UserError: naming the item that cannot be read, is of another kind, or differs when it is read again; when there
            is none, or they do not fit into memory and have no name.
    """
    items = Items(dataset, shape, _class_names(dataset, classes))
    reading = _Reading(items, workers)
    dimensions, dtype = (len(items), *shape.dimensions), shape.depth.dtype
    if content is None:
        _check_memory(dimensions, dtype)
        stored = in_memory(dimensions, reading.parts(), dtype)
    else:
        named = hashlib.sha256(f"{FORMAT} {len(items)} {items.classes} {shape} {content}".encode()).hexdigest()
        stored = reading.kept(f"dataset-{named[:24]}", dimensions, dtype)
    images = ImageSet(stored, reading.labels, depth=shape.depth)
    _compare(items, images, content)
    known = images.sha256 if content is None else hashlib.sha256(content.encode()).hexdigest()
    names = None if reading.labels is None else items.classes
    source = Source(names, known, tuple(shape.notes(reading.remarks)))
    return ImageSet(stored, reading.labels, source, depth=shape.depth)


@dataclass
class _Reading:
    """The labels of items, and the remarks that hold for them, once all have been read."""

    items: Items
    workers: int
    numbers: list[int | None] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def parts(self) -> Iterator[Tensor]:
        """The images of all items, some at a time.

        Raises:
            UserError: naming the item that cannot be used.
        """
        self.numbers, self.remarks = [], Counter()
        loader = Loader(
            self.items,
            batch_size=CHUNK,
            num_workers=self.workers,
            collate_fn=list,
            generator=torch.Generator(),  # nobody else's random numbers are taken
        )
        with tqdm(total=len(self.items), desc="reading the data set", disable=None, leave=False) as bar:
            for chunk in loader:
                arrays = []
                for item in chunk:
                    if isinstance(item, str):
                        raise UserError(item)
                    arrays.append(item[0])
                    self._take(item[1])
                    self.remarks.update(item[2])
                yield torch.from_numpy(np.stack(arrays))
                bar.update(len(chunk))

    def kept(self, name: str, dimensions: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The images in a file of the cache folder, which is written where it is not there, with labels and remarks."""
        said = cache_folder() / f"{name}.json"

        def parts() -> Iterator[Tensor]:
            yield from self.parts()
            with suppress(OSError):  # before the images, which are in place when all are written
                write_text(said, json.dumps([self.numbers, self.remarks]))

        stored = shared(name, dimensions, parts, dtype)
        if not self.numbers:
            try:
                self.numbers, remarks = json.loads(said.read_text(encoding="utf-8"))
                self.remarks = Counter(remarks)
            except (OSError, ValueError):
                for _ in self.parts():  # for the labels
                    pass
        return stored

    @cached_property
    def labels(self) -> Tensor | None:
        """int64 (N,)."""
        return None if self.numbers[0] is None else torch.tensor(self.numbers)

    def _take(self, number: int | None) -> None:
        if self.numbers and (number is None) != (self.numbers[0] is None):
            has, other = ("no label", "one") if number is None else ("a label", "none")
            raise UserError(f"item {len(self.numbers)} of the data set has {has}, item 0 {other}")
        self.numbers.append(number)


def _class_names(dataset: Any, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Those given, else those of the data set, or of the one that it is a part of.

    Raises:
        UserError: when the data set has no length, no items by number, or none at all.
    """
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UserError(
            f"a training takes images by their numbers, in its own order, which {type(dataset).__name__} cannot "
            "give: expected a data set with __len__ and __getitem__, got an iterable one. Make a list of its items"
        )
    if not len(dataset):
        raise UserError("the data set has no items")
    while classes is None and isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None) if classes is None else classes
    return tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) and names else None


def _check_memory(dimensions: tuple[int, ...], dtype: torch.dtype) -> None:
    size, free = int(np.prod(dimensions)) * dtype.itemsize, available_bytes()
    if size > SHARE * free:
        raise UserError(
            f"the {dimensions[0]:,} images of the data set take {size / 2**30:.1f} GiB, more than half of the free "
            f"memory of {free / 2**30:.1f} GiB: give from_dataset(…, content=NAME), a name under which they are kept "
            "in the cache folder"
        )


def _compare(items: Items, images: ImageSet, content: str | None) -> None:
    """Refuses items that differ when they are read again: random ones, and others under the name of those kept."""
    for index in torch.linspace(0, len(items) - 1, min(COMPARED, len(items))).long().unique().tolist():
        again = items[index]
        if isinstance(again, str):
            raise UserError(again)
        stored = images[torch.tensor([index])][0].numpy()
        label = None if images.labels is None else int(images.labels[index])
        if np.array_equal(again[0], stored) and again[1] == label:
            continue
        kept = "" if content is None else f", or name them anew: content={content!r} has others"
        raise UserError(
            f"item {index} of the data set differs when it is read again: leave out random transforms (images.flip and "
            f"images.augment do such at each step){kept}"
        )
