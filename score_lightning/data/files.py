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
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.pictures import Shape, is_gray, open_picture
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
        return len(self) * math.prod(self.shape.dimensions)

    def decode(self, indices: Sequence[int], remarks: Counter[str] | None = None) -> Tensor:
        """uint8 (N, C, H, W); counts the remarks (see `Shape.remarks`) that hold for the pictures.

        Raises:
            UserError: naming the picture that cannot be read.
        """
        images = torch.empty(len(indices), *self.shape.dimensions, dtype=torch.uint8)
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
        return [
            f"{count:,} picture{'' if count == 1 else 's'} {self.shape.say(kind)}"
            for kind, count in sorted(remarks.items())
        ]

    @contextmanager
    def open(self, name: str) -> Iterator[Image.Image]:
        """A picture.

        Raises:
            UserError: naming the picture if it cannot be read.
        """
        with open_picture(self.root / name, lambda: self._stream(name)) as image:
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


def shape_of(root: Path, names: Sequence[str], background: str) -> Shape:
    """The one shape of pictures below a folder or in a zip file, which must be squares; in color if any of them is.

    Raises:
        UserError: when one is no square, is of another size than the first, or cannot be read.
    """
    files = ImageFiles(root, list(names), Shape(1, 3))
    size, channels = 0, 1
    for name in tqdm(names, f"looking through {root.name}", disable=None, leave=False):
        with files.open(name) as image:
            size = size or image.width
            if image.width != image.height:
                raise UserError(f"{root / name} has {image.width} x {image.height} pixels; expected squares")
            if image.width != size:
                raise UserError(
                    f"{root / name} has {image.width} x {image.height} pixels, others {size} x {size}: images to "
                    "evaluate must all be of one size; resize them"
                )
            channels = max(channels, 1 if is_gray(image) else 3)
    return Shape(size, channels, background=background)
