"""The shape and the depth of data, as a configuration states them."""

from typing import cast, get_args

import torch
from PIL import ImageColor

from score_lightning.config import Config
from score_lightning.config.schema import Images
from score_lightning.data.pictures import Resize, Shape, Size
from score_lightning.data.pixels import Depth, whole_depth
from score_lightning.errors import UserError, mistakes_in


def data_shape(config: Config) -> tuple[int, ...]:
    """(C, H, W) of an image, or (D,) of a data point.

    Raises:
        UserError: when these are no sizes.
    """
    images, points = config.images, config.points
    if points > 0:
        return (points,)
    size = image_size(images)
    if points < 0 or size is None or images.channels < 1:
        raise UserError(
            f"images.size must be N or [H,W] pixels and images.channels positive, got {images.size}, "
            f"{images.channels}; or set points, the dimensions of data other than images, got {points}"
        )
    return (images.channels, *((size, size) if isinstance(size, int) else size))


def image_size(images: Images) -> Size | None:
    """That of the configuration; None where it is none."""
    size = images.size
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        return None
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


DTYPES = {"8": torch.uint8, "16": torch.uint16, "float": torch.float32}


def of_network(images: Images) -> dict[str, object]:
    """The keywords of a network for images of this shape.

    Raises:
        UserError: when they are to be augmented and are no squares.
    """
    size = image_size(images)
    if images.augment > 0 and not isinstance(size, int):
        raise UserError("images.augment is of squares: set images.augment=0, or images.size to one number")
    return {"image_size": size, "image_channels": images.channels}


def image_depth(images: Images) -> Depth:
    """How pixels are stored.

    Raises:
        UserError: when there is no range, or none that the depth holds.
    """
    dtype, ends = DTYPES[images.depth], images.input_range
    if len(ends) not in (0, 2) or (not ends and dtype.is_floating_point):
        raise UserError(
            f"images.input_range must be [black,white], the stored values of both, for images.depth={images.depth}"
            + ("" if dtype.is_floating_point else ", or [] for all integers of these bits")
            + f"; got {ends}"
        )
    with mistakes_in("images.input_range"):
        return Depth(dtype, *ends) if ends else whole_depth(dtype)


def depth_overrides(depth: Depth) -> list[str]:
    """The settings of a depth, as key=value overrides."""
    name = next(name for name, dtype in DTYPES.items() if dtype == depth.dtype)
    return [f"images.depth={name}", f"images.input_range=[{depth.black!r},{depth.white!r}]"]


def picture_shape(images: Images) -> Shape:
    """What pictures are brought to.

    Raises:
        UserError: for no size, another way to resize, no color, or no range.
    """
    size = image_size(images)
    if size is None:
        raise UserError(f"images.size must be N or [H,W] pixels, got {images.size}")
    try:
        ImageColor.getrgb(images.background)
    except ValueError as error:
        raise UserError(
            f"images.background must be a color, such as white or #ffcc00, got {images.background!r}"
        ) from error
    if images.resize not in get_args(Resize):
        raise UserError(f"images.resize must be one of {', '.join(get_args(Resize))}, got {images.resize!r}")
    return Shape(size, images.channels, cast(Resize, images.resize), images.background, image_depth(images))
