"""Where images come from: each source gives those for training and those held out for validation."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from score_lightning.data import toy
from score_lightning.data.images import ImageFiles, ImageSet, LazyImageSet, Shape, class_labels, list_pictures, read_npz
from score_lightning.errors import UserError
from score_lightning.runtime.memory import check_bytes
from score_lightning.runtime.randomness import generator

MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images above which a folder is decoded batch by batch

Split = tuple[ImageSet, ImageSet]
Images = TypeVar("Images", bound=ImageSet)


def hold_out(images: Images, fraction: float) -> tuple[Images, Images]:
    """(training, validation) images, the latter a fixed random share of at least one image.

    Raises:
        UserError: when fewer than two images are there or the fraction is not between 0 and 1.
    """
    if len(images) < 2 or not 0 < fraction < 1:
        raise UserError(
            f"data.validation must be between 0 and 1 and leave images on both sides, got {fraction} of "
            f"{len(images)} images"
        )
    order = torch.randperm(len(images), generator=generator("validation split"))
    held = min(max(1, round(fraction * len(images))), len(images) - 1)
    return images.subset(order[held:].sort().values), images.subset(order[:held].sort().values)


def digits(shape: Shape, validation: float = 0.1) -> Split:
    """The 1,797 handwritten digits, 8 x 8 pixels, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    grey = torch.from_numpy(pixels).mul(255 / 16).round().to(torch.uint8).view(-1, 8, 8)
    return hold_out(ImageSet(_fit_arrays(grey.numpy(), shape), torch.from_numpy(labels).long()), validation)


def plane(set: str = "mixture", n: int = 20_000, validation: float = 0.05) -> Split:
    """n points of a data set in the plane or on the line (see `points`)."""
    check_bytes(64 * n, f"{n} points")  # each float32 twice over, in a few copies
    try:
        found = toy.draw(set, n, generator("points", set))
    except ValueError as error:
        raise UserError(f"data.{error}") from error
    return hold_out(ImageSet(found), validation)


def folder(shape: Shape, path: str, validation: float = 0.05) -> Split:
    """Pictures of any size in a folder or a zip file, in class folders or not; the central square, resized."""
    root = Path(path).expanduser()
    names = list_pictures(root)
    train, held = hold_out(LazyImageSet(ImageFiles(root, names, shape), class_labels(names)), validation)
    return decode(train), decode(held)


def npz(shape: Shape, path: str, validation: float = 0.05) -> Split:
    """A NumPy file with `images` uint8 (N, H, W) or (N, H, W, C), and `labels` (N,) if there are any."""
    images, labels = read_npz(Path(path).expanduser())
    if images.shape[1:] != (shape.channels, shape.size, shape.size):
        have = f"{images.shape[2]} x {images.shape[3]} pixels with {images.shape[1]} channels"
        raise UserError(
            f"{path} holds images of {have}, the network takes {shape.size} x {shape.size} with "
            f"{shape.channels}: set images.size and images.channels, or resize the images"
        )
    return hold_out(ImageSet(images, labels), validation)


def torchvision_source(name: str) -> Callable[..., Split]:
    """A source of one of torchvision's data sets that hold their images in memory."""

    def source(shape: Shape, path: str = "data") -> Split:
        import torchvision.datasets

        splits = []
        for train in (True, False):
            found = _download(partial(getattr(torchvision.datasets, name), path, train, download=True), name)
            images = _fit_arrays(np.asarray(found.data), shape)
            splits.append(ImageSet(images, torch.as_tensor(found.targets).long()))
        return splits[0], splits[1]

    return source


def celeba(shape: Shape, path: str = "data", crop: int = 140) -> Split:
    """CelebA's aligned faces: the central 140 pixels, resized (Song & Ermon 2019, Sec. 5)."""
    from torchvision.datasets import CelebA

    splits: list[ImageSet] = []
    for split in ("train", "valid"):
        found = _download(partial(CelebA, path, split, download=True), "CelebA")
        root = Path(found.root) / found.base_folder / "img_align_celeba"
        files = ImageFiles(root, list(found.filename), shape, crop)
        splits.append(decode(LazyImageSet(files)))
    return splits[0], splits[1]


def decode(images: LazyImageSet) -> ImageSet:
    """The images in memory where they fit, as `MEMORY_LIMIT` says; else as they are, decoded batch by batch."""
    return images if images.bytes > MEMORY_LIMIT else images.load()


def _download(load: Callable[[], Any], name: str) -> Any:
    try:
        return load()
    except (OSError, RuntimeError, ImportError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{name} is not in data.path and cannot be downloaded: {error}. Put its files there as torchvision "
            "expects them, or use own images with data=folder data.path=DIR or data=npz data.path=FILE"
        ) from error


def _fit_arrays(arrays: np.ndarray, shape: Shape) -> Tensor:
    """uint8 (N, C, H, W) in the shape asked for, from uint8 (N, H, W [, C])."""
    own = torch.from_numpy(arrays if arrays.ndim == 4 else arrays[..., None]).permute(0, 3, 1, 2)
    if own.shape[1:] == (shape.channels, shape.size, shape.size):
        return own.contiguous()
    return torch.stack([torch.from_numpy(shape.fit(Image.fromarray(array))) for array in arrays])
