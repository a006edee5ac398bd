"""Images, labels and statistics in NumPy's and PyTorch's files."""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_lightning.data.pixels import Depth, whole_depth
from score_lightning.errors import UserError
from score_lightning.formats.files import NUMBERS
from score_lightning.runtime.memory import check_bytes

ARRAYS = {".npz", ".npy", ".pt", ".pth", ".pkl"}
"""The endings of files of arrays; those of the last are refused with what to do."""
STORED = (np.uint8, np.uint16, np.float32)
"""Types of pixels."""


def check_unpacked(path: Path) -> None:
    """Refuses a zip file whose contents are larger than this machine's memory.

    Raises:
        MemoryError: with both sizes.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_bytes(sum(entry.file_size for entry in archive.infolist()), f"the contents of {path.name}")


@contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays in a .npz, .npy or .pt file by name; one without a name is arr_0, as np.savez has it.

    Those of a .npz file are read when they are asked for. No code in a file is run.

    Raises:
        UserError: when the file is missing, a pickle or damaged, which may turn out inside the `with` block only.
    """
    kind = path.suffix if path.suffix in ARRAYS else ".npz"
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a .npz, .npy or .pt file of images or statistics")
    if kind == ".pkl":
        raise UserError(
            f"{path} is a pickle, which may run code when it is read, so it was not read. Where you trust it: "
            f"python -c \"import numpy, pickle; s = pickle.load(open('{path.name}', 'rb')); "
            "numpy.savez('statistics.npz', mu=s['mu'], sigma=s['sigma'])\""
        )
    try:
        check_unpacked(path)
        if kind == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                yield arrays
        else:
            yield _named(np.load(path, allow_pickle=False) if kind == ".npy" else _load_tensors(path))
    except UserError:
        raise
    except Exception as error:  # damaged files make NumPy, zlib and PyTorch raise almost anything
        reason = f": {error}" if isinstance(error, MemoryError | OSError) else ""
        raise UserError(f"{path} is not a {kind} file of numbers alone, or damaged{reason}") from error


def _load_tensors(path: Path) -> Any:
    with torch.serialization.safe_globals(NUMBERS), warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _named(loaded: Any) -> dict[str, np.ndarray]:
    named = loaded if isinstance(loaded, dict) else {"arr_0": loaded}
    return {str(name): np.asarray(a) for name, a in named.items() if isinstance(a, Tensor | np.ndarray)}


def read_arrays(
    path: Path, shape: tuple[int, ...] | None = None, name: str | None = None
) -> tuple[Tensor, Tensor | None]:
    """(images (N, C, H, W), labels int64 (N,) or None) of a .npz, .npy or .pt file.

    Images are uint8, uint16 or float32, (N, H, W), (N, H, W, C) or (N, C, H, W): whichever has the shape (C, H, W), and
    without one that in which there are fewer channels than pixels. They are named `images` and the labels `labels`, or
    arr_0 and, where they are whole numbers, one for each image, arr_1, as guided-diffusion writes them; or the images
    have another name, and no labels.

    Raises:
        UserError: when the file is missing, damaged, or has no such arrays.
    """
    with open_arrays(path) as arrays:
        expected = "`images` or arr_0" if name is None else f"`{name}`"
        name = name or ("images" if "images" in arrays else "arr_0")
        if name not in arrays:
            raise UserError(f"{path} has no images: expected an array {expected}, got {', '.join(arrays) or 'none'}")
        images, labels = arrays[name], arrays.get({"images": "labels", "arr_0": "arr_1"}.get(name, ""))
    if images.dtype not in STORED or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        remedy = ": save them as float32" if images.dtype.kind == "f" else ""
        raise UserError(
            f"{path}: {'images' if name == 'arr_0' else name} must be uint8, uint16 or float32, N x H x W, "
            f"N x H x W x C or N x C x H x W, got {images.dtype} {images.shape}{remedy}"
        )
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    whole = labels is not None and labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    if labels is None or (name == "arr_0" and not whole):
        return _channels_first(images, shape), None
    if not whole or (labels < 0).any():
        raise UserError(
            f"{path}: labels must be numbers from 0 for the {len(images)} images, got {labels.dtype} {labels.shape}"
        )
    return _channels_first(images, shape), torch.from_numpy(labels.astype(np.int64))  # of the machine's byte order


def _channels_first(images: np.ndarray, shape: tuple[int, ...] | None) -> Tensor:
    stored = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return (stored.permute(0, 3, 1, 2) if channels_last(stored.shape[1:], shape) else stored).contiguous()


def channels_last(dimensions: tuple[int, ...], shape: tuple[int, ...] | None) -> bool:
    """Whether an array (H, W, C) or (C, H, W) has its channels last; (H, W) counts as such.

    Args:
        dimensions: of the array.
        shape: (C, H, W) as expected; where it is neither, or None, what is gray or in color for certain has its
            channels there, else fewer channels than pixels.
    """
    if len(dimensions) == 2:
        return True
    height, width, channels = dimensions
    if shape is not None and shape in ((channels, height, width), dimensions):
        return shape == (channels, height, width)
    return channels in (1, 3) or (height not in (1, 3) and channels <= height)


def depth_of(path: Path, images: Tensor, depth: Depth | None = None) -> Depth:
    """How images that were read from a file are stored.

    Args:
        path: of the file.
        images: of any shape.
        depth: as they are expected; as their type is when None.

    Raises:
        UserError: when they are of another type, or not within its range.
    """
    if depth is None and not images.dtype.is_floating_point:
        return whole_depth(images.dtype)
    same_type = depth is not None and images.dtype == depth.dtype
    if depth is not None and same_type and (depth.whole or not len(images)):
        return depth
    low, high = (float(end) for end in (images.numpy().min(), images.numpy().max())) if len(images) else (0.0, 0.0)
    ends = f"from {low:g} to {high:g}"
    if depth is None or not same_type:
        floats = images.dtype.is_floating_point
        more = " and images.input_range=[black,white]" if floats else ""
        name = "float" if floats else 8 * images.dtype.itemsize
        raise UserError(f"{path} holds pixels of type {images.numpy().dtype}, {ends}: set images.depth={name}{more}")
    if not (low >= depth.black and high <= depth.white):  # nor where they are NaN
        raise UserError(f"{path} holds pixels {ends}, images.input_range has {depth}: set it to hold them all")
    return depth
