"""What images are compared with: statistics of reference images, computed once and cached."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.arrays import open_arrays
from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.errors import UserError
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.metrics import Moments, OrderedRows, Statistics
from score_lightning.runtime.files import atomic_file
from score_lightning.runtime.processes import Rank

BATCH = 256
FORMAT = 1  # part of the cache's key; increase it whenever the statistics of the same images change


@dataclass(frozen=True)
class Reference:
    """Real images, or statistics of them.

    Args:
        name: shown in metrics.json.
        images: to compare with; None where there are only statistics.
        held_out: real images of the same kind that are not among them, or None.
        statistics: read from a file, without images.
        sha256: of that file.
    """

    name: str
    images: ImageSet | None = None
    held_out: ImageSet | None = None
    statistics: Statistics | None = None
    sha256: str | None = None

    def settings(self) -> dict[str, Any]:
        """The entries of metrics.json that describe the reference."""
        sha256 = self.sha256 if self.images is None else self.images.sha256
        return {
            "reference": self.name,
            "reference_sha256": sha256,
            "reference_images": None if self.images is None else len(self.images),
            "reference_shape": None if self.images is None else list(self.images.shape),
            "held_out_images": None if self.held_out is None else len(self.held_out),
        }


def collect(
    features: Features,
    batches: Iterable[tuple[Tensor, Tensor]],
    shape: tuple[int, ...],
    keep: Sequence[str],
    rank: Rank,
    depth: Depth = EIGHT_BITS,
) -> Statistics:
    """Statistics of all ranks' images, from a single pass of the network; the same on every rank.

    Args:
        features: the network.
        batches: (indices (B,), images (B, C, H, W)) of this rank.
        shape: (C, H, W).
        keep: "features", "logits", both or none; memory grows with the number of images for these alone.
        rank: this process.
        depth: how pixels are stored.

    Raises:
        UserError: on every rank, when features or logits are not finite, or when the batches of one rank raise it.
    """
    probe = features.probe(shape, depth)
    moments = Moments(probe.origin).to(rank.device)
    widths = {"features": len(probe.origin), "logits": probe.classes or 0}
    kept = {name: OrderedRows(torch.empty(widths[name])).to(rank.device) for name in keep}
    with rank.sharing_errors():
        for indices, images in batches:
            vectors, logits = features(images)
            moments.update(vectors)
            for name, metric in kept.items():
                rows = vectors if name == "features" else logits
                assert rows is not None
                metric.update(rows, indices)
    mean, cov = moments.compute()
    in_order = {name: metric.compute() for name, metric in kept.items()}
    if not all(torch.isfinite(part).all() for part in (mean, *in_order.values())):
        raise UserError(
            f"features {features.name} of some images are not finite: wrong weights, or too low a precision?"
        )
    return Statistics(mean.reshape(-1), cov.reshape(len(probe.origin), -1), **in_order)


def reference_statistics(
    features: Features, images: ImageSet, keep: bool, rank: Rank, cache: Path, progress: bool = False
) -> Statistics:
    """Statistics of reference images, read from the cache or computed by all ranks and written there.

    Only the first rank needs them; the others get empty ones.

    Args:
        features: the network.
        images: the reference.
        keep: whether each image's features are needed, or only their moments.
        rank: this process; every rank must call.
        cache: a folder. Statistics are computed anew where its file is damaged or holds others.
        progress: whether to show a progress bar.
    """
    key = _key(features, images, rank)
    path = cache / f"statistics-{key[:24]}.npz"
    cached = _read(path, key, keep, rank.device) if key and rank.number == 0 else None
    if not rank.broadcast(cached is not None):
        numbers = torch.arange(len(images)).split(BATCH)[rank.number :: rank.count]
        shown = tqdm(numbers, "features of the reference", disable=None if progress else True, leave=False)
        batches = ((i, images[i].to(rank.device)) for i in shown)
        cached = collect(features, batches, images.shape, ["features"] if keep else [], rank, images.depth)
        if key and rank.number == 0:
            _write(path, key, cached)
    return cached if cached is not None and rank.number == 0 else Statistics(torch.empty(0), torch.empty(0))


def read_statistics(path: Path) -> Statistics:
    """Mean and covariance of a .npz or .pt file with `mu` (D,) and `sigma` (D, D), as FID implementations write them.

    Raises:
        UserError: when the file is damaged or holds something else.
    """
    with open_arrays(path) as arrays:
        if not {"mu", "sigma"} <= set(arrays):
            raise UserError(f"{path} has no statistics: expected mu and sigma, got {', '.join(arrays) or 'none'}")
        mean, cov = (torch.from_numpy(arrays[name].astype(np.float64)) for name in ("mu", "sigma"))
    fits = mean.ndim == 1 and len(mean) > 0 and cov.shape == (len(mean), len(mean))
    if not fits or not torch.isfinite(mean).all() or not torch.isfinite(cov).all():
        shapes = f"{tuple(mean.shape)} and {tuple(cov.shape)}"
        raise UserError(f"{path}: mu must be (D,) and sigma (D, D), all finite; got shapes {shapes}")
    largest = cov.abs().max().item()
    symmetric = torch.allclose(cov, cov.T, atol=1e-6 * largest)
    # the smallest eigenvalues of a covariance in single precision may be below 0
    if not symmetric or (cov.diagonal() < 0).any() or torch.linalg.eigvalsh(cov)[0] < -1e-3 * largest:
        raise UserError(f"{path}: sigma is not a covariance: it must be symmetric, with no variance below 0")
    return Statistics(mean, cov)


def holds_statistics(path: Path) -> bool:
    """Whether a file of arrays holds statistics rather than images.

    Reference batches of guided-diffusion hold both, statistics of a whole data set and some of its images as arr_0, and
    count as statistics.

    Raises:
        UserError: when it is no such file.
    """
    with open_arrays(path) as arrays:
        return "mu" in arrays and "images" not in arrays


def _key(features: Features, images: ImageSet, rank: Rank) -> str:
    """Hash of everything that statistics are a function of; empty on other ranks and without a hash of the network."""
    if features.sha256 is None or rank.number > 0:
        return ""
    settings = f"{FORMAT} {sorted(features.settings().items())} {images.sha256}"
    return hashlib.sha256(settings.encode()).hexdigest()


def _read(path: Path, key: str, keep: bool, device: Any) -> Statistics | None:
    """The statistics in a file; None where it is missing or damaged, or of other images or another network."""
    try:
        with np.load(path, allow_pickle=False) as arrays:  # the zip's checksums detect damage
            if str(arrays["key"]) != key or (keep and "features" not in arrays):
                return None
            mean, cov = torch.from_numpy(arrays["mu"]), torch.from_numpy(arrays["sigma"])
            kept = torch.from_numpy(arrays["features"]).to(device) if keep else None
            return Statistics(mean, cov, kept)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return None


def _write(path: Path, key: str, statistics: Statistics) -> None:
    arrays = {"key": np.array(key), "mu": statistics.mean.numpy(), "sigma": statistics.cov.numpy()}
    if statistics.features is not None:
        arrays["features"] = statistics.features.cpu().numpy()
    try:
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        print(f"Statistics of the reference cannot be kept at {path} ({error}): set SCORE_LIGHTNING_CACHE")
