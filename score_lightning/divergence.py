"""The divergence of a field f(x), exactly or along one direction, by automatic differentiation."""

import torch
from torch import Tensor


def exact(f: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    """sum_i d f_i / d x_i, (B,), of f (B, ...) that was computed from x (B, ...): one backward pass per dimension."""
    rows, total = f.flatten(1), x.new_zeros(len(x))
    for i in range(rows.shape[1]):
        (gradient,) = torch.autograd.grad(rows[:, i].sum(), x, create_graph=create_graph, retain_graph=True)
        total = total + gradient.flatten(1)[:, i]
    return total


def along(v: Tensor, f: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    """v . grad(v . f), (B,): the divergence on average over v of mean 0 and unit covariance (Hutchinson 1990)."""
    (gradient,) = torch.autograd.grad((v * f).sum(), x, create_graph=create_graph, retain_graph=True)
    return (v * gradient).flatten(1).sum(1)
