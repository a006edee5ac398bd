"""Consistency training: one evaluation maps any point of a path of the probability flow to its end, the data.

The consistency function is the model's x_0 (Song et al. 2023a). It is to be the same at two times r < t of one path:

    weight |f(x_t, t) - f(x_r, r)|^2,    f(x_0, 0) = x_0,    x_t and x_r of one x_0 and one eps

and f(x_r, r), a constant with the same weights (Song & Dhariwal 2024, Sec. 3.2), carries the boundary condition to
ever larger times. Where r = 0 this is denoising: a trained score model is where to start, and r comes nearer to t as
training proceeds (Geng et al. 2024). Here n = sigma / alpha stands for the time, whatever the schedule.
"""

import torch
from torch import Tensor

from score_lightning.models import Model
from score_lightning.objectives.denoising import log_normal_times
from score_lightning.perturbation import expand, perturb
from score_lightning.schedules import PURE_NOISE, RandnLike, Schedule


class Consistency:
    """The distance of x_0 at two times of one path, over the difference of their n = sigma / alpha.

    The earlier time has n_r = n_t max(0, 1 - (1 + k sigmoid(-b n_t)) / q^(i + 1)) in stage i (Geng et al. 2024,
    Sec. 3). Where it lies below the schedule's t_min, r is 0. EDM's preconditioned x_0 meets the boundary condition by
    itself, to within n at t_min; another prediction learns it, where r is 0.

    Args:
        q: by what the difference of the times shrinks from stage to stage.
        stages: number of stages, of equal parts of the training.
        k, b: how much larger the difference is where n is small.
        c: of the pseudo-Huber distance sqrt(d^2 + c^2) - c, d^2 the mean square over dimensions, so that its unit is
            that of a pixel (Song & Dhariwal 2024, Sec. 3.3); 0 for d itself, None for d^2.
        log_mean, log_std: of ln(sigma / alpha) of training times.
        stratified: as of `Denoising`.

    Attributes:
        progress: share of the training that is done, which sets the stage; that of the end but during training.

    Raises:
        ValueError: when q <= 1, stages < 1, k, b or c is negative, or log_std is not positive.
    """

    def __init__(
        self,
        q: float = 2.0,
        stages: int = 8,
        k: float = 8.0,
        b: float = 1.0,
        c: float | None = 0.0,
        log_mean: float = -1.1,
        log_std: float = 2.0,
        stratified: bool = False,
    ) -> None:
        if not q > 1 or stages < 1 or k < 0 or b < 0 or not log_std > 0 or (c is not None and c < 0):
            raise ValueError(
                "consistency needs q > 1, stages >= 1, k, b and c of at least 0 and log_std > 0; "
                f"got {q}, {stages}, {k}, {b}, {c} and {log_std}"
            )
        self._q, self._stages, self._k, self._b, self._c = q, stages, k, b, c
        self._log = (log_mean, log_std)
        self.stratified, self.progress = stratified, 1.0

    def check(self, schedule: Schedule, dim: int) -> None:  # noqa: ARG002
        """Refuses a schedule that has no times between its levels, or ends in pure noise.

        Raises:
            ValueError: with the alternative.
        """
        if not schedule.has_sde:
            raise ValueError(
                "consistency compares times that are ever nearer to each other, and discrete levels have none between "
                "them: take the limit of the schedule (continuous=true), or schedule=edm, vp or ve"
            )
        if schedule.ends_in_noise:
            raise ValueError(f"consistency needs a finite sigma / alpha, and {PURE_NOISE}: take schedule=edm, vp or ve")

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        return log_normal_times(schedule, u, *self._log)

    def earlier(self, n: Tensor) -> Tensor:
        """n = sigma / alpha at r, of the shape of n at t, in the stage of the progress; 0 for the data."""
        stage = min(int(self.progress * self._stages), self._stages - 1)
        return n * (1 - (1 + self._k * torch.sigmoid(-self._b * n)) / self._q ** (stage + 1)).clamp(min=0)

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        schedule, t, eps = model.schedule, t.expand(len(x_0)), randn_like(x_0)
        n_t = schedule.ratio(t)
        n_r = self.earlier(n_t)
        perturbed = n_r >= schedule.ratio(schedule.t_min)
        r = schedule.time_of(torch.where(perturbed, n_r, n_t))  # any time where there is none
        cuda = [x_0.device] if x_0.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(cuda):  # dropout is the same at both times
            target = model(perturb(x_0, *schedule(r), eps), r).x_0
        target = torch.where(expand(perturbed, x_0).bool(), target, x_0)
        d2 = (model(perturb(x_0, *schedule(t), eps), t).x_0 - target).square().flatten(1).mean(1)
        weight = 1 / (n_t - torch.where(perturbed, n_r, 0))
        return weight.to(x_0.dtype) * self._distance(d2)

    def _distance(self, d2: Tensor) -> Tensor:
        if self._c is None:
            return d2
        # the root has no derivative at 0
        return (d2 + self._c**2).clamp(min=torch.finfo(d2.dtype).tiny).sqrt() - self._c
