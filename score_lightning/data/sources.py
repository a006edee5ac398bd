"""Sources of images: each returns those for training and those held out for validation, pictures not yet decoded."""

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
from score_lightning.data.arrays import depth_of, read_arrays
from score_lightning.data.files import ImageFiles, shape_of
from score_lightning.data.images import ImageSet, LazyImageSet, Source
from score_lightning.data.labels import label
from score_lightning.data.listing import list_pictures
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.data.rasters import Raster
from score_lightning.errors import UserError, missing_package
from score_lightning.runtime.memory import check_bytes
from score_lightning.runtime.randomness import generator

Split = tuple[ImageSet, ImageSet]
Images = TypeVar("Images", bound=ImageSet)


def hold_out(images: Images, fraction: float) -> tuple[Images, Images]:
    """(training, validation) images, the latter a fixed random share of at least one image.

    With a fraction of 0 nothing is held out, and both are the same.

    Raises:
        UserError: when fewer than two images are there or the fraction is not between 0 and 1.
    """
    if fraction == 0 and len(images):
        return images, images
    if len(images) < 2 or not 0 < fraction < 1:
        raise UserError(
            "data.validation must be 0 (nothing is held out), or below 1 and leave images on both sides; got "
            f"{fraction} of {len(images)} images"
        )
    order = torch.randperm(len(images), generator=generator("validation split"))
    held = min(max(1, round(fraction * len(images))), len(images) - 1)
    return images.subset(order[held:].sort().values), images.subset(order[:held].sort().values)


def digits(shape: Shape, validation: float = 0.1) -> Split:
    """The 1,797 handwritten digits, 8 x 8 pixels, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).mul(255 / 16).round().to(torch.uint8).view(-1, 8, 8)
    classes = Source(tuple(map(str, range(10))))
    pixels = _fit_arrays(images.numpy(), shape)
    return hold_out(ImageSet(pixels, torch.from_numpy(labels).long(), classes, depth=shape.depth), validation)


def plane(set: str = "mixture", n: int = 20_000, validation: float = 0.05) -> Split:
    """n points of a data set in the plane or on the line (see `toy`)."""
    check_bytes(64 * n, f"{n} points")  # two float32 each, in a few copies
    try:
        points = toy.draw(set, n, generator("points", set))
    except ValueError as error:
        raise UserError(f"data.{error}") from error
    return hold_out(ImageSet(points), validation)


def folder(shape: Shape, path: str, validation: float = 0.05) -> Split:
    """Pictures of any size in a folder or a zip file, in class folders or not; their center, resized."""
    return hold_out(read_pictures(Path(path).expanduser(), shape), validation)


def read_pictures(
    root: Path, shape: Shape | None = None, background: str = "white", depth: Depth = EIGHT_BITS
) -> LazyImageSet:
    """All pictures of a folder or a zip file, in class folders, with labels in dataset.json, or without classes.

    Args:
        root: the folder, or the file.
        shape: that pictures are brought to; without it they must all be of the first one's size.
        background: color that transparent ones are then composited on.
        depth: how their pixels are then stored.

    Raises:
        UserError: when there are none, or none of that size, or their labels cannot be read.
    """
    listing = list_pictures(root)
    classes = label([root], [listing])
    files = ImageFiles(root, listing.names, shape or shape_of(root, listing.names, background, depth))
    source = Source(classes.names, files.content + classes.content, (*listing.notes, *classes.notes))
    return LazyImageSet(files, classes.labels, source)


def python() -> Split:
    """In place of images that were given in Python, which no configuration can find again.

    Raises:
        UserError: always.
    """
    raise UserError(
        "data=python stands for images that were given to train_on in Python: give them again there, or compare with "
        "others by reference=DIR or FILE"
    )


def npz(shape: Shape, path: str, validation: float = 0.05) -> Split:
    """NumPy's file (npz, npy) or PyTorch's (pt) of `images`, and `labels` (N,) if there are any; see `read_arrays`."""
    file = Path(path).expanduser()
    images, labels = read_arrays(file, shape.dimensions)
    if images.shape[1:] != shape.dimensions:
        have = f"{images.shape[2]} x {images.shape[3]} pixels with {images.shape[1]} channels"
        raise UserError(
            f"{path} holds images of {have}, the network takes {shape.height} x {shape.width} with "
            f"{shape.channels}: set images.size and images.channels, or resize the images"
        )
    depth = depth_of(file, images, shape.depth)
    source = Source(content=ImageSet(images, depth=depth).sha256)
    return hold_out(ImageSet(images, labels, source, depth=depth), validation)


def torchvision_source(name: str) -> Callable[..., Split]:
    """The source for a torchvision data set that holds its images in memory."""

    def source(shape: Shape, path: str = "data") -> Split:
        from torchvision import datasets

        splits = []
        for train in (True, False):
            dataset = _download(partial(getattr(datasets, name), path, train, download=True), name)
            images = _fit_arrays(np.asarray(dataset.data), shape)
            source = Source(tuple(map(str, dataset.classes)))
            splits.append(ImageSet(images, torch.as_tensor(dataset.targets).long(), source, depth=shape.depth))
        return splits[0], splits[1]

    return source


def celeba(shape: Shape, path: str = "data", crop: int = 140) -> Split:
    """CelebA's aligned faces: the central 140 pixels, resized (Song & Ermon 2019, Sec. 5)."""
    from torchvision.datasets import CelebA

    splits: list[ImageSet] = []
    for split in ("train", "valid"):
        dataset = _download(partial(CelebA, path, split, download=True), "CelebA")
        root = Path(dataset.root) / dataset.base_folder / "img_align_celeba"
        files = ImageFiles(root, list(dataset.filename), shape, crop)
        splits.append(LazyImageSet(files))
    return splits[0], splits[1]


def _download(load: Callable[[], Any], name: str) -> Any:
    try:
        return load()
    except (OSError, RuntimeError, ImportError, zipfile.BadZipFile) as error:
        if isinstance(error.__context__, ModuleNotFoundError):  # torchvision's error says it without the extra
            raise missing_package(f"the download of {name}", str(error.__context__.name), "celeba") from error
        raise UserError(
            f"{name} is not in data.path and cannot be downloaded: {error}. Put its files there as torchvision "
            "expects them, or use your own images with data=folder data.path=DIR or data=npz data.path=FILE"
        ) from error


def _fit_arrays(arrays: np.ndarray, shape: Shape) -> Tensor:
    """(N, C, H, W) of a shape, from uint8 (N, H, W [, C])."""
    arrays = arrays if arrays.ndim == 4 else arrays[..., None]
    images = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    if images.shape[1:] == shape.dimensions and shape.depth == EIGHT_BITS:
        return images.contiguous()
    squeezed = arrays.squeeze(3) if arrays.shape[3] == 1 else arrays
    pictures = (Raster(a, 255) for a in arrays) if shape.of_rasters else map(Image.fromarray, squeezed)
    return torch.stack([torch.from_numpy(shape.fit(picture)) for picture in pictures])
