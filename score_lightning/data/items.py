"""Images in memory, of Pillow, PyTorch or NumPy, and the items of data sets that hold them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from score_lightning.data.arrays import channels_last
from score_lightning.data.pictures import Picture, Shape
from score_lightning.data.rasters import raster_of, to_raster
from score_lightning.errors import UserError

EXPECTED = "expected a picture of Pillow, a tensor (C, H, W) or (H, W), an array (H, W), (H, W, C) or (C, H, W)"


def to_picture(item: object, shape: Shape) -> Picture:
    """An image in memory as a shape takes it.

    Args:
        item: Pillow's, a tensor (C, H, W) or (H, W), or an array (H, W), (H, W, C) or (C, H, W).
        shape: that it will be brought to.

    Raises:
        ValueError: when it is none, or the value of its white is not known.
    """
    if isinstance(item, Image.Image):
        return to_raster(item) if shape.of_rasters else item
    if not isinstance(item, Tensor | np.ndarray):
        raise ValueError(f"it is of type {type(item).__name__}: {EXPECTED}")
    pixels = item.detach().cpu().numpy() if isinstance(item, Tensor) else item
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(f"it has the shape {pixels.shape}: {EXPECTED}")
    first = isinstance(item, Tensor) or not channels_last(pixels.shape, shape.dimensions)
    if pixels.ndim == 3 and first:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint8 and not shape.of_rasters and (pixels.ndim == 2 or pixels.shape[2] == 3):
        return Image.fromarray(np.ascontiguousarray(pixels))
    return raster_of(pixels)


@dataclass(frozen=True)
class Items(Dataset[Any]):
    """The items of a data set, brought to a shape; of one that cannot be, what is wrong with it."""

    dataset: Dataset[Any]
    shape: Shape
    classes: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int | None, list[str]] | str:
        if index >= len(self):
            raise IndexError(index)
        try:
            image, label = self._take_apart(self.dataset[index])
            picture = to_picture(image, self.shape)
            return self.shape.fit(picture), self._number(label), self.shape.remarks(picture)
        except Exception as error:  # whatever its code raises; a worker would send a traceback, too
            reason = error if isinstance(error, ValueError | UserError) else f"{type(error).__name__}: {error}"
            return f"item {index} of the data set cannot be used: {reason}"

    def _take_apart(self, item: Any) -> tuple[object, object]:
        """(image, label or None)."""
        if isinstance(item, dict):
            if "image" not in item:
                raise ValueError(f"it has no key 'image', but {', '.join(map(repr, item)) or 'none'}")
            return item["image"], item.get("label")
        if isinstance(item, tuple | list):
            if len(item) not in (1, 2):
                raise ValueError(f"it has {len(item)} parts, expected (image, label) or (image,)")
            return item[0], item[1] if len(item) == 2 else None
        return item, None

    def _number(self, label: Any) -> int | None:
        if label is None:
            return None
        array = np.asarray(label.cpu() if isinstance(label, Tensor) else label)
        if array.ndim or array.dtype.kind not in "iub":
            raise ValueError(f"its label must be a whole number, got {label!r}")
        if array < 0 or (self.classes is not None and array >= len(self.classes)):
            end = "" if self.classes is None else f" to {len(self.classes) - 1}, of {len(self.classes)} classes"
            raise ValueError(f"its label must be a number from 0{end}, got {int(array)}")
        return int(array)
