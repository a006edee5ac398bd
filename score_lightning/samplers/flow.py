"""The probability-flow ODE with adaptive steps, forwards and backwards in time.

With y = x / alpha and n = sigma / alpha the ODE is dy / dn = eps (see `solvers`). In u = ln n,

    dy / du = n eps(alpha y, t(n)),    d ln p(y) / du = -n div_y eps

(Song et al. 2021a, Eq. 13 and 39), which changes at every noise level alike; rectified flow has its own y, n and slope
(see the schedule's `flow`). The integrator is torchode's
Dormand-Prince 5(4) (Lienen & Günnemann 2022), which gives every image separate error norms and steps.
"""

from collections.abc import Callable
from functools import partial

import torch
import torchode
from torch import Tensor
from torchode.status_codes import REACHED_MAX_STEPS, SUCCESS

from score_lightning.models import Model
from score_lightning.perturbation import expand, widest
from score_lightning.samplers.step import Step
from score_lightning.schedules import RandnLike, Schedule

Divergence = Callable[[Tensor, Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]


class ProbabilityFlow(Step):
    """The adaptive solution between two times; x is NaN where there is none.

    Args:
        rtol, atol: relative and absolute error of a step, for y.
        max_steps: of the integrator, between two times.

    Raises:
        ValueError: when a tolerance is not positive, or max_steps < 1.
    """

    evaluations = None  # as many as it takes

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 10_000) -> None:
        if not (rtol > 0 and atol > 0 and max_steps >= 1):
            raise ValueError(f"rtol and atol must be positive, and max_steps; got {rtol}, {atol} and {max_steps}")
        self._rtol, self._atol, self._max_steps = rtol, atol, max_steps

    def check(self, schedule: Schedule) -> None:
        """Refuses discrete levels, which have no ODE.

        Raises:
            ValueError: naming the alternative.
        """
        schedule.require_sde()

    def start(self, times: Tensor) -> "ProbabilityFlow":  # noqa: ARG002
        """Its step: itself, since it has no memory."""
        return self

    def __call__(
        self,
        model: Model,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        randn_like: RandnLike = torch.randn_like,  # noqa: ARG002 - nothing is random
    ) -> Tensor:
        """x at time s, before t or after it, from x (B, ...) at t."""
        return self.solve(model, x, t, s)[0]

    def solve(
        self, model: Model, x: Tensor, t: Tensor, s: Tensor, divergence: Divergence | None = None
    ) -> tuple[Tensor, Tensor]:
        """(x at time s, ln p_s(x_s) - ln p_t(x_t) in nats (B,)) of x (B, ...) at time t.

        Args:
            model: of a continuous schedule.
            x: where it starts.
            t, s: times of shape ().
            divergence: (f, x) -> sum_i d f_i / d x_i, of shape (B,); without one the second result is 0.
        """
        schedule, dim = model.schedule, x.shape[1:].numel()
        if len(x) == 0:
            return x, x.new_empty(0)

        def rates(u: Tensor, state: Tensor) -> Tensor:
            rate = u.exp()
            time = schedule.flow_time(rate)
            scale, _ = schedule.flow(time)
            x_t = (expand(scale, x).to(state) * state[:, :dim].view_as(x)).to(x.dtype)
            with torch.inference_mode(False), torch.set_grad_enabled(divergence is not None):
                x_t = x_t.clone().requires_grad_(divergence is not None)
                slope = schedule.slope(model(x_t, time.clone()))
                change = x.new_zeros(len(x)) if divergence is None else -scale * divergence(slope, x_t) / dim
            flat = torch.cat([slope.detach().flatten(1), change.detach()[:, None].to(x.dtype)], 1)
            return rate[:, None].to(state) * flat.to(state)

        (c_t, n_t), (c_s, n_s) = schedule.flow(t), schedule.flow(s)
        start = torch.cat([(x / c_t).flatten(1), x.new_zeros(len(x), 1)], 1).to(widest(x))
        end = self._integrate(rates, start, n_t.log(), n_s.log())
        # the last column is per dimension, so that the error norm weighs it like any other
        change = dim * (end[:, dim] + torch.log(c_t / c_s).to(end))
        return (end[:, :dim].view_as(x) * c_s).to(x.dtype), change

    def _integrate(self, slope: Slope, start: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """The states at u = last, from those at u = first; NaN in the rows where there are none."""
        sound = torch.ones(len(start), 1, dtype=torch.bool, device=start.device)
        while True:
            end, status = self._attempt(partial(_masked, slope, sound), start, first, last)
            broken = (status != SUCCESS) & (status != REACHED_MAX_STEPS)
            if not broken.any():
                return torch.where(sound & (status == SUCCESS)[:, None], end, torch.nan)
            # torchode gives up all rows with one that is not finite: once more, without it
            sound = sound & ~broken[:, None]
            start = torch.where(sound, start, 0)

    def _attempt(self, slope: Slope, start: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """(states at u = last, torchode's status) of each row."""
        term = torchode.ODETerm(slope)
        controller = torchode.IntegralController(self._atol, self._rtol, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller, max_steps=self._max_steps).to(
            start.device
        )
        u_start, u_end = (u.to(start).expand(len(start)) for u in (first, last))
        with torch.no_grad():
            solution = solver.solve(torchode.InitialValueProblem(y0=start, t_start=u_start, t_end=u_end))
        return solution.ys[:, -1], solution.status


def _masked(slope: Slope, sound: Tensor, u: Tensor, state: Tensor) -> Tensor:
    """The slope, 0 in rows that are not sound."""
    return torch.where(sound, slope(u, state), 0)
