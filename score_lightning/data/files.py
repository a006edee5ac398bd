"""Images on disk: what lies in folders, zip files and NumPy files, before any picture is decoded."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.images import ImageFiles, Shape
from score_lightning.errors import UserError
from score_lightning.runtime.memory import check_bytes

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


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
    names = sorted(
        n for n, p in parts if p.suffix.lower() in SUFFIXES and not any(q[0] == "." or q == "__MACOSX" for q in p.parts)
    )
    if not names:
        raise UserError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return names


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
