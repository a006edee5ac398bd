"""Decoded pictures: once on this machine, in a file of the cache folder that all processes map into their memory.

Pages of such a file are read when they are needed and given back when memory is short, so that a data set may be larger
than the memory. Where the file cannot be written, pictures are decoded into memory if a share of what is free holds
them, and else whenever a batch asks for them.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.files import ImageFiles
from score_lightning.data.images import ImageSet, LazyImageSet
from score_lightning.errors import explain
from score_lightning.runtime.files import atomic_file, cache_folder, write_text
from score_lightning.runtime.memory import available_bytes
from score_lightning.runtime.startup import is_first

CHUNK = 1024  # pictures that are decoded before they are written
SHARE = 0.5  # of the free disk, or memory, that decoded pictures may take
FORMAT = 1  # part of the files' names; increase it whenever the same pictures are decoded to others


def decode(images: LazyImageSet, processes: int = 1) -> ImageSet:
    """The same images decoded, where the cache folder or memory holds them; otherwise as they are, with a message.

    Args:
        images: the pictures.
        processes: on this machine, each of which decodes them where they do not share a file.

    Raises:
        UserError: naming a picture that cannot be read.
    """
    files = images.files
    try:
        stored, remarks = _from_cache(files)
    except OSError as error:
        if files.decoded_bytes > SHARE * available_bytes() / processes:
            _say(f"{explain(error)}; nor does memory hold them: pictures are decoded batch by batch (trainer.workers)")
            return images.examined()
        _say(f"{explain(error)}: pictures are decoded into the memory of each process")
        stored, remarks = torch.empty(len(files), *images.shape, dtype=torch.uint8), Counter()
        for place, part in zip(stored.split(CHUNK), _chunks(files, remarks), strict=True):
            place.copy_(part)
    noted = images.noted(files.notes(remarks))
    return ImageSet(stored, noted.labels, noted.source, noted.order)


def decode_split(train: ImageSet, validation: ImageSet, processes: int = 1) -> tuple[ImageSet, ImageSet]:
    """Training and validation images decoded; the same stay the same."""
    first = decode(train, processes) if isinstance(train, LazyImageSet) else train
    if validation is train:
        return first, first
    return first, decode(validation, processes) if isinstance(validation, LazyImageSet) else validation


def _say(text: str) -> None:
    if is_first():
        print(text)


def _from_cache(files: ImageFiles) -> tuple[Tensor, Counter[str]]:
    """uint8 (N, C, H, W) of all pictures, mapped, and the remarks that hold for them.

    Raises:
        OSError: when the file is not there and cannot be written.
    """
    key = hashlib.sha256(f"{FORMAT} {files.shape} {files.crop} {files.version}".encode()).hexdigest()[:24]
    remarks: Counter[str] = Counter()

    def write(path: Path) -> None:
        write_array(path, (len(files), *files.shape.tensor), _chunks(files, remarks))
        write_text(path.with_suffix(".json"), json.dumps(remarks))

    path = cache_folder() / f"decoded-{key}.npy"
    stored = mapped(path, files.decoded_bytes, write)
    with suppress(OSError, ValueError):
        remarks = Counter(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    return stored, remarks


def _chunks(files: ImageFiles, remarks: Counter[str]) -> Iterator[Tensor]:
    """All pictures, a few at a time."""
    with tqdm(total=len(files), desc=f"decoding {files.root.name}", disable=None, leave=False) as bar:
        for numbers in torch.arange(len(files)).split(CHUNK):
            yield files.decode(numbers.tolist(), remarks)
            bar.update(len(numbers))


def write_array(path: Path, shape: tuple[int, ...], parts: Iterator[Tensor]) -> None:
    """Writes a NumPy file of uint8 numbers of a shape, whole or not at all, from parts of it along the first axis.

    Raises:
        OSError: when it cannot be written.
    """
    with atomic_file(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.contiguous().numpy().data)


def mapped(path: Path, size: int, write: Callable[[Path], None]) -> Tensor:
    """The uint8 array in a NumPy file, which is written first where it is not there, by one process at a time.

    Args:
        path: of the file.
        size: of the array in bytes.
        write: writes the file to a path.

    Raises:
        OSError: when the file is not there and cannot be written, or would take too much of the free disk.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            if not path.is_file():
                free = shutil.disk_usage(path.parent).free
                if size > SHARE * free:
                    need = f"{size / 2**30:.1f} GiB of decoded pictures are more than half of the {free / 2**30:.1f}"
                    raise OSError(f"{need} GiB free in {path.parent} (SCORE_LIGHTNING_CACHE)")
                write(path)
    # its pages are this process's own as soon as it writes to them, which it never does
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps out other processes that enter with the same folder, where its file system supports locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
