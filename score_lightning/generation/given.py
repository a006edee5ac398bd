"""Pictures that a user gives to a model that is conditioned on some: a file, a folder, a zip, or arrays."""

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from score_lightning.conditional import Condition
from score_lightning.data.arrays import ARRAYS, depth_of, read_arrays
from score_lightning.data.files import ImageFiles
from score_lightning.data.listing import list_pictures
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import EIGHT_BITS, Range
from score_lightning.errors import UserError
from score_lightning.generation.conditions import Conditions, of_observed
from score_lightning.runtime.startup import is_first


@dataclass(frozen=True)
class _Pictures:
    """Pictures (N, C, H, W) in the type of images; their names, and (width, height) of each before it was fitted."""

    levels: Tensor
    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]


def read_conditions(
    image: str, mask: str | None, condition: Condition, shape: Shape, pixels: Range, exact: bool
) -> Conditions:
    """What pictures say of images.

    Args:
        image: path of a picture, of a folder or a zip file of pictures, or of a file of images.
        mask: likewise, of one mask for all or of one for each, white where pixels are to be painted, for a condition
            that is a part of the image.
        condition: of the model.
        shape: of the model's images.
        pixels: their range in the model.
        exact: whether images are to keep what the pictures say.

    Raises:
        UserError: when they cannot be read, or are not of the shape that the condition takes.
    """
    _, *size = shape.dimensions
    if condition.partial and mask is None:
        raise UserError("this model paints a part of image=…: give mask=…, of the picture's size, white where to paint")
    if not condition.partial and mask is not None:
        raise UserError("mask=… goes with a model that paints a part of a picture (condition=inpaint)")
    pictures = _read(image, _of_shape(shape, condition.given_shape(shape.dimensions)), condition.of_one_size)
    of_mask = replace(_of_shape(shape, (1, *size)), depth=EIGHT_BITS)
    known = None if mask is None else _read_known(mask, of_mask, pictures)
    y = condition.read(pixels.encode(pictures.levels), known)
    try:
        if exact:
            condition.measurement(y)
    except ValueError as error:
        raise UserError(f"samples that keep the picture exactly: {error}") from error
    return of_observed(condition, y, exact)


def _read_known(text: str, shape: Shape, pictures: _Pictures) -> Tensor:
    """bool (N or 1, 1, H, W): the pixels of pictures that masks leave."""
    masks = _read(text, shape, False)
    if len(masks.names) not in (1, len(pictures.names)):
        raise UserError(
            f"mask={text} holds {len(masks.names)} masks for {len(pictures.names)} pictures: give one, or one for each"
        )
    for i, (name, size) in enumerate(zip(pictures.names, pictures.sizes, strict=True)):
        its = i % len(masks.names)
        if masks.sizes[its] != size:
            sizes = [f"{width} x {height}" for width, height in (masks.sizes[its], size)]
            raise UserError(
                f"the mask {masks.names[its]} has {sizes[0]} pixels, {name} {sizes[1]}: they must have the same size"
            )
    return masks.levels < 128


def _of_shape(shape: Shape, dimensions: tuple[int, ...]) -> Shape:
    """Pictures of these dimensions (C, H, W), otherwise fitted as to a shape."""
    return replace(shape, channels=dimensions[0], size=(dimensions[1], dimensions[2]))


def _read(text: str, shape: Shape, of_one_size: bool) -> _Pictures:
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"there is no picture {path}")
    if path.suffix in ARRAYS and path.is_file():
        levels, _ = read_arrays(path, shape.dimensions)
        depth_of(path, levels, shape.depth)
        if tuple(levels.shape[1:]) != shape.dimensions:
            raise UserError(
                f"{path} holds pictures of shape {tuple(levels.shape[1:])}, this model takes {shape.dimensions}"
            )
        width_height = shape.dimensions[2], shape.dimensions[1]
        return _Pictures(levels, [f"{path}, number {i}" for i in range(len(levels))], [width_height] * len(levels))
    notes: list[str] = []
    root, names = path.parent, [path.name]
    if path.is_dir() or zipfile.is_zipfile(path):
        listing = list_pictures(path)
        root, names, notes = path, listing.names, listing.notes
    files, sizes = ImageFiles(root, names, shape), []
    for name in names:
        with files.open(name) as picture:
            sizes.append(picture.size)
        if of_one_size and sizes[-1] != (shape.dimensions[2], shape.dimensions[1]):
            height, width = shape.dimensions[1:]
            raise UserError(
                f"{root / name} has {sizes[-1][0]} x {sizes[-1][1]} pixels, this model takes pictures of {width} x "
                f"{height}"
            )
    remarks: Counter[str] = Counter()
    levels = files.decode(range(len(names)), remarks)
    if is_first():
        counted = f"{len(names):,} pictures" if len(names) > 1 else f"{sizes[0][0]} x {sizes[0][1]} pixels"
        print("; ".join([f"{path}: {counted}", *notes, *files.notes(remarks)]))
    return _Pictures(levels, [str(root / name) for name in names], sizes)
