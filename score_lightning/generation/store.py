"""Batches of generated images, and those that wait on disk until an evaluation is done."""

import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from score_lightning.errors import UserError
from score_lightning.runtime.files import atomic_file


class Batch(NamedTuple):
    """A batch of generated images.

    Args:
        indices: int64 (B,).
        images: (B, C, H, W) as they are stored, or float32 points (B, D).
        finite: bool (B,), on the CPU: whether all pixels of an image were finite numbers.
    """

    indices: Tensor
    images: Tensor
    finite: Tensor


class BatchStore:
    """Batches on disk, so that an interrupted generation resumes where it stopped.

    Args:
        folder: where the store makes a hidden folder for its batches.
        key: everything that the images are a function of.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder / f".images-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def read(self, indices: Tensor, device: torch.device | str) -> Batch | None:
        """The batch of the images with these indices; None where it is missing or damaged."""
        try:
            with np.load(self._path(indices), allow_pickle=False) as arrays:
                images, finite = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["finite"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None
        return Batch(indices, images.to(device), finite) if len(images) == len(indices) else None

    def write(self, batch: Batch) -> None:
        """Stores a batch, whole or not at all.

        Raises:
            UserError: when it cannot be written.
        """
        path = self._path(batch.indices)
        try:
            with atomic_file(path) as file:
                np.savez(file, images=batch.images.cpu().numpy(), finite=batch.finite.numpy())
        except OSError as error:
            raise UserError(f"images cannot be kept at {path}: {error.strerror}. Free space, or change out=") from error

    def clear(self) -> None:
        """Removes all batches."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, indices: Tensor) -> Path:
        return self._folder / f"{int(indices[0]):08d}.npz"
