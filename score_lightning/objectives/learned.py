"""Weights of the loss that are learned with it: every noise level counts alike, whatever its loss."""

import torch
from torch import Tensor, nn

from score_lightning.models import Model
from score_lightning.objectives.denoising import Denoising
from score_lightning.schedules import RandnLike, Schedule

WAVES = 8  # of u, in ln(sigma / alpha) / 4
FARTHEST = 12.0  # |ln(sigma / alpha)|, from where on u is constant: pure noise is infinitely far


class LearnedWeights(nn.Module):
    """An objective's loss L over exp(u), plus u, with u(t) learned beside the model.

    Kendall et al. 2018, for noise levels Karras et al. 2024b, Eq. 21. The optimum is u = ln E[L | t], where
    L / exp(u) has a mean of 1 at every level. u is a sum of waves in ln(sigma / alpha), and 0 at first. In evaluation
    mode losses are those of the objective itself.

    Args:
        objective: L.
    """

    def __init__(self, objective: Denoising) -> None:
        super().__init__()
        self._objective, self.stratified = objective, objective.stratified
        self.linear = nn.Linear(2 * WAVES, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def check(self, schedule: Schedule, dim: int) -> None:
        """That of the objective.

        Raises:
            ValueError: with the alternative.
        """
        self._objective.check(schedule, dim)

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        return self._objective.draw_t(schedule, u)

    def u(self, schedule: Schedule, t: Tensor) -> Tensor:
        """u at times t of shape (B,)."""
        place = schedule.ratio(t).log().clamp(-FARTHEST, FARTHEST).to(self.linear.weight) / 4
        angles = place[:, None] * torch.arange(1, 1 + WAVES, device=place.device)
        waves: Tensor = self.linear(torch.cat([angles.sin(), angles.cos()], 1))
        return waves[:, 0]

    def forward(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        losses = self._objective(model, x_0, t, randn_like)
        if not self.training:
            return losses
        u = self.u(model.schedule, t.expand(len(x_0))).to(losses)
        return losses / u.exp() + u
