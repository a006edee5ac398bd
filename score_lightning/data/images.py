"""Images on disk and in memory: uint8 tensors, pictures in folders and zip files, NumPy files."""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from score_lightning.errors import UserError
from score_lightning.runtime.memory import check_bytes

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


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
    """Pictures that are decoded whenever a batch asks for them.

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
        """Hash of the files, their order and the shape that they are brought to."""
        digest = hashlib.sha256(f"{self._files.shape} {self._files.crop} {len(self)}".encode())
        for content in self._files.contents(self._order.tolist()):
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        """What the decoded images take."""
        return len(self) * self._files.shape.channels * self._files.shape.size**2

    def load(self) -> ImageSet:
        """The same images in memory."""
        return ImageSet(self._files.decode(self._order.tolist(), progress=True), self.labels)

    def subset(self, indices: Tensor) -> Self:
        """The images at the indices."""
        return type(self)(self._files, None if self.labels is None else self.labels[indices], self._order[indices])


@dataclass(frozen=True)
class Shape:
    """Size (height and width in pixels) and channels that images are brought to."""

    size: int
    channels: int

    def fit(self, image: Image.Image, crop: int | None = None) -> np.ndarray:
        """The central square of a picture, or its central `crop` pixels, resized: uint8 (C, H, W)."""
        image = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
        side = crop or min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if image.size != (self.size, self.size):
            box = (left, top, left + side, top + side)
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return np.array(image).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)


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
        try:
            with Image.open(BytesIO(self._content(name, archive))) as image:
                yield image
        except UserError:
            raise
        except Exception as error:  # damaged pictures and zips make their readers raise almost anything
            raise unreadable(self.root / name, error) from error

    def contents(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The files as they are.

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


def unreadable(picture: Path, error: Exception) -> UserError:
    """The mistake of a picture whose reader raised `error`."""
    reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
    return UserError(f"{picture} cannot be read: {reason}. Remove or replace it")


def list_pictures(path: Path) -> list[str]:
    """Sorted names of all pictures below a folder or in a zip file, hidden ones left out.

    Raises:
        UserError: when the path does not exist, is no zip, or holds no pictures.
    """
    if path.is_dir():
        names = [str(file.relative_to(path).as_posix()) for file in path.rglob("*") if file.is_file()]
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise UserError(f"{path} is a damaged zip file: {error}") from error
    elif path.is_file():
        raise UserError(f"{path} is neither a folder nor a zip file (or the zip is damaged)")
    else:
        raise UserError(f"{path} does not exist: expected a folder or a zip file of pictures")
    parts = ((name, PurePosixPath(name)) for name in names)
    kept = sorted(
        n for n, p in parts if p.suffix.lower() in SUFFIXES and not any(q[0] == "." or q == "__MACOSX" for q in p.parts)
    )
    if not kept:
        raise UserError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return kept


def shape_of(root: Path, names: Sequence[str]) -> Shape:
    """The one shape of pictures below a folder or in a zip file, which must be squares; in color if any of them is.

    Raises:
        UserError: when one is no square, is of another size than the first, or cannot be read.
    """
    files = ImageFiles(root, list(names), Shape(1, 3))
    archive = zipfile.ZipFile(root) if root.is_file() else None
    size, channels = 0, 1
    for name in tqdm(names, f"looking through {root.name}", disable=None, leave=False):
        with files.open(name, archive) as image:
            size = size or image.width
            if image.width != image.height:
                raise UserError(f"{root / name} has {image.width} x {image.height} pixels; expected squares")
            if image.width != size:
                raise UserError(
                    f"{root / name} has {image.width} x {image.height} pixels, others {size} x {size}: images to "
                    "evaluate must all be of one size; resize them"
                )
            channels = max(channels, 1 if image.mode in ("1", "L", "I;16") else 3)
    return Shape(size, channels)


def class_labels(names: Sequence[str]) -> Tensor | None:
    """int64 (N,) numbers of the class folders that pictures lie in, None where all lie in one folder."""
    classes = [PurePosixPath(name).parent.name for name in names]
    number = {name: i for i, name in enumerate(sorted(set(classes)))}
    return torch.tensor([number[c] for c in classes]) if len(number) > 1 else None


def check_unpacked(path: Path) -> None:
    """Refuses a zip file whose contents are larger than this machine's memory.

    Raises:
        MemoryError: with both sizes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_bytes(sum(entry.file_size for entry in archive.infolist()), f"the contents of {path.name}")


def read_npz(path: Path) -> tuple[Tensor, Tensor | None]:
    """(images uint8 (N, C, H, W), labels int64 (N,) or None) of a NumPy file.

    Raises:
        UserError: when the file is missing, damaged, or has no such arrays.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a .npz file with images (N x H x W [x C], uint8)")
    try:
        check_unpacked(path)
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays.get("labels")
    except Exception as error:  # damaged files make NumPy and zlib raise almost anything
        raise UserError(f"{path} is not a .npz file with an array `images`: {error}") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UserError(
            f"{path}: images must be uint8, N x H x W or N x H x W x C with C of 1 or 3, got "
            f"{images.dtype} {images.shape}"
        )
    if labels is not None and (
        labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or (labels < 0).any()
    ):
        raise UserError(
            f"{path}: labels must be numbers from 0 for the {len(images)} images, got {labels.dtype} {labels.shape}"
        )
    channels_last = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return channels_last.permute(0, 3, 1, 2).contiguous(), None if labels is None else torch.from_numpy(labels).long()
