"""Kernel distances between sets of features: over random subsets (KID), and of all of them (CMMD)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from score_lightning.evaluation.intervals import Subsamples

SEED = 2020  # torch-fidelity's, so that the subsets are the same
PAIRS = 2**25  # of which the kernel is held at once
WIDTH, SCALE = 10, 1000  # of CMMD


def kernel_distances(fake: Tensor, real: Tensor, subsets: int, size: int, subsamples: Subsamples) -> Tensor:
    """The squared maximum mean discrepancy of each subset, unbiased, with the kernel (x . y / D + 1)^3.

    Bińkowski et al. 2018, Sec. 4. Where the subsets overlap much, the kernel is computed once for all pairs of
    features, and each subset is a product with a row of ones and zeros.

    Args:
        fake, real: (N, D) and (M, D) features.
        subsets: number of random subsets.
        size: features of each side in a subset, from 2 to the smaller of N and M.
        subsamples: of the generated images; each subset is without those that are left out.

    Returns:
        float64 (subsets, 1 + S).
    """
    fake, real = fake.cpu().double(), real.cpu().double()
    order, kept = np.random.RandomState(SEED), subsamples.weights
    chosen = [[order.choice(len(x), size, replace=False) for x in (fake, real)] for _ in range(subsets)]
    if max(len(fake), len(real)) ** 2 <= min(PAIRS, subsets * size**2):
        ones = [torch.zeros(subsets, len(x), dtype=torch.float64) for x in (fake, real)]
        for row, numbers in enumerate(chosen):
            for of_side, part in zip(ones, numbers, strict=True):
                of_side[row, part] = 1
        return _distances(fake, real, (ones[0][:, None] * kept), ones[1][:, None])
    ones_of_real = torch.ones(1, 1, size, dtype=torch.float64)
    return torch.cat([_distances(fake[i], real[j], kept[None, :, i], ones_of_real) for i, j in chosen])


def _distances(fake: Tensor, real: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """(subsets, 1 + S) from features and 1 or 0 for each of them, w (subsets, 1 + S, N) and v (subsets, 1, M)."""
    n, m = w.sum(2), v.sum(2)
    of_fake = ((w.flatten(0, 1) @ _kernel(fake, fake).fill_diagonal_(0)).view_as(w) * w).sum(2)
    of_real = ((v[:, 0] @ _kernel(real, real).fill_diagonal_(0)) * v[:, 0]).sum(1, keepdim=True)
    between = (w * (v[:, 0] @ _kernel(real, fake))[:, None]).sum(2)
    return of_fake / (n * (n - 1)) + of_real / (m * (m - 1)) - 2 * between / (n * m)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    once = (x @ y.T).div_(x.shape[1]).add_(1)
    return once.square().mul_(once)


def clip_distance(fake: Tensor, real: Tensor, subsamples: Subsamples) -> Tensor:
    """CMMD: 1000 times the squared maximum mean discrepancy of embeddings, with the kernel exp(-|x - y|^2 / 200).

    Jayasumana et al. 2024, Sec. 4. As in their code, embeddings are divided by their length, and pairs of an image
    with itself count.

    Args:
        fake, real: (N, D) and (M, D) embeddings.
        subsamples: of the generated images.

    Returns:
        float64 (1 + S,).
    """
    x, y = (F.normalize(features.double(), dim=1) for features in (fake, real))
    w, v = subsamples.weights.to(x), torch.ones(1, len(y), dtype=x.dtype, device=x.device)
    n, m = w.sum(1), len(y)
    mmd = _kernel_sums(x, x, w, w) / n**2 + _kernel_sums(y, y, v, v) / m**2 - 2 * _kernel_sums(x, y, w, v) / (n * m)
    return SCALE * mmd.cpu()


def _kernel_sums(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """sum_ij w_i v_j k(x_i, y_j) of unit vectors x (N, D) and y (M, D), (S,), w (S, N), v (S or 1, M)."""
    sums = x.new_zeros(len(w))
    for rows in torch.arange(len(x)).split(max(1, PAIRS // len(y))):
        kernel = (x[rows] @ y.T).sub_(1).div_(WIDTH**2).exp_()  # |x - y|^2 = 2 - 2 x . y
        sums += (w[:, rows].T * (kernel @ v.T)).sum(0)
    return sums
