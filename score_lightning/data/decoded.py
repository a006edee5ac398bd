"""Decoded pictures: once on this machine, in a file of the cache folder that all processes map into their memory.

Pages of such a file are read when they are needed and given back when memory is short, so that a data set may be larger
than the memory. Where the file cannot be written, pictures are decoded into memory if a share of what is free holds
them, and else whenever a batch asks for them.
"""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.files import ImageFiles
from score_lightning.data.images import ImageSet, LazyImageSet, PairedImages
from score_lightning.data.pixels import array_dtype
from score_lightning.errors import explain
from score_lightning.runtime.files import atomic_file, cache_folder, write_text
from score_lightning.runtime.locks import lock
from score_lightning.runtime.memory import available_bytes
from score_lightning.runtime.startup import is_first

CHUNK = 1024  # pictures that are decoded before they are written
SHARE = 0.5  # of the free disk, or memory, that decoded pictures may take
FORMAT = 1  # part of the files' names; increase it whenever the same pictures are decoded to others


def decode_split(train: ImageSet, validation: ImageSet, processes: int = 1) -> tuple[ImageSet, ImageSet]:
    """The same images decoded, where the cache folder or memory holds them; otherwise as they are, with a message.

    Args:
        train, validation: images in memory, which stay as they are, or pictures; where both are of the same files,
            these are decoded once.
        processes: on this machine, each of which decodes pictures where they cannot share a file.

    Raises:
        UserError: naming a picture that cannot be read.
    """
    if isinstance(train, PairedImages) and isinstance(validation, PairedImages):
        parts = decode_split(train.paired, validation.paired, processes)
        pictures = decode_split(train.conditions, validation.conditions, processes)
        first, last = (PairedImages(*pair) for pair in zip(parts, pictures, strict=True))
        return first, first if validation is train else last
    stored: dict[int, tuple[Tensor | None, list[str]]] = {}
    decoded = []
    for images in (train,) if validation is train else (train, validation):
        if isinstance(images, LazyImageSet):
            if id(images.files) not in stored:
                stored[id(images.files)] = _decode(images.files, processes)
            tensor, notes = stored[id(images.files)]
            images = images.noted(notes)
            if tensor is not None:
                images = ImageSet(tensor, images.labels, images.source, images.order, images.depth)
        decoded.append(images)
    return decoded[0], decoded[-1]


def _decode(files: ImageFiles, processes: int) -> tuple[Tensor | None, list[str]]:
    """((N, C, H, W) of all pictures, None where neither cache nor memory holds them; what is said of them)."""
    try:
        stored, remarks = _from_cache(files)
    except OSError as error:
        if files.decoded_bytes > SHARE * available_bytes() / processes:
            _say(f"{explain(error)}; nor does memory hold them: pictures are decoded batch by batch (trainer.workers)")
            return None, files.notes(files.remarks(range(len(files))))
        _say(f"{explain(error)}: pictures are decoded into the memory of each process")
        remarks = Counter()
        stored = in_memory((len(files), *files.shape.dimensions), _chunks(files, remarks), files.shape.depth.dtype)
    return stored, files.notes(remarks)


def _say(text: str) -> None:
    if is_first():
        print(text)


def _from_cache(files: ImageFiles) -> tuple[Tensor, Counter[str]]:
    """(N, C, H, W) of all pictures, mapped, and the remarks that hold for them.

    Raises:
        OSError: when the file is not there and cannot be written.
    """
    key = hashlib.sha256(f"{FORMAT} {files.place} {files.shape} {files.crop} {files.version}".encode()).hexdigest()[:24]
    path = cache_folder() / f"decoded-{key}.npy"
    said = path.with_suffix(".json")
    remarks: Counter[str] = Counter()

    def parts() -> Iterator[Tensor]:
        yield from _chunks(files, remarks)
        write_text(said, json.dumps(remarks))  # before the pictures, which are in place when all are written

    stored = _mapped(path, (len(files), *files.shape.dimensions), parts, files.shape.depth.dtype)
    with suppress(OSError, ValueError):
        remarks = Counter(json.loads(said.read_text(encoding="utf-8")))
    return stored, remarks


def shared(
    name: str, shape: tuple[int, ...], parts: Callable[[], Iterator[Tensor]], dtype: torch.dtype = torch.uint8
) -> Tensor:
    """Numbers of a shape, of parts along the first axis, in a file of the cache folder or, failing that, memory.

    Args:
        name: of the file, which must tell them from all others.
        shape: of all of them.
        parts: makes them.
        dtype: of the numbers.
    """
    try:
        return _mapped(cache_folder() / f"{name}.npy", shape, parts, dtype)
    except OSError as error:
        _say(f"{explain(error)}: images are unpacked into the memory of each process")
        return in_memory(shape, parts(), dtype)


def in_memory(shape: tuple[int, ...], parts: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
    """Numbers of a shape, of parts along the first axis."""
    stored, start = torch.empty(shape, dtype=dtype), 0
    for part in parts:
        stored[start : start + len(part)] = part
        start += len(part)
    return stored


def _chunks(files: ImageFiles, remarks: Counter[str]) -> Iterator[Tensor]:
    """All pictures, a few at a time."""
    with tqdm(total=len(files), desc=f"decoding {files.root.name}", disable=None, leave=False) as bar:
        for numbers in torch.arange(len(files)).split(CHUNK):
            yield files.decode(numbers.tolist(), remarks)
            bar.update(len(numbers))


def _write_array(path: Path, shape: tuple[int, ...], parts: Iterator[Tensor], dtype: np.dtype) -> None:
    """Writes a NumPy file of numbers of a shape, whole or not at all, from parts of it along the first axis.

    Raises:
        OSError: when it cannot be written, or would take too much of the free disk.
    """
    size, free = math.prod(shape) * dtype.itemsize, shutil.disk_usage(path.parent).free
    if size > SHARE * free:
        need = f"{size / 2**30:.1f} GiB of decoded pictures are more than half of the {free / 2**30:.1f}"
        raise OSError(f"{need} GiB free in {path.parent} (SCORE_LIGHTNING_CACHE)")
    with atomic_file(path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.contiguous().numpy().data)


def _mapped(path: Path, shape: tuple[int, ...], parts: Callable[[], Iterator[Tensor]], dtype: torch.dtype) -> Tensor:
    """The array of a shape in a NumPy file, which one process writes where it is not there, or damaged.

    Raises:
        OSError: when it is not there and cannot be written.
    """
    kind = array_dtype(dtype)
    stored = _read(path, shape, kind)
    if stored is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            stored = _read(path, shape, kind)  # another process may have been faster
            if stored is None:
                _write_array(path, shape, parts(), kind)
                stored = _read(path, shape, kind)
    if stored is None:
        raise OSError(f"{path} cannot be read again")
    return stored


def _read(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Tensor | None:
    """The array in a file, mapped; None where that is not there, damaged or of another shape."""
    if not path.is_file():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        return None
    if array.shape != shape or array.dtype != dtype:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nothing writes to it, which torch cannot know
        return torch.from_numpy(array)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps out other processes that enter with the same folder, where the system supports locks."""
    descriptor = lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)
