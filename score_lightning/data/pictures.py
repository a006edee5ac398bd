"""From picture files to arrays of one shape and depth, whatever depth, palette or transparency they have.

Whatever changes a picture beyond that is a remark, such as transparent pixels, and is reported before the work.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from score_lightning.data.pixels import EIGHT_BITS, Depth, array_dtype
from score_lightning.data.rasters import Raster, convert, read_raster, resized
from score_lightning.errors import UserError

Resize = Literal["bicubic", "bilinear", "lanczos"]
UNREADABLE = ("BUFR", "EPS", "FPX", "GRIB", "HDF5", "MIC", "MPEG", "WMF")
"""Formats that Pillow names without reading them, or reads with a program outside of it only."""
REMARKS = {
    "transparent": "with an alpha channel, composited on images.background={background}",
    "deep": "of more than 8 bits, reduced to 8 (images.depth=16 keeps them)",
    "frames": "with several frames, of which the first one is taken",
    "cropped": "not {aspect}, cropped to the central {part}",
    "small": "smaller than {width} x {height} pixels, enlarged",
}
"""Kind of remark -> what is said of the pictures that it holds for."""
Picture = Image.Image | Raster
Source = Callable[[], BytesIO | IO[bytes]]
Size = int | tuple[int, int]
"""Of a square, or (height, width), in pixels."""


@cache
def suffixes() -> tuple[str, ...]:
    """Those of all picture formats that Pillow reads here, sorted; in lower case, with their dot."""
    known = Image.registered_extensions()
    return tuple(sorted(s for s, name in known.items() if name in Image.OPEN and name not in UNREADABLE))


@dataclass(frozen=True)
class Shape:
    """Size, channels and depth that images are converted to.

    Args:
        size, channels: of the result.
        resize: `bicubic`, `bilinear` or `lanczos` interpolation, wider by the same factor where the result is smaller.
        background: color that transparent pictures are composited on, as Pillow reads it: a name or #rrggbb.
        depth: how pixels are stored.
    """

    size: Size
    channels: int
    resize: Resize = "bicubic"
    background: str = "white"
    depth: Depth = EIGHT_BITS

    @property
    def height(self) -> int:
        """In pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)

    @property
    def of_rasters(self) -> bool:
        """Whether pictures are read as rasters: other ones than Pillow's of 8 bits, gray or in color."""
        return self.depth != EIGHT_BITS or self.channels not in (1, 3)

    def fit(self, image: Picture, crop: int | None = None) -> np.ndarray:
        """The center of a picture, of the aspect of this shape, resized: (C, H, W) of the depth's type.

        Args:
            image: the picture.
            crop: side of the central square that is taken first; none when None.

        Raises:
            ValueError: when its pixels have no scale, do not suit the shape, or it is smaller than `crop`.
        """
        if isinstance(image, Raster):
            background = ImageColor.getrgb(self.background)
            pixels = convert(image, self.channels, self.depth, background)
            fitted = resized(pixels, (self.width, self.height), self.resize, self._box(image.size, crop))
            fitted = fitted.clip(self.depth.black, self.depth.white)
            whole = fitted if self.depth.levels is None else fitted.round()
            return np.ascontiguousarray(whole.transpose(2, 0, 1).astype(array_dtype(self.depth.dtype)))
        image = flatten(image, self.background).convert("L" if self.channels == 1 else "RGB")
        box = self._box(image.size, crop)
        if box != (0, 0, self.width, self.height) or image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Image.Resampling[self.resize.upper()], box=box)
        return np.array(image).reshape(self.height, self.width, self.channels).transpose(2, 0, 1)

    def _box(self, size: tuple[int, int], crop: int | None) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the largest box of this aspect in the center of a picture, or of its crop."""
        if crop is not None and crop > min(size):
            raise ValueError(f"{size[0]} x {size[1]} pixels, of which the central {crop} are to be taken")
        width, height = size if crop is None else (crop, crop)
        width, height = self._within(width, height)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return left, top, left + width, top + height

    def _within(self, width: int, height: int) -> tuple[int, int]:
        """The largest (width, height) of this aspect, in whole pixels, within those."""
        return (
            max(1, min(width, round(height * self.width / self.height))),
            max(1, min(height, round(width * self.height / self.width))),
        )

    def remarks(self, image: Picture, crop: int | None = None) -> list[str]:
        """The kinds of `REMARKS` that hold for a picture; of Pillow's only the header is read."""
        taken = self._within(*(image.size if crop is None else (crop, crop)))
        if isinstance(image, Raster):
            transparent = image.alpha and image.channels != self.channels
            deep, frames = image.white is not None and image.white > 255 and self.depth.bits == 8, image.frames
        else:
            transparent, frames = image.has_transparency_data, getattr(image, "is_animated", False)
            deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        holds = {
            "transparent": transparent,
            "deep": deep,
            "frames": frames,
            "cropped": crop is None and taken != image.size,
            "small": taken[0] < self.width or taken[1] < self.height,
        }
        return [kind for kind, held in holds.items() if held]

    def notes(self, remarks: Mapping[str, int]) -> list[str]:
        """What is said of pictures, of the numbers of those that remarks hold for."""
        return [
            f"{count:,} picture{'' if count == 1 else 's'} {self.say(kind)}" for kind, count in sorted(remarks.items())
        ]

    def say(self, kind: str) -> str:
        """What is said of pictures that a remark holds for."""
        square = self.width == self.height
        aspect = f"{self.width}:{self.height}"
        return REMARKS[kind].format(
            background=self.background,
            width=self.width,
            height=self.height,
            aspect="square" if square else f"of the aspect {aspect}",
            part="square" if square else aspect,
        )


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
        raise ValueError(
            "its pixels are floats, whose white is not known: set images.depth=float and images.input_range, or save "
            "it with 8 or 16 bits"
        )
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
def open_picture(path: Path, source: Source | None = None) -> Iterator[Image.Image]:
    """A picture as Pillow reads it.

    Args:
        path: of it.
        source: reads it where it is a member of an archive rather than a file.

    Raises:
        UserError: naming the picture if it cannot be read, or what is done with it raises anything else.
    """
    with naming_picture(path), Image.open(source() if source else path) as image:
        yield image


@contextmanager
def open_raster(path: Path, source: Source | None = None, channels: int | None = None) -> Iterator[Raster]:
    """A picture with all its bits and channels, of which so many are expected; else as `open_picture`."""
    with naming_picture(path), source() if source else path.open("rb") as file:
        yield read_raster(file, channels)


@contextmanager
def naming_picture(path: Path) -> Iterator[None]:
    """Turns whatever is raised of a picture into a message that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged pictures and zips make their readers raise almost anything
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} cannot be read: {reason}. Remove or replace it") from error
