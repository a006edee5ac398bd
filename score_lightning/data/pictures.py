"""From picture files to gray levels: uint8 arrays of one shape, whatever depth, palette or transparency they have.

Whatever changes a picture beyond that is a remark, such as transparent pixels, and is reported before the work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from score_lightning.errors import UserError

Resize = Literal["bicubic", "bilinear", "lanczos"]
UNREADABLE = ("BUFR", "EPS", "FPX", "GRIB", "HDF5", "MIC", "MPEG", "WMF")
"""Formats that Pillow names without reading them, or reads with a program outside of it only."""
REMARKS = {
    "transparent": "with an alpha channel, composited on images.background={background}",
    "deep": "of more than 8 bits, reduced to 8",
    "frames": "with several frames, of which the first one is taken",
    "cropped": "not square, cropped to the central square",
    "small": "smaller than {size} x {size} pixels, enlarged",
}
"""Kind of remark -> what is said of the pictures that it holds for."""


@cache
def suffixes() -> tuple[str, ...]:
    """Those of all picture formats that Pillow reads here, sorted; in lower case, with their dot."""
    known = Image.registered_extensions()
    return tuple(sorted(s for s, name in known.items() if name in Image.OPEN and name not in UNREADABLE))


@dataclass(frozen=True)
class Shape:
    """Size (height and width in pixels) and channels that images are converted to.

    Args:
        size, channels: of the result.
        resize: `bicubic`, `bilinear` or `lanczos` interpolation, wider by the same factor where the result is smaller.
        background: color that transparent pictures are composited on, as Pillow reads it: a name or #rrggbb.
    """

    size: int
    channels: int
    resize: Resize = "bicubic"
    background: str = "white"

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.size, self.size)

    def fit(self, image: Image.Image, crop: int | None = None) -> np.ndarray:
        """The central square of a picture, or its central `crop` pixels, resized: uint8 (C, H, W).

        Raises:
            ValueError: when its pixels have no scale, or it is smaller than `crop`.
        """
        image = flatten(image, self.background).convert("L" if self.channels == 1 else "RGB")
        side = crop or min(image.size)
        if side > min(image.size):
            raise ValueError(f"{image.width} x {image.height} pixels, of which the central {side} are to be taken")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if image.size != (self.size, self.size):
            box = (left, top, left + side, top + side)
            image = image.resize((self.size, self.size), Image.Resampling[self.resize.upper()], box=box)
        return np.array(image).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)

    def remarks(self, image: Image.Image, crop: int | None = None) -> list[str]:
        """The kinds of `REMARKS` that hold for a picture, of which only the header is read."""
        holds = {
            "transparent": image.has_transparency_data,
            "deep": image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ())),
            "frames": getattr(image, "is_animated", False),
            "cropped": crop is None and image.width != image.height,
            "small": (crop or min(image.size)) < self.size,
        }
        return [kind for kind, held in holds.items() if held]

    def say(self, kind: str) -> str:
        """What is said of pictures that a remark holds for."""
        return REMARKS[kind].format(background=self.background, size=self.size)


def flatten(image: Image.Image, background: str = "white") -> Image.Image:
    """A picture with opaque pixels of 8 bits, turned as its camera says: "1", L, RGB or what converts to them.

    Gray levels of more bits are scaled, and transparent pixels composited on a background.

    Raises:
        ValueError: when the value of white is not known: of floats, and of integers of 32 bits.
    """
    white = _white(image)
    inverted = getattr(image, "tag_v2", {}).get(262) == 0  # TIFF 6.0, PhotometricInterpretation: WhiteIsZero
    image = ImageOps.exif_transpose(image)
    image = image if white is None else _scale(image, white, inverted)
    if not image.has_transparency_data:
        return image
    opaque = Image.new("RGBA", image.size, ImageColor.getrgb(background)[:3])
    return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")


def _white(image: Image.Image) -> int | None:
    """The value of white of a picture with more than 8 bits, None of others."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose white is not known: save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return None
    tags = getattr(image, "tag_v2", {})
    bits, signed = int(tags.get(258, (16,))[0]), 2 in tuple(tags.get(339, ()))  # TIFF 6.0, BitsPerSample, SampleFormat
    if bits > 16 or signed:
        kind = "signed integers" if signed else f"integers of {bits} bits"
        raise ValueError(f"its pixels are {kind}, whose white is not known: save it with 8 or 16 bits")
    return int(2**bits - 1)


def _scale(image: Image.Image, white: int, inverted: bool) -> Image.Image:
    """Gray levels of 8 bits, black and white exchanged where they are; a transparent level stays transparent."""
    pixels = np.asarray(image).astype(np.float64)
    levels = (pixels * (255 / white)).round().clip(0, 255).astype(np.uint8)
    scaled = Image.fromarray(255 - levels if inverted else levels)
    if "transparency" in image.info:
        scaled.putalpha(Image.fromarray(np.where(pixels == image.info["transparency"], 0, 255).astype(np.uint8)))
    return scaled


def is_gray(image: Image.Image) -> bool:
    """Whether a picture has no colors by its header or, with a palette, by those in it."""
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


@contextmanager
def open_picture(path: Path, source: Callable[[], Path | BytesIO | IO[bytes]] | None = None) -> Iterator[Image.Image]:
    """A picture.

    Args:
        path: of it.
        source: reads it where it is a member of an archive rather than a file.

    Raises:
        UserError: naming the picture if it cannot be read, or what is done with it raises anything else.
    """
    try:
        with Image.open(source() if source else path) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # damaged pictures and zips make their readers raise almost anything
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} cannot be read: {reason}. Remove or replace it") from error
