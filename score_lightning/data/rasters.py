"""Pictures with all their bits and channels, where Pillow would reduce them to 8 bits, gray or color.

TIFF files are read by tifffile and PNG files by imagecodecs; Pillow reads the others.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from score_lightning.data.pixels import Depth, array_dtype

LUMA = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue (ITU-R BT.601), as Pillow turns colors to gray."""
ORIENTATION, ON_ITS_SIDE = 274, (5, 6, 7, 8)  # TIFF 6.0 and Exif; of pictures that are turned by a right angle
EXTRA_SAMPLES, ALPHA = 338, (1, 2)  # TIFF 6.0; values of channels that are opacity
UNKNOWN_WHITE = "whose white is not known: save it with 8 or 16 bits, or as floats"


@dataclass(frozen=True)
class Raster:
    """A picture.

    Args:
        pixels: (H, W, C), uint8, uint16 or float32.
        white: the value of white, 2^bits - 1; None of floats.
        alpha: whether the last channel is opacity.
        frames: whether the file has more of them.
    """

    pixels: np.ndarray
    white: int | None
    alpha: bool = False
    frames: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow has it."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def channels(self) -> int:
        """How many there are, that of opacity among them."""
        return int(self.pixels.shape[2])


def read_raster(file: IO[bytes], channels: int | None = None) -> Raster:
    """The picture in a file.

    Args:
        file: opened for reading.
        channels: expected; a TIFF file of as many pages has one on each, of others the first page is taken.

    Raises:
        ValueError: when the value of its white is not known.
    """
    data = file.read()
    if data[:2] in (b"II", b"MM"):
        return _tiff(data, channels)
    if data[:4] == b"\x89PNG":
        return _png(data)
    return _pillow(data)


def _pillow(data: bytes) -> Raster:
    with Image.open(BytesIO(data)) as image:
        return to_raster(image)


def to_raster(image: Image.Image) -> Raster:
    """An open picture of Pillow's, with the bits and channels that are left of it.

    Raises:
        ValueError: when the value of its white is not known.
    """
    turned, frames = ImageOps.exif_transpose(image), getattr(image, "is_animated", False)
    if turned.mode not in ("L", "LA", "RGB", "RGBA", "F") and not turned.mode.startswith("I;16"):
        turned = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    pixels = np.asarray(turned)
    return raster_of(pixels, None, turned.mode in ("LA", "RGBA"), frames)


def _png(data: bytes) -> Raster:
    import imagecodecs

    with Image.open(BytesIO(data)) as image:
        if image.mode in ("P", "1"):
            return _pillow(data)
        orientation = image.getexif().get(ORIENTATION, 1)
    pixels = imagecodecs.png_decode(data)
    return raster_of(_turned(pixels, orientation), None, pixels.ndim == 3 and pixels.shape[2] in (2, 4))


def _tiff(data: bytes, channels: int | None) -> Raster:
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as tiff:
        series, page = tiff.series[0], tiff.pages.first
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return _pillow(data)
        pixels, axes = series.asarray(), series.axes
        tags = {code: page.tags.valueof(code) for code in (ORIENTATION, EXTRA_SAMPLES)}
        bits, inverted = int(page.bitspersample), page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    frames = False
    for axis in axes[: -2 if axes.endswith("YX") else -3]:
        if axis not in "CS" and (len(axes) > 3 or pixels.shape[0] != channels):  # pages that are no channels
            frames, pixels, axes = frames or len(pixels) > 1, pixels[0], axes[1:]
    if axes.endswith("YX") and len(axes) == 3:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"its axes are {axes} of {pixels.shape}: save it with one channel after another")
    white = 2**bits - 1 if pixels.dtype.kind == "u" else None
    if inverted and white is not None:
        pixels = white - pixels
    extra = tags[EXTRA_SAMPLES] or ()
    alpha = any(kind in ALPHA for kind in (extra if isinstance(extra, tuple) else (extra,)))
    return raster_of(_turned(pixels, tags[ORIENTATION] or 1), white, alpha, frames)


