"""The kernel distance between sets of features, over random subsets."""

import numpy as np
import torch
from torch import Tensor

SEED = 2020  # torch-fidelity's, so that the subsets are the same
PAIRS = 2**25  # of which the kernel is held at once


def kernel_distances(fake: Tensor, real: Tensor, subsets: int, size: int) -> Tensor:
    """The squared maximum mean discrepancy of each subset, unbiased, with the kernel (x . y / D + 1)^3.

    Bińkowski et al. 2018, Sec. 4. Where the subsets overlap much, the kernel is computed once for all pairs of
    features, and each subset is a product with a row of ones and zeros.

    Args:
        fake, real: (N, D) and (M, D) features.
        subsets: number of random subsets.
        size: features of each side in a subset, from 2 to the smaller of N and M.

    Returns:
        float64 (subsets,).
    """
    fake, real = fake.cpu().double(), real.cpu().double()
    order = np.random.RandomState(SEED)
    chosen = [[order.choice(len(x), size, replace=False) for x in (fake, real)] for _ in range(subsets)]
    if max(len(fake), len(real)) ** 2 <= min(PAIRS, subsets * size**2):
        weights = [torch.zeros(subsets, len(x), dtype=torch.float64) for x in (fake, real)]
        for row, numbers in enumerate(chosen):
            for ones, part in zip(weights, numbers, strict=True):
                ones[row, part] = 1
        return _distances(fake, real, weights[0], weights[1])
    ones = torch.ones(1, size, dtype=torch.float64)
    return torch.cat([_distances(fake[i], real[j], ones, ones) for i, j in chosen])


def _distances(fake: Tensor, real: Tensor, of_fake: Tensor, of_real: Tensor) -> Tensor:
    """(subsets,) from features and 1 or 0 for each subset and feature, (subsets, N) and (subsets, M)."""
    size = of_fake[0].sum()
    within = [(w @ _kernel(x, x).fill_diagonal_(0) * w).sum(1) for x, w in ((fake, of_fake), (real, of_real))]
    between = (of_fake @ _kernel(fake, real) * of_real).sum(1)
    return (within[0] + within[1]) / (size * (size - 1)) - 2 * between / size**2


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    once = (x @ y.T).div_(x.shape[1]).add_(1)
    return once.square().mul_(once)
