"""Tasks of `sample` that start from pictures: to inpaint, colorize, upsample, deblur, edit or interpolate."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_lightning.conditional import (
    Downsample,
    Edit,
    Evidence,
    GaussianBlur,
    Gray,
    Mask,
    Measurement,
    MotionBlur,
    Observation,
    Operator,
    Posterior,
    colorization,
    inpainting,
    upsampling,
)
from score_lightning.data.pictures import Picture, Shape, flatten, open_picture, open_raster
from score_lightning.data.pixels import EIGHT_BITS, PixelRange, Range
from score_lightning.errors import UserError
from score_lightning.likelihood import check_times, decode, encode, interpolate
from score_lightning.models import ScoreModel
from score_lightning.runtime.randomness import ImageNoise
from score_lightning.runtime.startup import is_first

ROUNDING = 1 / math.sqrt(12)  # standard deviation of what rounding to whole gray levels adds to a picture
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """What images are drawn given.

    Args:
        measurement: in the model's range.
        picture: (C, H, W) as it is stored, which shows it.
    """

    measurement: Evidence
    picture: Tensor


@dataclass(frozen=True)
class _Seen:
    """y = A x_0 of a picture, in the model's range; `part` is the same as a known part, where A allows it."""

    operator: Operator
    y: Tensor
    picture: Tensor
    part: Measurement | None = None


def read_known(options: Options, shape: Shape, pixels: Range) -> Known:
    """What a picture in a file says of an image, for every task but interpolate.

    Args:
        options: of the command: task, image; mask, a picture of the same size, white where to paint; blur or motion;
            noise, in units of stored pixels, and method: projection where there is no noise and the task allows it,
            else mmps.
        shape: of the model's images, to which pictures are cropped and resized. For upsample the picture is a small
            one, whose sides divide those of the model's images.
        pixels: range of pixels in the model.

    Raises:
        UserError: when a file is missing, cannot be read or does not suit the task.
    """
    task, noise = options["task"], options.get("noise", 0.0)
    if options.get("image") is None:
        raise UserError(f"task={task} needs image=FILE")
    if task == "inpaint" and options.get("mask") is None:
        raise UserError("task=inpaint needs mask=FILE, a picture of the image's size, white where to paint")
    picture = _open(options["image"], shape)
    if task == "edit":
        levels = _fit(picture, shape)
        return Known(Edit(pixels.encode(levels)), levels)
    try:
        seen = READERS[task](picture, options, shape, pixels)
    except ValueError as error:
        raise UserError(f"task={task}: {error}") from error
    method = options.get("method", "projection" if noise == 0 and seen.part is not None else "mmps")
    if method == "projection":
        assert seen.part is not None
        return Known(seen.part, seen.picture)
    std = math.hypot(noise, ROUNDING if pixels.levels else 0) / _span(pixels) * (pixels.high - pixels.low)
    return Known(Posterior(Observation(seen.operator, seen.y[None], std), method), seen.picture)


def _span(pixels: Range) -> float:
    """From black to white, in units of stored pixels."""
    return pixels.depth.white - pixels.depth.black


def read_pair(text: str | None, shape: Shape) -> Tensor:
    """(2, C, H, W): the two pictures of image=[FILE,FILE], as they are stored.

    Raises:
        UserError: when there are not two of them, or one cannot be read.
    """
    names = [name.strip() for name in (text or "").strip("[] ").split(",") if name.strip()]
    if len(names) != 2:
        raise UserError(f"task=interpolate needs two pictures, image=[FILE,FILE]; got {text or 'none'}")
    return torch.stack([_fit(_open(name, shape), shape) for name in names])


def interpolation(model: ScoreModel, ends: Tensor, n: int, pixels: Range, batch_size: int = 256) -> Tensor:
    """(n, C, H, W) between two pictures (2, C, H, W), on the great circle between their latents.

    Both pictures are dequantized first, where they have gray levels, since the flow is that of a density.

    Raises:
        UserError: when the network takes discrete levels only, or pictures on the path are not finite.
    """
    device = next(model.parameters()).device
    noise = torch.special.ndtr(ImageNoise(0, [0, 1])(ends.float()))
    pixels = replace(pixels, dequantized=True) if isinstance(pixels, PixelRange) and pixels.levels else pixels
    x = pixels.encode(ends, noise if pixels.dequantized else None).to(device)
    try:
        check_times(model, x)
    except ValueError as error:
        raise UserError(f"task=interpolate: {error}") from error
    first, last = encode(model, x)
    path = torch.cat([decode(model, latents) for latents in interpolate(first, last, n).split(batch_size)])
    if not path.isfinite().all():
        raise UserError("task=interpolate: the path between the pictures has numbers that are not finite (NaN)")
    return pixels.decode(path).cpu()


