"""Large data sets in the layouts that their users have on disk: LSUN, FFHQ, ImageNet."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.decoded import shared
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import ImageSet, LazyImageSet, Source
from score_lightning.data.labels import label
from score_lightning.data.listing import Classes, find_classes, list_pictures
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import EIGHT_BITS
from score_lightning.data.sources import Split, hold_out, read_pictures
from score_lightning.errors import UserError, missing_package

if TYPE_CHECKING:
    import lmdb


@dataclass(frozen=True)
class LmdbFiles(ImageFiles):
    """Pictures in an LMDB folder, named by their keys."""

    def _states(self) -> Iterator[tuple[str, int, int]]:
        """(key, size of the data base in bytes, time of its last change in nanoseconds) of each picture."""
        state = (self.root / "data.mdb").stat()
        return ((name, state.st_size, state.st_mtime_ns) for name in self.names)

    def _stream(self, name: str) -> IO[bytes]:
        with _reading(self.root) as transaction:
            return BytesIO(transaction.get(name.encode()) or b"")


_OPEN: dict[Path, "lmdb.Environment"] = {}
_LOCK = Lock()


def _close() -> None:
    """Closes all before a fork: a process must not use environments that it inherits. They are reopened when read."""
    for root in list(_OPEN):
        _OPEN.pop(root).close()


if hasattr(os, "register_at_fork"):  # no process forks on Windows
    os.register_at_fork(before=_close)


@contextmanager
def _reading(root: Path) -> "Iterator[lmdb.Transaction]":
    """A transaction on an LMDB folder.

    Raises:
        UserError: when it cannot be read, or the package for it is not there.
    """
    try:
        import lmdb
    except ImportError as error:
        raise missing_package(f"{root} is an LMDB folder, which", "lmdb", "lsun") from error
    try:
        with _LOCK:
            if root not in _OPEN:
                _OPEN[root] = lmdb.open(str(root), readonly=True, lock=False, readahead=False, meminit=False)
        with _OPEN[root].begin() as transaction:
            yield transaction
    except (lmdb.Error, UnicodeDecodeError) as error:
        raise UserError(f"{root} cannot be read as LMDB: {error}") from error


def lsun(shape: Shape, path: str = "data", category: str = "church_outdoor", validation: float = 0.01) -> Split:
    """A category of LSUN, as its download unpacks.

    That is `<category>_train_lmdb` and `<category>_val_lmdb`, or, of objects, `<category>`, of which the share
    `validation` is held out.
    """
    root = Path(path).expanduser()
    if (root / category / "data.mdb").is_file():
        return hold_out(_lmdb(root / category, shape), validation)
    train, held = (_lmdb(root / f"{category}_{part}_lmdb", shape) for part in ("train", "val"))
    return train, held


def _lmdb(root: Path, shape: Shape) -> LazyImageSet:
    if not (root / "data.mdb").is_file():
        raise UserError(
            f"LSUN's {root} has no data.mdb: download and unzip {root.name}.zip there, set data.path and "
            "data.category, or use a folder of its pictures with data=folder data.path=DIR"
        )
    with _reading(root) as transaction:
        keys = transaction.cursor().iternext(keys=True, values=False)
        names = [key.decode() for key in tqdm(keys, f"listing {root.name}", disable=None, leave=False)]
    return LazyImageSet(LmdbFiles(root, names, shape))


def ffhq(shape: Shape, path: str = "data/ffhq", split: Literal["numbers", "ncsnv2", "none"] = "numbers") -> Split:
    """FFHQ, with a part of its numbered faces held out, or `none`.

    By `numbers` the first 60,000 are for training and the others held out, as its authors split it; `ncsnv2` holds out
    the tenth that NCSNv2's code does, the last of a permutation by NumPy's generator of seed 2019.

    The path holds images1024x1024 or thumbnails128x128, or is such a folder, or a zip file of numbered pictures.
    """
    root = Path(path).expanduser()
    folders = [root / "images1024x1024", *([root / "thumbnails128x128"] if max(shape.dimensions[1:]) <= 128 else [])]
    root = next((folder for folder in folders if folder.is_dir()), root)
    listing = list_pictures(root)
    names = listing.names
    if split not in ("numbers", "ncsnv2", "none"):
        raise UserError(f"data.split must be numbers, ncsnv2 or none, got {split!r}")
    files = ImageFiles(root, names, shape)
    numbers = ["".join(filter(str.isdigit, PurePosixPath(name).stem)) for name in names]
    held = torch.tensor([number != "" and int(number) >= 60_000 for number in numbers])
    everything = LazyImageSet(files, source=Source(content=files.content, notes=tuple(listing.notes)))
    if split == "none":
        return everything, everything
    if split == "ncsnv2":
        order = list(range(len(names)))  # as that code permutes it
        np.random.RandomState(2019).shuffle(order)
        held = torch.zeros(len(names), dtype=torch.bool)
        held[order[int(0.9 * len(names)) :]] = True
    if not held.any() or held.all():
        return hold_out(everything, 0.05)
    return everything.subset((~held).nonzero()[:, 0]), everything.subset(held.nonzero()[:, 0])


def imagenet(shape: Shape, path: str = "data/imagenet", validation: float = 0.0) -> Split:
    """ImageNet at any size, in class folders or with labels in dataset.json.

    The path holds folders or zip files train and val; or it is a folder or a zip file of pictures itself, of which the
    share `validation` is held out.
    """
    root = Path(path).expanduser()
    return _parts(root, "train", "val", shape) or hold_out(read_pictures(root, shape), validation)


def imagenet64(shape: Shape, path: str = "data/imagenet64") -> Split:
    """ImageNet at 64 x 64 pixels.

    The path holds train_data_batch_1.npz ... and val_data.npz (Chrabaszcz et al. 2017, with labels), or folders or zip
    files train_64x64 and valid_64x64 (van den Oord et al. 2016, without), or folders train and val of any pictures, in
    class folders or not.
    """
    root = Path(path).expanduser()
    batches = sorted(root.glob("train_data_batch_*.npz"))
    if batches:
        return _read_batches(batches, shape), _read_batches([root / "val_data.npz"], shape)
    split = _parts(root, "train_64x64", "valid_64x64", shape) or _parts(root, "train", "val", shape)
    if split is not None:
        return split
    if list(root.glob("train_data_batch_*")):
        raise UserError(f"{root} holds ImageNet's pickled batches, which are not read: download the npz files instead")
    raise UserError(
        f"ImageNet's {root} holds neither train_data_batch_*.npz and val_data.npz, nor train_64x64 and valid_64x64, "
        "nor train and val: set data.path, or use data=imagenet data.path=DIR"
    )


def _parts(root: Path, train: str, held: str, shape: Shape) -> Split | None:
    """The pictures of two folders, or zip files, with one numbering of their classes; None where the first is missing.

    Raises:
        UserError: when the second one is missing, or one cannot be read.
    """
    suffix = next((suffix for suffix in ("", ".zip") if (root / (train + suffix)).exists()), None)
    if suffix is None:
        return None
    roots = [root / (part + suffix) for part in (train, held)]
    listings = [list_pictures(root) for root in roots]
    classes = label(roots, listings)
    if classes.labels is None and not listings[0].labeled and find_classes(listings[0].names).labels is not None:
        remedy = f"data=imagenet data.path={roots[0]} takes that alone"
        classes = Classes(notes=(f"no classes, since {roots[1]} has no class folders as {roots[0]} has: {remedy}",))
    sizes = [len(listing.names) for listing in listings]
    parts = [None, None] if classes.labels is None else classes.labels.split(sizes)
    files = [ImageFiles(root, listing.names, shape) for root, listing in zip(roots, listings, strict=True)]
    notes = tuple(
        f"{root.name}: {note}" for root, listing in zip(roots, listings, strict=True) for note in listing.notes
    )
    first, second = (
        LazyImageSet(some, part, Source(classes.names, some.content + classes.content, (*notes, *classes.notes)))
        for some, part in zip(files, parts, strict=True)
    )
    return first, second


def _read_batches(paths: list[Path], shape: Shape) -> ImageSet:
    """Arrays `data` uint8 (N, 3 * 64 * 64), channels first, and `labels` (N,) from 1.

    They are compressed; all processes share an uncompressed copy in the cache folder, where that can be written.
    """
    if shape.dimensions != (3, 64, 64) or shape.depth != EIGHT_BITS:
        raise UserError(
            f"{paths[0]} holds colored images of 64 pixels, of 8 bits: set images.size=64 images.channels=3 "
            "images.depth=8"
        )
    try:
        labels = [torch.from_numpy(np.load(path, allow_pickle=False)["labels"]).long() - 1 for path in paths]
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        key = hashlib.sha256(repr(states).encode()).hexdigest()[:24]
        n = sum(map(len, labels))
        images = shared(f"imagenet64-{key}", (n, 3, 64, 64), lambda: _arrays(paths))
    except Exception as error:  # damaged files make NumPy and zlib raise almost anything
        raise UserError(f"{paths[0].parent}: {[path.name for path in paths]} cannot be read: {error}") from error
    content = hashlib.sha256(repr([state[:2] for state in states]).encode()).hexdigest()
    return ImageSet(images, torch.cat(labels), Source(content=content))


def _arrays(paths: list[Path]) -> Iterator[Tensor]:
    for path in tqdm(paths, "reading ImageNet", disable=None if len(paths) > 1 else True, leave=False):
        yield torch.from_numpy(np.load(path, allow_pickle=False)["data"]).view(-1, 3, 64, 64)
