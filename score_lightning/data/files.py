"""Images on disk: pictures in folders and zip files, read and decoded one by one."""

import hashlib
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.pictures import Picture, Shape, is_gray, open_picture, open_raster
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.data.rasters import Raster
from score_lightning.errors import UserError
from score_lightning.runtime.memory import check_bytes


@lru_cache(maxsize=8)
def _opened_zip(path: Path, version: tuple[int, int], process: int) -> zipfile.ZipFile:  # noqa: ARG001
    """A zip file with its directory read, once for each of its versions and each process: they share no position."""
    return zipfile.ZipFile(path)


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

    @property
    def decoded_bytes(self) -> int:
        """Size of the decoded images."""
        return len(self) * math.prod(self.shape.dimensions) * self.shape.depth.dtype.itemsize

    def decode(self, indices: Sequence[int], remarks: Counter[str] | None = None) -> Tensor:
        """(N, C, H, W) of the shape's depth; counts the remarks (see `Shape.remarks`) that hold for the pictures.

        Raises:
            UserError: naming the picture that cannot be read.
        """
        images = torch.empty(len(indices), *self.shape.dimensions, dtype=self.shape.depth.dtype)
        with ThreadPoolExecutor() as pool:
            for row, (array, kinds) in zip(images, pool.map(self._decode, indices), strict=True):
                row.copy_(torch.from_numpy(array))
                if remarks is not None:
                    remarks.update(kinds)
        return images

    def remarks(self, indices: Sequence[int]) -> Counter[str]:
        """The remarks that hold for pictures, of which only the headers are read.

        Raises:
            UserError: naming the picture that cannot be read.
        """
        counts: Counter[str] = Counter()
        for i in tqdm(indices, f"looking through {self.root.name}", disable=None, leave=False):
            with self.open(self.names[i]) as image:
                counts.update(self.shape.remarks(image, self.crop))
        return counts

    def notes(self, remarks: Counter[str]) -> list[str]:
        """What is said of pictures that remarks hold for."""
        return self.shape.notes(remarks)

    @contextmanager
    def open(self, name: str) -> Iterator[Picture]:
        """A picture, as the shape needs it.

        Raises:
            UserError: naming the picture if it cannot be read.
        """
        path, source = self.root / name, partial(self._stream, name)
        if self.shape.of_rasters:
            with open_raster(path, source, self.shape.channels) as raster:
                yield raster
        else:
            with open_picture(path, source) as image:
                yield image

    def contents(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The files' bytes, undecoded.

        Raises:
            UserError: naming the file that cannot be read.
        """
        for i in indices:
            try:
                with self._stream(self.names[i]) as stream:
                    yield stream.read()
            except (OSError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
                raise UserError(f"{self.root / self.names[i]} cannot be read: {error}") from error

    @property
    def place(self) -> str:
        """Where they are, unless their version tells them from all others, as the checksums in a zip do."""
        return "" if self.root.is_file() else str(self.root.resolve())

    @property
    def content(self) -> str:
        """Hash of the files' names and sizes, by which they are known again wherever they are moved."""
        return self._hashes[0]

    @property
    def version(self) -> str:
        """Hash of the files' names and sizes, and of the times of their last change, or their checksums in a zip."""
        return self._hashes[1]

    @cached_property
    def _hashes(self) -> tuple[str, str]:
        content, version = hashlib.sha256(), hashlib.sha256()
        for name, size, change in self._states():
            described = repr((name.replace("\\", "/"), size)).encode(errors="surrogateescape")
            content.update(described)
            version.update(described + str(change).encode())
        return content.hexdigest(), version.hexdigest()

    def _states(self) -> Iterator[tuple[str, int, int]]:
        """(name, size in bytes, time of the last change in nanoseconds or checksum) of each file.

        Raises:
            UserError: naming the file that is missing.
        """
        archive = self._archive()
        for name in self.names:
            if archive is not None:
                info = archive.getinfo(name)
                yield name, info.file_size, info.CRC
                continue
            try:
                state = (self.root / name).stat()
            except OSError as error:
                raise UserError(f"{self.root / name} cannot be read: {error.strerror}") from error
            yield name, state.st_size, state.st_mtime_ns

    def _archive(self) -> zipfile.ZipFile | None:
        if not self.root.is_file():
            return None
        state = self.root.stat()
        return _opened_zip(self.root, (state.st_size, state.st_mtime_ns), os.getpid())

    def _stream(self, name: str) -> IO[bytes]:
        archive = self._archive()
        if archive is None:
            return (self.root / name).open("rb")
        check_bytes(archive.getinfo(name).file_size, "its contents")
        return BytesIO(archive.read(name))

    def _decode(self, index: int) -> tuple[np.ndarray, list[str]]:
        with self.open(self.names[index]) as image:
            kinds = self.shape.remarks(image, self.crop)
            return self.shape.fit(image, self.crop), kinds


def shape_of(root: Path, names: Sequence[str], background: str, depth: Depth = EIGHT_BITS) -> Shape:
    """The one shape of pictures below a folder or in a zip file; in color if any of them is.

    Args:
        root: the folder, or the zip file.
        names: of the pictures.
        background: color that transparent ones are composited on.
        depth: how their pixels are to be stored; all channels are counted where that is not with 8 bits.

    Raises:
        UserError: when one is of another size than the first, or cannot be read.
    """
    files = ImageFiles(root, list(names), Shape(1, 3, depth=depth))
    size, channels = None, 1
    for name in tqdm(names, f"looking through {root.name}", disable=None, leave=False):
        with files.open(name) as image:
            size = size or image.size
            if image.size != size:
                raise UserError(
                    f"{root / name} has {image.size[0]} x {image.size[1]} pixels, others {size[0]} x {size[1]}: images "
                    "to evaluate must all be of one size; resize them"
                )
            channels = max(channels, _channels(image))
    assert size is not None
    square = size[0] == size[1]
    return Shape(size[0] if square else (size[1], size[0]), channels, background=background, depth=depth)


def _channels(image: Picture) -> int:
    """Of a raster; of Pillow's pictures 3 for color and 1 for gray."""
    return image.channels if isinstance(image, Raster) else 1 if is_gray(image) else 3