def _open(name: str, shape: Shape) -> Picture:
    """A picture, one of 8 bits in color, after a line on what is read."""
    path = Path(name).expanduser()
    picture: Picture
    if not path.is_file():
        raise UserError(f"there is no picture {path}")
    if shape.of_rasters:
        with open_raster(path, channels=shape.channels) as raster:
            picture, kinds = raster, shape.remarks(raster)
    else:
        with open_picture(path) as image:
            picture, kinds = flatten(image, shape.background).convert("RGB"), shape.remarks(image)
    if is_first():
        remarks = [shape.say(kind) for kind in kinds if kind != "small"]
        print(", ".join([f"{path}: {picture.size[0]} x {picture.size[1]} pixels", *remarks]))
    return picture


def _fit(image: Picture, shape: Shape) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(shape.fit(image)))


def _inpaint(image: Picture, options: Options, shape: Shape, pixels: Range) -> _Seen:
    of_mask = replace(shape, channels=1, depth=EIGHT_BITS)
    mask = _open(options["mask"], of_mask)
    if image.size != mask.size:
        sizes = [f"{width} x {height}" for width, height in (mask.size, image.size)]
        raise UserError(
            f"the mask {options['mask']} has {sizes[0]} pixels, {options['image']} {sizes[1]}: "
            "they must have the same size"
        )
    known = _fit(mask, of_mask)[0] < 128
    part = inpainting(pixels.encode(_fit(image, shape)), known)
    gray = torch.tensor((pixels.low + pixels.high) / 2)
    return _Seen(Mask(known), part.y, pixels.decode(torch.where(known, part.y, gray)), part)


def _colorize(image: Picture, options: Options, shape: Shape, pixels: Range) -> _Seen:  # noqa: ARG001
    if shape.channels != 3:
        raise UserError("task=colorize needs a model of images in color; this one draws them in gray")
    part = colorization(pixels.encode(_fit(image, shape)))
    return _Seen(Gray(), part.y, pixels.decode(part.y.expand(3, -1, -1)), part)


def _upsample(image: Picture, options: Options, shape: Shape, pixels: Range) -> _Seen:
    width, height = image.size
    factor = shape.height // height
    if factor < 2 or (width * factor, height * factor) != (shape.width, shape.height):
        what = "square whose side divides" if shape.width == shape.height else "picture whose sides divide"
        sides = " x ".join(map(str, dict.fromkeys((shape.width, shape.height))))
        raise UserError(
            f"task=upsample needs a small {what} {sides}, such as {shape.width // 2} x {shape.height // 2} pixels; "
            f"{options['image']} has {width} x {height}"
        )
    small = pixels.encode(_fit(image, replace(shape, size=(height, width))))
    part = upsampling(small, factor)
    return _Seen(Downsample(factor), small, pixels.decode(part.y), part)


def _deblur(image: Picture, options: Options, shape: Shape, pixels: Range) -> _Seen:
    picture = _fit(image, shape)
    return _Seen(_blur(options, min(shape.width, shape.height)), pixels.encode(picture), picture)


def _blur(options: Options, size: int) -> Operator:
    """That of blur=STD or motion=LENGTH,ANGLE, which must not reach beyond images of so many pixels."""
    length, angle, reach = 0, 0.0, 3 * options.get("blur", 0.0)
    if "motion" in options:
        try:
            pixels, degrees = options["motion"].split(",")
            length, angle = int(pixels), float(degrees)
        except ValueError as error:
            raise UserError(f"motion=LENGTH,ANGLE takes pixels and degrees, got {options['motion']!r}") from error
        reach = length // 2
    if not reach <= size - 1:
        raise UserError(f"task=deblur: the blur reaches further than the model's images, of {size} pixels, are wide")
    return MotionBlur(length, angle) if "motion" in options else GaussianBlur(options["blur"])


READERS: dict[str, Callable[[Picture, Options, Shape, Range], _Seen]] = {
    "inpaint": _inpaint, "colorize": _colorize, "upsample": _upsample, "deblur": _deblur,
}  # fmt: skip
