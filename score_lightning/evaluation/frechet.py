"""The Fréchet distance between Gaussians."""

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray


def frechet_distance(mu_1: Array, cov_1: Array, mu_2: Array, cov_2: Array) -> float:
    """|mu_1 - mu_2|^2 + tr(cov_1 + cov_2 - 2 (cov_1 cov_2)^(1/2)) (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6).

    The trace of the root is that of (R cov_2 R)^(1/2) with R the symmetric root of cov_1: eigenvalues of symmetric
    matrices only, which also holds for singular covariances.

    Args:
        mu_1, mu_2: (D,) means.
        cov_1, cov_2: (D, D) covariances, symmetric and positive semi-definite.

    Raises:
        ValueError: when the shapes do not fit or a number is not finite.
    """
    mu_1, cov_1, mu_2, cov_2 = (torch.as_tensor(a).to(torch.float64) for a in (mu_1, cov_1, mu_2, cov_2))
    if mu_1.ndim != 1 or mu_1.shape != mu_2.shape or not cov_1.shape == cov_2.shape == (len(mu_1), len(mu_1)):
        shapes = [tuple(a.shape) for a in (mu_1, cov_1, mu_2, cov_2)]
        raise ValueError(f"means must be (D,) and covariances (D, D), got {shapes}")
    if not all(torch.isfinite(a).all() for a in (mu_1, cov_1, mu_2, cov_2)):
        raise ValueError("means and covariances must be finite")
    values, vectors = torch.linalg.eigh(cov_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp(min=0).sqrt().sum()
    return float((mu_1 - mu_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross)
