"""Nearest neighbors among features, and the metrics that are computed from them alone."""

import torch
from torch import Tensor

BLOCK = 2**26  # distances held at once


def nearest(queries: Tensor, points: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """(distances (Q, k), indices (Q, k)) of the k nearest of points (P, D) to each of queries (Q, D), nearest first."""
    parts = [torch.cdist(part, points).topk(k, largest=False) for part in queries.split(_block_rows(points))]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def density_and_coverage(fake: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of generated images among real ones (Naeem et al. 2020, Eq. 3-4).

    Each real image is the center of a ball that reaches to its k-th nearest neighbor. Density is the mean number of
    balls that contain a generated image, divided by k; coverage is the share of balls with a generated image inside.

    Args:
        fake, real: (N, D) and (M, D) features; M > k.
    """
    radii = nearest(real, real, k + 1)[0][:, k]  # the nearest is the image itself
    held = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    balls = 0
    for part in fake.split(_block_rows(real)):
        inside = torch.cdist(part, real) < radii
        balls += int(inside.sum())
        held |= inside.any(0)
    return balls / (k * len(fake)), held.double().mean().item()


def memorization(fake: Tensor, train: Tensor, test: Tensor) -> float:
    """Share of pairs (generated image, test image) in which the generated one is nearer to its nearest training image.

    0.5 for a model that has learned the distribution, 1 for one that copies its training images (Meehan et al. 2020,
    Sec. 3.1: the Mann-Whitney statistic of the two samples of distances). Ties count half.

    Args:
        fake, train, test: (N, D) features.
    """
    distances, ranked = nearest(fake, train)[0].flatten(), nearest(test, train)[0].flatten().sort().values
    below = torch.searchsorted(ranked, distances, right=True), torch.searchsorted(ranked, distances)
    return 1 - (below[0] + below[1]).double().mean().item() / (2 * len(test))


def _block_rows(points: Tensor) -> int:
    return max(1, BLOCK // len(points))
