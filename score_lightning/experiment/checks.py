"""Checks of settings that only make sense together, with the remedy in the message."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast, get_args

from score_lightning.config import Config
from score_lightning.config.registry import TABLES, keyword_types, part_of
from score_lightning.config.schema import Images
from score_lightning.data.images import Resize, Shape
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


def picture_shape(images: Images) -> Shape:
    """What pictures are brought to.

    Raises:
        UserError: for another way to resize.
    """
    if images.resize not in get_args(Resize):
        raise UserError(f"images.resize must be one of {', '.join(get_args(Resize))}, got {images.resize!r}")
    return Shape(images.size, images.channels, cast(Resize, images.resize))
