"""Score matching without denoising: implicit (Hyvärinen 2005) and sliced (Song et al. 2019).

Integration by parts turns E |score - grad log p|^2 into E [|score|^2 + 2 tr grad score] and a constant, so that the
data's own score is not needed. Here p is that of the perturbed data at each noise level, or of the data as they are.
"""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from score_lightning.divergence import along, exact
from score_lightning.models import Model
from score_lightning.objectives.denoising import Weighted, weigh
from score_lightning.perturbation import expand
from score_lightning.schedules import RandnLike, Schedule

LIMIT = 256  # dimensions up to which implicit matching needs no permission: each costs a backward pass


class _Matching(Weighted):
    """What both share: the points, the weight lambda(t) and the gradients of the score.

    Args:
        weight: lambda(t), see `weigh`.
        clean: whether to take the data as they are, alpha x_0, rather than perturbed.
    """

    def __init__(self, weight: str = "sigma2", clean: bool = False) -> None:
        super().__init__(weigh(weight))
        self._clean = clean

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,), up to a constant."""
        training = torch.is_grad_enabled()
        alpha, sigma = model.schedule(t)
        # second derivatives need a graph even in validation, and an attention that has them
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            noise = 0 if self._clean else expand(sigma, x_0) * randn_like(x_0)
            x = (expand(alpha, x_0) * x_0.clone() + noise).detach().requires_grad_()
            loss = self._unweighted(x, model(x, t.clone()).score, randn_like, training) / x[0].numel()
        weight = self._weight(model.schedule, t).to(loss.dtype)
        return weight * (loss if training else loss.detach())

    def _unweighted(self, x: Tensor, score: Tensor, randn_like: RandnLike, training: bool) -> Tensor:
        raise NotImplementedError


class Implicit(_Matching):
    """Implicit score matching with the exact trace, |score|^2 + 2 tr grad score (Hyvärinen 2005, Eq. 4).

    Args:
        max_dim: dimensions above which it is refused: the trace takes one backward pass for each.
        weight, clean: see above.
    """

    def __init__(self, max_dim: int = LIMIT, weight: str = "sigma2", clean: bool = False) -> None:
        super().__init__(weight, clean)
        self.max_dim = max_dim

    def check(self, schedule: Schedule, dim: int) -> None:
        """Refuses a schedule that the weight makes no sense with, and data of many dimensions.

        Raises:
            ValueError: with the alternative.
        """
        super().check(schedule, dim)
        if dim > self.max_dim:
            raise ValueError(
                f"implicit score matching of {dim} dimensions takes {dim} backward passes in each step: take sliced, "
                f"or allow it with max_dim={dim}"
            )

    def _unweighted(self, x: Tensor, score: Tensor, randn_like: RandnLike, training: bool) -> Tensor:  # noqa: ARG002
        return score.flatten(1).square().sum(1) + 2 * exact(score, x, training)


class Sliced(_Matching):
    """Sliced score matching, (v . score)^2 + 2 v . grad(v . score) for random directions v (Song et al. 2019, Eq. 7).

    The variance-reduced form has |score|^2, its expectation, for the first term (Eq. 8).

    Args:
        projections: number of directions v ~ N(0, I) for each example.
        variance_reduced: whether to take that form.
        weight, clean: see above.

    Raises:
        ValueError: when projections < 1.
    """

    def __init__(
        self, projections: int = 1, variance_reduced: bool = True, weight: str = "sigma2", clean: bool = False
    ) -> None:
        super().__init__(weight, clean)
        if projections < 1:
            raise ValueError(f"sliced score matching needs at least one projection, got {projections}")
        self._projections, self._reduced = projections, variance_reduced

    def _unweighted(self, x: Tensor, score: Tensor, randn_like: RandnLike, training: bool) -> Tensor:
        total = x.new_zeros(len(x))
        for _ in range(self._projections):
            v = randn_like(x.detach())
            square = 0 if self._reduced else (v * score).flatten(1).sum(1) ** 2
            total = total + 2 * along(v, score, x, training) + square
        loss = total / self._projections
        return loss + score.flatten(1).square().sum(1) if self._reduced else loss
