"""Importance-sampled times: levels whose terms vary most are trained on most (Nichol & Dhariwal 2021, Sec. 3.3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from score_lightning.models import Model
from score_lightning.objectives.bound import Hybrid, VariationalBound
from score_lightning.perturbation import widest
from score_lightning.schedules import RandnLike, Schedule


class ImportanceSampled(nn.Module):
    """An objective at times t of probability p_t, proportional to sqrt(E[L_t^2]) (Eq. 18), its losses over T p_t.

    E[L_t^2] is over the last losses at each level; times are uniform until every level has them. So that no level is
    forgotten, a share of the probability is uniform. The losses seen are part of the state: a resumed run continues
    with them. In evaluation mode losses are those of the objective itself.

    Args:
        objective: with discrete levels.
        levels: T, their number.
        kept: losses of each level that are remembered.
        uniform: share of the probability that is uniform.

    Raises:
        ValueError: when the number of levels is unknown or kept < 1.
    """

    losses: Tensor
    counts: Tensor
    stratified = False

    def __init__(
        self, objective: VariationalBound | Hybrid, levels: int | None, kept: int = 10, uniform: float = 0.001
    ) -> None:
        super().__init__()
        if levels is None or kept < 1 or not 0 < uniform <= 1:
            raise ValueError(f"importance-sampled times need discrete levels, and kept >= 1; got {levels} and {kept}")
        self._objective, self._uniform = objective, uniform
        self.register_buffer("losses", torch.zeros(levels, kept))
        self.register_buffer("counts", torch.zeros(levels, dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ImportanceSampled":
        """Moves to other devices but keeps its precision: losses are no weights."""
        return super()._apply(lambda buffer: fn(buffer).to(buffer.dtype), recurse)

    def check(self, schedule: Schedule, dim: int) -> None:
        """That of the objective.

        Raises:
            ValueError: with the alternative.
        """
        self._objective.check(schedule, dim)

    @property
    def probabilities(self) -> Tensor:
        """p_t, (levels,), on the device of the losses."""
        levels, kept = self.losses.shape
        losses = self.losses.to(widest(self.losses))
        roots = losses.square().mean(1).sqrt().clamp(min=1e-12)
        drawn = (1 - self._uniform) * roots / roots.sum() + self._uniform / levels
        return torch.where(self.counts.min() < kept, 1 / levels, drawn)

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:  # noqa: ARG002
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        cumulative = self.probabilities.cumsum(0)
        place = torch.searchsorted(cumulative, u.to(cumulative) * cumulative[-1], right=True)
        return place.clamp(max=len(cumulative) - 1)

    def forward(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        losses = self._objective(model, x_0, t, randn_like)
        return losses * self._weight(t).to(losses) if self.training else losses

    @torch.no_grad()
    def observe(self, t: Tensor, losses: Tensor) -> None:
        """Remembers the losses (B,), as returned in training for times t (B,), of one whole batch.

        Those that are not finite are skipped. Nothing leaves the device.
        """
        levels, kept = self.losses.shape
        values = (losses.to(widest(losses)) / self._weight(t)).to(self.losses)
        level, order = torch.where(torch.isfinite(values), t, levels).sort(stable=True)  # others to a row of their own
        first, end = (torch.searchsorted(level, level, right=right) for right in (False, True))
        place = torch.arange(len(level), device=level.device)
        counts = torch.cat([self.counts, self.counts.new_zeros(1)])
        slot = (counts[level] + place - first) % kept
        cells = torch.where(place >= end - kept, level * kept + slot, levels * kept)
        rows = torch.cat([self.losses, self.losses.new_zeros(1, kept)])
        self.losses.copy_(rows.flatten().scatter(0, cells, values[order]).view_as(rows)[:-1])
        self.counts.copy_(counts.index_add(0, level, torch.ones_like(level))[:-1])

    def _weight(self, t: Tensor) -> Tensor:
        """1 / (T p_t), of t's shape."""
        p = self.probabilities
        return 1 / (len(p) * p[t])
