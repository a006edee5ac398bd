"""Images as uint8 tensors, and loaders whose batches are functions of (seed, step).

A source gives the images for training and those held out for validation. Loaders yield dicts of a batch: `images`
(B, C, H, W) uint8, and `step`, the batch's place in the run. Flips and scaling happen later, on whole batches on the
model's device.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from score_lightning.errors import UserError
from score_lightning.randomness import generator

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images above which a folder is decoded batch by batch


class ImageSet(Dataset[Tensor]):
    """Images in memory: `images` uint8 (N, C, H, W), `labels` int64 (N,) or None."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return self.images[indices]

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images at the indices."""
        return ImageSet(self.images[indices], None if self.labels is None else self.labels[indices])


class LazyImageSet(ImageSet):
    """Images that do not fit in memory: decoded whenever a batch asks for them."""

    def __init__(self, files: "ImageFiles", order: Tensor, labels: Tensor | None) -> None:
        self._files, self._order, self.labels = files, order, labels

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return self._files.decode(self._order[indices].tolist())

    def subset(self, indices: Tensor) -> "LazyImageSet":
        """The images at the indices."""
        return LazyImageSet(self._files, self._order[indices], None if self.labels is None else self.labels[indices])


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
            if self.root.is_file():
                with archive.open(name) if archive else zipfile.ZipFile(self.root).open(name) as file:
                    content = file.read()
            else:
                content = (self.root / name).read_bytes()
            with Image.open(BytesIO(content)) as image:
                yield image
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
            reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error
            raise UserError(f"{self.root / name} cannot be read: {reason}. Remove or replace it") from error

    def _decode(self, name: str, archive: zipfile.ZipFile | None) -> np.ndarray:
        with self.open(name, archive) as image:
            return self.shape.fit(image, self.crop)


def list_pictures(path: Path) -> list[str]:
    """Sorted names of all pictures below a folder or in a zip file, hidden ones left out.

    Raises:
        UserError: when the path does not exist, is no zip, or holds no pictures.
    """
    if path.is_dir():
        names = [str(file.relative_to(path).as_posix()) for file in path.rglob("*") if file.is_file()]
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    elif path.is_file():
        raise UserError(f"{path} is neither a folder nor a zip file (or the zip is damaged)")
    else:
        raise UserError(f"{path} does not exist: data.path must be a folder or a zip file of pictures")
    parts = ((name, PurePosixPath(name)) for name in names)
    kept = sorted(n for n, p in parts if p.suffix.lower() in SUFFIXES and not any(q[0] in "._" for q in p.parts))
    if not kept:
        raise UserError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return kept


def shape_of(root: Path, name: str) -> Shape:
    """The shape of a picture below a folder or in a zip file, which must be square.

    Raises:
        UserError: when it is not, or cannot be read.
    """
    files = ImageFiles(root, [name], Shape(1, 3))
    with files.open(name) as image:
        if image.width != image.height:
            raise UserError(f"{root / name} has {image.width} x {image.height} pixels; expected squares")
        return Shape(image.width, 1 if image.mode in ("1", "L", "I;16") else 3)


def class_labels(names: Sequence[str]) -> Tensor | None:
    """int64 (N,) numbers of the class folders that pictures lie in, None where all lie in one folder."""
    classes = [PurePosixPath(name).parent.name for name in names]
    number = {name: i for i, name in enumerate(sorted(set(classes)))}
    return torch.tensor([number[c] for c in classes]) if len(number) > 1 else None


Split = tuple[ImageSet, ImageSet]


def hold_out(images: ImageSet, fraction: float) -> Split:
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


def folder(shape: Shape, path: str, validation: float = 0.05) -> Split:
    """Pictures of any size in a folder or a zip file, in class folders or not; the central square, resized."""
    root = Path(path).expanduser()
    names = list_pictures(root)
    files, labels = ImageFiles(root, names, shape), class_labels(names)
    if len(names) * shape.channels * shape.size**2 > MEMORY_LIMIT:
        return hold_out(LazyImageSet(files, torch.arange(len(names)), labels), validation)
    return hold_out(ImageSet(files.decode(range(len(names)), progress=True), labels), validation)


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


def read_npz(path: Path) -> tuple[Tensor, Tensor | None]:
    """(images uint8 (N, C, H, W), labels int64 (N,) or None) of a NumPy file.

    Raises:
        UserError: when the file is missing, damaged, or has no such arrays.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a .npz file with images (N x H x W [x C], uint8)")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays.get("labels")
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, TypeError, AttributeError, EOFError) as error:
        raise UserError(f"{path} is not a .npz file with an array `images`: {error}") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UserError(
            f"{path}: images must be uint8, N x H x W or N x H x W x C with C of 1 or 3, got "
            f"{images.dtype} {images.shape}"
        )
    if labels is not None and labels.shape != images.shape[:1]:
        raise UserError(f"{path}: there are {len(images)} images but labels of shape {labels.shape}")
    channels_last = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return channels_last.permute(0, 3, 1, 2).contiguous(), None if labels is None else torch.from_numpy(labels).long()


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

    splits = []
    for split in ("train", "valid"):
        found = _download(partial(CelebA, path, split, download=True), "CelebA")
        root = Path(found.root) / found.base_folder / "img_align_celeba"
        files = ImageFiles(root, list(found.filename), shape, crop)
        splits.append(ImageSet(files.decode(range(len(files)), progress=True)))
    return splits[0], splits[1]


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