def raster_of(pixels: np.ndarray, white: int | None = None, alpha: bool = False, frames: bool = False) -> Raster:
    """A raster of pixels (H, W [, C]) of any type.

    Args:
        pixels: of it.
        white: its value; the largest of unsigned integers when None.
        alpha, frames: as in `Raster`.

    Raises:
        ValueError: when the value of white is not known.
    """
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.dtype.kind == "b":
        return Raster(pixels.astype(np.uint8) * 255, 255, alpha, frames)
    if pixels.dtype.kind == "f":
        return Raster(pixels.astype(np.float32), None, alpha, frames)
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise ValueError(f"its pixels are {pixels.dtype}, {UNKNOWN_WHITE}")
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    return Raster(native, white or 2 ** (8 * native.dtype.itemsize) - 1, alpha, frames)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W [, C]) as the camera says (Exif 2.3, Orientation)."""
    if orientation in ON_ITS_SIDE:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def convert(raster: Raster, channels: int, depth: Depth, background: tuple[int, ...]) -> np.ndarray:
    """(H, W, C) float64, the stored values of a raster's pixels in so many channels, not yet rounded.

    Args:
        raster: the picture.
        channels: of the result. Gray is repeated and colors are turned to gray; opacity that is none of them is
            applied, before the background.
        depth: of the result. Integers are scaled to its range; they are taken as they are where the range is one of its
            own, and floats always.
        background: red, green and blue, of 255.

    Raises:
        ValueError: when there are other channels, or pixels that the depth does not hold.
    """
    pixels = _scaled(raster, depth)
    if raster.alpha and raster.channels != channels:
        pixels, opacity = pixels[..., :-1], (pixels[..., -1:] - depth.black) / (depth.white - depth.black)
        behind = np.array(background[:3]) / 255 * (depth.white - depth.black) + depth.black
        behind = behind if pixels.shape[2] == 3 else (behind @ LUMA)[None]
        pixels = opacity * pixels + (1 - opacity) * behind
    if pixels.shape[2] == channels:
        return pixels
    if (pixels.shape[2], channels) == (1, 3):
        return pixels.repeat(3, 2)
    if (pixels.shape[2], channels) == (3, 1):
        return (pixels @ LUMA)[..., None]
    raise ValueError(f"it has {raster.channels} channels: set images.channels={raster.channels}, or convert it")


def _scaled(raster: Raster, depth: Depth) -> np.ndarray:
    pixels, kind = raster.pixels.astype(np.float64), raster.pixels.dtype
    if kind != array_dtype(depth.dtype) or depth.whole:
        if raster.white is None:
            raise ValueError("its pixels are floats: set images.depth=float and images.input_range=[black,white]")
        if not depth.whole and not depth.dtype.is_floating_point:
            raise ValueError(f"its pixels are {kind}, those of images.depth and images.input_range are {depth}")
        return pixels * ((depth.white - depth.black) / raster.white) + depth.black
    if not np.isfinite(pixels).all() or pixels.min() < depth.black or pixels.max() > depth.white:
        raise ValueError(f"its pixels reach from {pixels.min():g} to {pixels.max():g}, images.input_range has {depth}")
    return pixels


def resized(pixels: np.ndarray, size: tuple[int, int], method: str, box: tuple[int, int, int, int]) -> np.ndarray:
    """(height, width, C) of pixels (H, W, C) within a box (left, top, right, bottom), by Pillow, in float32."""
    left, top, right, bottom = box
    if (right - left, bottom - top) == size:
        return pixels[top:bottom, left:right]
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(pixels, 2, 0)]
    filtered: list[Any] = [plane.resize(size, Image.Resampling[method.upper()], box=box) for plane in planes]
    return np.stack([np.asarray(plane) for plane in filtered], 2)
