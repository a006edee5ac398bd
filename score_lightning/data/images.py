"""Sets of images: uint8 tensors in memory, and pictures on disk that are decoded when a batch asks for them."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from score_lightning.errors import UserError
from score_lightning.runtime.memory import check_bytes


class ImageSet(Dataset[Tensor]):
    """Images in memory: `images` uint8 (N, C, H, W), `labels` int64 (N,) or None."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        # many times faster than indexing
        return self.images[indices] if isinstance(indices, slice) else self.images.index_select(0, indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return tuple(self.images.shape[1:])

    def subset(self, indices: Tensor) -> Self:
        """The images at the indices."""
        return type(self)(self.images[indices], None if self.labels is None else self.labels[indices])

    @cached_property
    def sha256(self) -> str:
        """Hash of the images and their order; labels are no part of it."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        for part in self.images.split(10_000):
            digest.update(part.contiguous().numpy())
        return digest.hexdigest()


class LazyImageSet(ImageSet):
    """Pictures that are decoded whenever a batch needs them.

    Args:
        files: the pictures.
        labels: int64, one for each, or None.
        order: which of them, in which order; all when None.
    """

    def __init__(self, files: "ImageFiles", labels: Tensor | None = None, order: Tensor | None = None) -> None:
        self._files, self.labels = files, labels
        self._order = torch.arange(len(files)) if order is None else order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return self._files.decode(self._order[indices].tolist())

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return (self._files.shape.channels, self._files.shape.size, self._files.shape.size)

    @cached_property
    def sha256(self) -> str:
        """Hash of the files, their order and the shape that they are decoded to."""
        digest = hashlib.sha256(f"{self._files.shape} {self._files.crop} {len(self)}".encode())
        for content in self._files.contents(self._order.tolist()):
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the decoded images."""
        return len(self) * self._files.shape.channels * self._files.shape.size**2

    def load(self) -> ImageSet:
        """The same images in memory."""
        return ImageSet(self._files.decode(self._order.tolist(), progress=True), self.labels)

    def subset(self, indices: Tensor) -> Self:
        """The images at the indices."""
        return type(self)(self._files, None if self.labels is None else self.labels[indices], self._order[indices])


Resize = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Shape:
    """Size (height and width in pixels) and channels that images are converted to.

    Args:
        size, channels: of the result.
        resize: `bicubic` or `bilinear` interpolation, of the mean over each pixel's surroundings where it is smaller.
    """

    size: int
    channels: int
    resize: Resize = "bicubic"

    def fit(self, image: Image.Image, crop: int | None = None) -> np.ndarray:
        """The central square of a picture, or its central `crop` pixels, resized: uint8 (C, H, W)."""
        image = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
        side = crop or min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if image.size != (self.size, self.size):
            box = (left, top, left + side, top + side)
            image = image.resize((self.size, self.size), Image.Resampling[self.resize.upper()], box=box)
        return np.array(image).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)


@contextmanager
def open_picture(path: Path, source: Callable[[], Path | BytesIO] | None = None) -> Iterator[Image.Image]:
    """A picture.

    Args:
        path: of it.
        source: reads it where it is a member of an archive rather than a file.

    Raises:
        UserError: naming the picture if it cannot be read.
    """
    try:
        with Image.open(source() if source else path) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # damaged pictures and zips make their readers raise almost anything
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path} cannot be read: {reason}. Remove or replace it") from error


@dataclass(frozen=True)
class ImageFiles:
    """Pictures in a folder or a zip file, decoded to one shape.

    Args:
        root: the folder, or the zip.
        names: paths of the pictures below it.
        shape: what they are decoded to.
        crop: side of the central square that is taken of each picture, the largest possible when None.
    """

    root: Path
    names: list[str]
    shape: Shape
    crop: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, indices: Sequence[int], progress: bool = False) -> Tensor:
        """uint8 (N, C, H, W).

        Raises:
            UserError: naming the picture that cannot be read.
        """
        images = torch.empty(len(indices), self.shape.channels, self.shape.size, self.shape.size, dtype=torch.uint8)
        archive = zipfile.ZipFile(self.root) if self.root.is_file() else None
        with ThreadPoolExecutor() as pool:
            arrays = pool.map(lambda i: self._decode(self.names[i], archive), indices)
            bar = tqdm(
                arrays, f"reading {self.root.name}", len(indices), disable=None if progress else True, leave=False
            )
            for row, array in zip(images, bar, strict=True):
                row.copy_(torch.from_numpy(array))
        return images

    @contextmanager
    def open(self, name: str, archive: zipfile.ZipFile | None = None) -> Iterator[Image.Image]:
        """A picture.

        Raises:
            UserError: naming the picture if it cannot be read.
        """
        with open_picture(self.root / name, lambda: BytesIO(self._content(name, archive))) as image:
            yield image

    def contents(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The files' bytes, undecoded.

        Raises:
            UserError: naming the file that cannot be read.
        """
        archive = zipfile.ZipFile(self.root) if self.root.is_file() else None
        for i in indices:
            try:
                yield self._content(self.names[i], archive)
            except (OSError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
                raise UserError(f"{self.root / self.names[i]} cannot be read: {error}") from error

    def _content(self, name: str, archive: zipfile.ZipFile | None) -> bytes:
        if archive is not None:
            check_bytes(archive.getinfo(name).file_size, "its contents")
            return archive.read(name)
        if self.root.is_file():
            with zipfile.ZipFile(self.root) as opened:
                return self._content(name, opened)
        return (self.root / name).read_bytes()

    def _decode(self, name: str, archive: zipfile.ZipFile | None) -> np.ndarray:
        with self.open(name, archive) as image:
            return self.shape.fit(image, self.crop)
