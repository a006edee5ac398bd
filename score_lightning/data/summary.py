"""What is said of images before they are used: how many there are, their classes, what was skipped or changed."""

from collections.abc import Sequence

import torch

from score_lightning.data.images import ImageSet, LazyImageSet
from score_lightning.runtime.startup import is_first

SHOWN = 12  # classes that are listed one by one


def summarize(names: Sequence[str], sizes: Sequence[int] | None = None) -> str:
    """Classes with the number of images of each; of many classes the first and the last, and the range of numbers."""
    if len(names) <= SHOWN:
        return ", ".join(names if sizes is None else [f"{name} {n:,}" for name, n in zip(names, sizes, strict=True)])
    each = "" if sizes is None else f", {min(sizes):,} to {max(sizes):,} of each"
    return f"{names[0]}, {names[1]} … {names[-1]}{each}"


def announce(name: str, train: ImageSet, validation: ImageSet | None = None) -> None:
    """Prints `describe`, on the first process; pictures to evaluate are looked through for it."""
    if is_first():
        looked = train.examined() if validation is None and isinstance(train, LazyImageSet) else train
        print(describe(name, looked, validation))


def describe(name: str, train: ImageSet, validation: ImageSet | None = None) -> str:
    """One line on a set of images.

    Args:
        name: of the set.
        train: the images.
        validation: those held out; the same as `train` where none are; None where the images are not to train on.
    """
    held = None if validation is None or validation is train else validation
    n = len(train) + (0 if held is None else len(held))
    parts = [f"{name}: {n:,} images"]
    if validation is not None:
        parts[0] += f", {len(train):,} to train on, " + ("none held out" if held is None else f"{len(held):,} held out")
        parts += ["the validation loss is that of training images"] if held is None else []
    labels = [part.labels for part in (train, held) if part is not None and part.labels is not None]
    if labels:
        sizes = torch.cat(labels).bincount().tolist()
        names = train.source.classes or [str(i) for i in range(len(sizes))]
        sizes += [0] * (len(names) - len(sizes))
        parts.append(f"{len(names)} classes: {summarize(names, sizes)}")
    notes = dict.fromkeys([*train.source.notes, *(held.source.notes if held is not None else ())])
    return "; ".join([*parts, *notes])
