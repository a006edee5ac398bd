"""Nearest neighbors among features, and the metrics that are computed from them alone."""

from collections.abc import Iterator

import torch
from torch import Tensor

from score_lightning.evaluation.intervals import Subsamples

BLOCK = 2**26  # distances held at once
SPARE = 24  # of k + 24 neighbors, fewer than k are left where a random third is left out with a probability below 1e-8


def nearest(queries: Tensor, points: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """(distances (Q, k), indices (Q, k)) of the k nearest of points (P, D) to each of queries (Q, D), nearest first."""
    parts = [torch.cdist(part, points).topk(k, largest=False) for part in queries.split(_block_rows(points))]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def precision_and_recall(fake: Tensor, real: Tensor, subsamples: Subsamples, k: int = 3) -> tuple[Tensor, Tensor]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, Eq. 1-2).

    Each image is the center of a ball that reaches to its k-th nearest neighbor of the same set. Precision is the share
    of generated images in balls around real ones, recall the share of real images in balls around generated ones.

    Args:
        fake, real: (N, D) and (M, D) features; N and M above k.
        subsamples: of the generated images.

    Returns:
        two of float64 (1 + S,).
    """
    of_real = nearest(real, real, k + 1)[0][:, k]  # the nearest is the image itself
    of_fake = _radii(fake, subsamples, k)
    inside = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    reached = torch.zeros(len(of_fake), len(real), dtype=torch.bool, device=fake.device)
    for images, distances in _blocks(fake, real):
        inside[images] = (distances <= of_real).any(1)
        for row, radii in zip(reached, of_fake[:, images], strict=True):
            row |= (distances <= radii[:, None]).any(0)
    return subsamples.means(inside), reached.double().mean(1).cpu()


def density_and_coverage(fake: Tensor, real: Tensor, subsamples: Subsamples, k: int = 5) -> tuple[Tensor, Tensor]:
    """Density and coverage of generated images among real ones (Naeem et al. 2020, Eq. 3-4).

    Each real image is the center of a ball that reaches to its k-th nearest neighbor. Density is the mean number of
    balls that contain a generated image, divided by k; coverage is the share of balls with a generated image inside.

    Args:
        fake, real: (N, D) and (M, D) features; M > k.
        subsamples: of the generated images.

    Returns:
        two of float64 (1 + S,).
    """
    radii, weights = nearest(real, real, k + 1)[0][:, k], subsamples.weights.to(real)
    balls = torch.zeros(len(fake), device=fake.device)
    reached = torch.zeros(len(weights), len(real), dtype=torch.bool, device=fake.device)
    for images, distances in _blocks(fake, real):
        inside = (distances < radii).to(weights.dtype)
        balls[images] = inside.sum(1).to(balls.dtype)
        reached |= weights[:, images] @ inside > 0
    return subsamples.means(balls) / k, reached.double().mean(1).cpu()


def memorization(fake: Tensor, train: Tensor, test: Tensor, subsamples: Subsamples) -> Tensor:
    """Share of pairs (generated image, test image) in which the generated one is nearer to its nearest training image.

    0.5 for a model that has learned the distribution, 1 for one that copies its training images (Meehan et al. 2020,
    Sec. 3.1: the Mann-Whitney statistic of the two samples of distances). Ties count half.

    Args:
        fake, train, test: (N, D) features.
        subsamples: of the generated images.

    Returns:
        float64 (1 + S,).
    """
    distances, ranked = nearest(fake, train)[0].flatten(), nearest(test, train)[0].flatten().sort().values
    below = torch.searchsorted(ranked, distances, right=True), torch.searchsorted(ranked, distances)
    return 1 - subsamples.means(below[0] + below[1]) / (2 * len(test))


def _radii(features: Tensor, subsamples: Subsamples, k: int) -> Tensor:
    """The distance of images to their k-th nearest neighbor in each subsample, (1 + S, N); -1 of those left out."""
    n = len(features)
    distances, indices = nearest(features, features, min(n, 1 + k + SPARE * (subsamples.count > 0)))
    itself = indices[:, 1:] == torch.arange(n, device=features.device)[:, None]  # where a copy of the image comes first
    distances, indices = distances[:, 1:], torch.where(itself, indices[:, :1], indices[:, 1:])
    radii = []
    for kept in subsamples.weights.to(features.device).bool():
        place = (kept[indices].cumsum(1) < k).sum(1, keepdim=True).clamp(max=indices.shape[1] - 1)
        radii.append(torch.where(kept, distances.gather(1, place)[:, 0], -1))
    return torch.stack(radii)


def _blocks(queries: Tensor, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices of queries (B,), their distances to all points (B, P)), in blocks."""
    for indices in torch.arange(len(queries)).split(_block_rows(points)):
        yield indices, torch.cdist(queries[indices], points)


def _block_rows(points: Tensor) -> int:
    return max(1, BLOCK // len(points))
