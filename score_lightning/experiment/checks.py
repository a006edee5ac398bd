"""Checks of settings that only make sense together, with the remedy in the message."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast, get_args

import torch
from PIL import ImageColor

from score_lightning.config import Config
from score_lightning.config.registry import TABLES, keyword_types, part_of
from score_lightning.config.schema import Images
from score_lightning.data.pictures import Resize, Shape
from score_lightning.data.sources import Split
from score_lightning.data.summary import summarize
from score_lightning.errors import UserError


def check_labels(config: Config, label: int | None) -> None:
    """Refuses a label, or guidance, that the model cannot be conditioned on.

    Raises:
        UserError: with the remedy.
    """
    labels = config.labels
    remedy = "needs a model conditioned on labels; this one is not: train one with labels.classes=N"
    if labels.guidance != 0 and labels.classes is None:
        raise UserError(f"labels.guidance={labels.guidance:g} {remedy}, or leave guidance at 0")
    if labels.guidance != 0 and labels.drop == 0:
        raise UserError(
            "labels.guidance needs a model that was also trained without labels: train with labels.drop=0.1"
        )
    if label is not None and not labels.classes:
        raise UserError(f"label=K {remedy}")
    if label is not None and not 0 <= label < (labels.classes or 0):
        raise UserError(f"label must lie between 0 and {(labels.classes or 0) - 1}, got {label}")


def check_variances(config: Config, section: str) -> None:
    """Refuses a sampler or objective that needs learned variances, of a network that does not learn them.

    Raises:
        UserError: with the remedy.
    """
    part = part_of(config, section)
    needed = part.get("variance") == "learned" or part.get("name") == "hybrid"
    if needed and not config.net.get("learned_variance"):
        raise UserError(
            f"{section} {part.get('name')} needs learned variances: train with net.learned_variance=true, as unet "
            "can" + ("" if section == "objective" else f", or take {section}.variance=small or large")
        )


def check_accepts(net: object, keyword: str, reason: str) -> None:
    """Refuses a network without a keyword, for a reason.

    Raises:
        UserError: naming the networks that have it.
    """
    accepting = [name for name, constructor in TABLES["net"].items() if keyword in keyword_types(constructor)]
    if net in TABLES["net"] and net not in accepting:
        raise UserError(f"{reason}; {' and '.join(accepting)} can")


@contextmanager
def mistakes_in(section: str, *more: type[Exception]) -> Iterator[None]:
    """Turns what an object says of its arguments into a message that names their section.

    Raises:
        UserError: for a ValueError, or one of the other types.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (ValueError, *more)):
            raise
        raise UserError(f"{section}: {error}") from error


def check_classes(classes: int | None, split: Split) -> None:
    """Refuses a number of classes other than that of the images, or classes that no image is of.

    Raises:
        UserError: with the remedy.
    """
    parts = [images.labels for images in split if images.labels is not None]
    if classes is None or not parts:
        return
    labels, names = torch.cat(parts), split[0].source.classes
    have = int(labels.max()) + 1 if names is None else len(names)
    if classes != have:
        listed = "" if names is None else f" ({summarize(names)})"
        raise UserError(f"labels.classes={classes}: the images have {have} classes{listed}; set labels.classes={have}")
    missing = sorted(set(range(have)) - set(labels.tolist()))
    if missing:
        raise UserError(f"labels.classes={classes}: no image has the label {missing[0]}; number classes from 0 on")


def check_labeled(classes: int | None, split: Split) -> None:
    """Refuses images without labels for a model that is conditioned on them.

    Raises:
        UserError: with the remedy.
    """
    if classes is not None and any(images.labels is None for images in split):
        why = [note for note in split[0].source.notes if "classes" in note]
        raise UserError(
            f"labels.classes={classes} needs images with labels, such as class folders; these have none"
            + "".join(f": {note}" for note in why)
        )


def picture_shape(images: Images) -> Shape:
    """What pictures are brought to.

    Raises:
        UserError: for another way to resize, or no color.
    """
    try:
        ImageColor.getrgb(images.background)
    except ValueError as error:
        raise UserError(
            f"images.background must be a color, such as white or #ffcc00, got {images.background!r}"
        ) from error
    if images.resize not in get_args(Resize):
        raise UserError(f"images.resize must be one of {', '.join(get_args(Resize))}, got {images.resize!r}")
    return Shape(images.size, images.channels, cast(Resize, images.resize), images.background)