class TrainingOrder(Sampler[tuple[int, list[int]]]):
    """(step, indices) of this rank's share of each global batch: an endless stream of shuffled passes over the data.

    Batch `step` is a function of (seed, step) alone, so a run resumed at a step, on any number of processes, sees the
    same global batches.

    Args:
        images: number of images.
        batch_size: images per global batch.
        steps: batches in the whole run.
        start: step to begin at.
        rank, ranks: this process and the number of processes; the latter divides batch_size.
    """

    def __init__(
        self, images: int, batch_size: int, steps: int, seed: int, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        self._images, self._batch_size, self._steps, self._seed = images, batch_size, steps, seed
        self._start, self._rank, self._ranks = start, rank, ranks

    def __len__(self) -> int:
        """Batches of the whole run, those before `start` included: Lightning counts them as done when it resumes."""
        return self._steps

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        share = self._batch_size // self._ranks
        order, current = torch.empty(0), -1
        for step in range(self._start, self._steps):
            row = []
            first = step * self._batch_size + self._rank * share
            for place in range(first, first + share):
                if place // self._images != current:
                    current = place // self._images
                    order = torch.randperm(self._images, generator=generator(self._seed, "order", current))
                row.append(int(order[place % self._images]))
            yield step, row


class ValidationOrder(Sampler[tuple[int, list[int]]]):
    """(number of the batch, numbers of its triples): every so-manieth triple goes to a rank.

    Args:
        n: number of triples.
        batch_size: triples per batch, over all ranks.
        rank, ranks: this process and the number of processes, at most n.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        share = max(1, batch_size // ranks)
        mine = range(rank, n, ranks)
        self._batches = [list(mine[i : i + share]) for i in range(0, len(mine), share)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(enumerate(self._batches))


class Batches(Dataset[dict[str, Any]]):
    """Batches of an image set by the (step, numbers) of an order; numbers past the end wrap around."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __getitem__(self, place: tuple[int, list[int]]) -> dict[str, Any]:
        step, numbers = place
        index = torch.tensor(numbers)
        return {"images": self._images[index % len(self._images)], "step": step, "numbers": index}


class ImageData(L.LightningDataModule):
    """Training and validation batches of one source.

    Args:
        train, validation: the images.
        batch_size: images per global batch.
        steps: training batches of the whole run.
        validation_n: number of validation triples; triple j takes image j modulo their number.
        seed: of the order.
        workers: processes that load batches; pays for images that do not fit in memory.
    """

    def __init__(
        self,
        train: ImageSet,
        validation: ImageSet,
        batch_size: int,
        steps: int,
        validation_n: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self._batch_size, self._steps, self._validation_n, self._seed = batch_size, steps, validation_n, seed
        self._workers, self._start = workers, 0

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the step that the run begins or resumes at."""
        rank, ranks = self._place()
        order = TrainingOrder(len(self.train), self._batch_size, self._steps, self._seed, self._start, rank, ranks)
        return self._loader(self.train, order)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation triples."""
        return self._loader(self.validation, ValidationOrder(self._validation_n, self._batch_size, *self._place()))

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on."""
        assert self.trainer is not None
        return {"batches": self.trainer.fit_loop.epoch_loop.total_batch_idx + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the batches trained on."""
        self._start = state_dict["batches"]

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, images: ImageSet, order: Sampler[tuple[int, list[int]]]) -> DataLoader[Any]:
        pinned = torch.cuda.is_available()
        return DataLoader(
            Batches(images),
            batch_size=None,
            sampler=order,
            num_workers=self._workers,
            pin_memory=pinned,
            persistent_workers=self._workers > 0,
        )
