"""Tasks of `sample` that start from pictures: inpainting, colorization, upsampling and interpolation."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from score_lightning.conditional import Measurement, colorization, inpainting, upsampling
from score_lightning.data.pictures import Shape, flatten, open_picture
from score_lightning.data.pixels import PixelRange, Range
from score_lightning.errors import UserError
from score_lightning.likelihood import check_times, decode, encode, interpolate
from score_lightning.models import ScoreModel
from score_lightning.runtime.randomness import ImageNoise
from score_lightning.runtime.startup import is_first


@dataclass(frozen=True)
class Known:
    """The known part of an image.

    Args:
        measurement: in the model's range.
        picture: uint8 (C, H, W), which shows it.
    """

    measurement: Measurement
    picture: Tensor


def read_known(task: str, image: str | None, mask: str | None, shape: Shape, pixels: Range) -> Known:
    """The known part of the picture in a file, for inpaint, colorize or upsample.

    Args:
        task: one of the three.
        image: the picture; for upsample a small square, whose side divides that of the model's images.
        mask: for inpaint, a picture of the same size, white where to paint.
        shape: of the model's images, to which other pictures are cropped and resized.
        pixels: range of pixels in the model.

    Raises:
        UserError: when a file is missing, cannot be read or does not suit the task.
    """
    if image is None:
        raise UserError(f"task={task} needs image=FILE")
    if (mask is None) == (task == "inpaint"):
        raise UserError(
            "task=inpaint needs mask=FILE, a picture of the image's size, white where to paint"
            if mask is None
            else f"task={task} takes no mask"
        )
    picture = _open(image, shape)
    try:
        if mask is not None:
            return _inpaint(picture, _open(mask, shape), (image, mask), shape, pixels)
        if task == "colorize":
            return _colorize(picture, shape, pixels)
        return _upsample(picture, image, shape, pixels)
    except ValueError as error:
        raise UserError(f"task={task}: {error}") from error


def read_pair(text: str | None, shape: Shape) -> Tensor:
    """uint8 (2, C, H, W): the two pictures of image=[FILE,FILE].

    Raises:
        UserError: when there are not two of them, or one cannot be read.
    """
    names = [name.strip() for name in (text or "").strip("[] ").split(",") if name.strip()]
    if len(names) != 2:
        raise UserError(f"task=interpolate needs two pictures, image=[FILE,FILE]; got {text or 'none'}")
    return torch.stack([_fit(_open(name, shape), shape) for name in names])


def interpolation(model: ScoreModel, ends: Tensor, n: int, pixels: Range, batch_size: int = 256) -> Tensor:
    """uint8 (n, C, H, W) between two pictures uint8 (2, C, H, W), on the great circle between their latents.

    Both pictures are dequantized first, since the flow is that of a density.

    Raises:
        UserError: when the network takes discrete levels only, or pictures on the path are not finite.
    """
    device = next(model.parameters()).device
    noise = torch.special.ndtr(ImageNoise(0, [0, 1])(ends.float()))
    pixels = replace(pixels, dequantized=True) if isinstance(pixels, PixelRange) else pixels
    x = pixels.encode(ends, noise).to(device)
    try:
        check_times(model, x)
    except ValueError as error:
        raise UserError(f"task=interpolate: {error}") from error
    first, last = encode(model, x)
    path = torch.cat([decode(model, latents) for latents in interpolate(first, last, n).split(batch_size)])
    if not path.isfinite().all():
        raise UserError("task=interpolate: the path between the pictures has numbers that are not finite (NaN)")
    return pixels.decode(path).cpu()


def _open(name: str, shape: Shape) -> Image.Image:
    """A picture in color, after a line on what is read."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"there is no picture {path}")
    with open_picture(path) as image:
        picture = flatten(image, shape.background).convert("RGB")
        remarks = [shape.say(kind) for kind in shape.remarks(image) if kind != "small"]
    if is_first():
        print(", ".join([f"{path}: {picture.width} x {picture.height} pixels", *remarks]))
    return picture


def _fit(image: Image.Image, shape: Shape) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(shape.fit(image)))


def _inpaint(image: Image.Image, mask: Image.Image, names: tuple[str, str], shape: Shape, pixels: Range) -> Known:
    if image.size != mask.size:
        sizes = [f"{width} x {height}" for width, height in (mask.size, image.size)]
        raise UserError(
            f"the mask {names[1]} has {sizes[0]} pixels, {names[0]} {sizes[1]}: they must have the same size"
        )
    known = _fit(mask, replace(shape, channels=1))[0] < 128
    picture = _fit(image, shape)
    shown = torch.where(known, picture, torch.tensor(128, dtype=torch.uint8))
    return Known(inpainting(pixels.encode(picture), known), shown)


def _colorize(image: Image.Image, shape: Shape, pixels: Range) -> Known:
    if shape.channels != 3:
        raise UserError("task=colorize needs a model of images in color; this one draws them in gray")
    measurement = colorization(pixels.encode(_fit(image, shape)))
    return Known(measurement, pixels.decode(measurement.y.expand(3, -1, -1)))


def _upsample(image: Image.Image, name: str, shape: Shape, pixels: Range) -> Known:
    width, height = image.size
    if width != height or width >= shape.size or shape.size % width:
        raise UserError(
            f"task=upsample needs a small square whose side divides {shape.size}, such as "
            f"{shape.size // 2} x {shape.size // 2} pixels; {name} has {width} x {height}"
        )
    small = pixels.encode(_fit(image, replace(shape, size=width)))
    measurement = upsampling(small, shape.size // width)
    return Known(measurement, pixels.decode(measurement.y))
