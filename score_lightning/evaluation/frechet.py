"""The Fréchet distance between Gaussians."""

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from score_lightning.evaluation.intervals import Subsamples

Array = Tensor | np.ndarray
SMALL = 512  # dimensions up to which the most accurate method takes hardly any time


def frechet_distance(mu_1: Array, cov_1: Array, mu_2: Array, cov_2: Array) -> float:
    """|mu_1 - mu_2|^2 + tr(cov_1 + cov_2 - 2 (cov_1 cov_2)^(1/2)) (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6).

    In float64, on the CPU. `_trace_of_root` needs the eigenvalues of one symmetric matrix only.

    Args:
        mu_1, mu_2: (D,) means.
        cov_1, cov_2: (D, D) covariances, symmetric and positive semi-definite.

    Raises:
        ValueError: when the shapes do not fit, a number is not finite, or a covariance has variances below 0.
    """
    mu_1, cov_1, mu_2, cov_2 = (torch.as_tensor(a).to("cpu", torch.float64) for a in (mu_1, cov_1, mu_2, cov_2))
    if mu_1.ndim != 1 or mu_1.shape != mu_2.shape or not cov_1.shape == cov_2.shape == (len(mu_1), len(mu_1)):
        shapes = [tuple(a.shape) for a in (mu_1, cov_1, mu_2, cov_2)]
        raise ValueError(f"means must be (D,) and covariances (D, D), got {shapes}")
    if not all(torch.isfinite(a).all() for a in (mu_1, cov_1, mu_2, cov_2)):
        raise ValueError("means and covariances must be finite")
    total = cov_1.trace() + cov_2.trace()
    between = total - 2 * _trace_of_root(cov_1, cov_2)
    if between < -1e-3 * total.abs():  # more than rounding errors, even of covariances in single precision
        raise ValueError("covariances must be positive semi-definite")
    return float((mu_1 - mu_2).square().sum() + between.clamp(min=0))


def subsampled_distances(features: Tensor, subsamples: Subsamples, mu: Tensor, cov: Tensor) -> Tensor:
    """The Fréchet distance to N(mu, cov) of each subsample but the first, which has all features.

    With A A^T = cov and Y = X A of the k centered features X of a subsample, the trace of the root is the sum of the
    singular values of Y, divided by (k - 1)^(1/2). Products of Y are computed once; a subsample's are parts of them.

    Args:
        features: (n, D).
        subsamples: of the features.
        mu, cov: (D,) and (D, D), float64.

    Returns:
        float64 (S,).
    """
    x, weights = features.double().cpu() - mu, subsamples.weights[1:]
    kept = weights.sum(1)
    means = weights @ x / kept[:, None]
    variances = (weights @ x.square().sum(1) - kept * means.square().sum(1)) / (kept - 1)
    y = x @ _factor(cov)
    roots = (_roots_of_columns if y.shape[1] < len(y) else _roots_of_rows)(y, subsamples)
    return (means.square().sum(1) + variances + cov.trace() - 2 * roots / (kept - 1).sqrt()).clamp(min=0)


def _roots_of_columns(y: Tensor, subsamples: Subsamples) -> Tensor:
    """Sum of the singular values of each subsample's centered rows of y, from products of its columns."""
    products, total, roots = y.T @ y, y.sum(0), []
    for left_out in subsamples.left_out:
        part = y[left_out]
        rest = total - part.sum(0)
        roots.append(_sum_of_roots(products - part.T @ part - rest.outer(rest) / (len(y) - len(part))))
    return torch.stack(roots)


def _roots_of_rows(y: Tensor, subsamples: Subsamples) -> Tensor:
    """The same from products of its rows, where there are fewer of them."""
    products, roots = y @ y.T, []
    for left_out in subsamples.left_out:
        part = products[~left_out][:, ~left_out]
        middle = part.mean(0)
        roots.append(_sum_of_roots(part - middle - middle[:, None] + middle.mean()))
    return torch.stack(roots)


def _sum_of_roots(squares: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(squares).clamp(min=0).sqrt().sum()


def _trace_of_root(cov_1: Tensor, cov_2: Tensor) -> Tensor:
    """tr (cov_1 cov_2)^(1/2), the sum of the singular values of A^T B for any A A^T = cov_1 and B B^T = cov_2.

    Their squares are the eigenvalues of A^T cov_2 A, with the Cholesky factor A where both covariances have full rank.
    That is fastest, but small eigenvalues drown in the rounding errors of large ones, and their roots are not
    negligible: 1e-8 of the largest, and in a singular covariance hundreds of them should be 0. Where that matters, or
    time does not, both covariances get factors with as many columns as their rank: the smaller of the products
    (A^T B)(A^T B)^T and (A^T B)^T (A^T B) then has only the eigenvalues of the result; failing that, A^T B is
    decomposed.
    """
    if len(cov_1) > SMALL:
        a, singular_1 = torch.linalg.cholesky_ex(cov_1)
        if not singular_1 and not torch.linalg.cholesky_ex(cov_2)[1]:
            squares = torch.linalg.eigvalsh(a.T @ (cov_2 @ a)).clamp(min=0)
            if _lost(squares) < 1e-9 * (cov_1.trace() + cov_2.trace()):
                return squares.sqrt().sum()
    cross = _factor(cov_1).T @ _factor(cov_2)
    if 0 in cross.shape:
        return cross.new_zeros(())
    if len(cov_1) > SMALL and min(cross.shape) < len(cov_1):
        squares = torch.linalg.eigvalsh(cross @ cross.T if cross.shape[0] <= cross.shape[1] else cross.T @ cross)
        if _lost(squares.clamp(min=0)) < 1e-9 * (cov_1.trace() + cov_2.trace()):
            return squares.clamp(min=0).sqrt().sum()
    return torch.linalg.svdvals(cross).sum()


def _lost(squares: Tensor) -> Tensor:
    """Bound on the error of the sum of roots, from rounding errors of eps times the largest square."""
    eps = torch.finfo(squares.dtype).eps * squares.max()
    return (eps / (2 * squares.clamp(min=eps).sqrt())).sum()


def _factor(cov: Tensor) -> Tensor:
    """A (D, rank) with A A^T = cov, by pivoted Cholesky decomposition to a tolerance of D eps max(diagonal)."""
    lower, pivots, rank, _ = lapack.dpstrf(cov.numpy(), lower=1)
    factor = np.empty((len(cov), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return torch.from_numpy(factor)
