"""Training objectives: (model, x_0, t) -> loss per example, a mean over dimensions.

Denoising score matching at the noise level t (Vincent 2011; Song & Ermon 2019, Eq. 5),

    lambda(t) mean |score(x_t, t) + eps / sigma|^2 = lambda(t) / sigma^2 mean |eps_hat - eps|^2,

is NCSN's loss and, with lambda = sigma^2, DDPM's L_simple (Ho et al. 2020, Eq. 14): one function.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from score_lightning.models import Model
from score_lightning.perturbation import perturb
from score_lightning.schedules import Discrete, RandnLike

Weight = Callable[[Tensor, Tensor], Tensor]

WEIGHTS: dict[str, Callable[[float], Weight]] = {
    "sigma2": lambda gamma: lambda alpha, sigma: sigma**2,
    "uniform": lambda gamma: lambda alpha, sigma: torch.ones_like(sigma),
    "min_snr": lambda gamma: lambda alpha, sigma: sigma**2 * (gamma * sigma**2 / alpha**2).clamp(max=1),
}
"""lambda(alpha, sigma), the weight of the score loss.

sigma2 makes every level count alike (Song & Ermon 2019, Sec. 4.2). min_snr is min(SNR, gamma) on the x_0 loss, that is
min(1, gamma / SNR) on the eps loss, SNR = alpha^2 / sigma^2 (Hang et al. 2023).
"""


class Denoising:
    """Denoising score matching with the weight lambda(t) and t uniform over the schedule.

    Args:
        weight: sigma2, uniform or min_snr (see WEIGHTS).
        gamma: the largest signal-to-noise ratio that min_snr counts.

    Raises:
        ValueError: for an unknown weight or a gamma that is not positive.
    """

    def __init__(self, weight: str = "sigma2", gamma: float = 5.0) -> None:
        if weight not in WEIGHTS:
            raise ValueError(f"unknown weight {weight!r}; choose one of {', '.join(WEIGHTS)}")
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma}")
        self._weight = WEIGHTS[weight](gamma)

    def draw_t(self, schedule: Discrete, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        return schedule.at(u)

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        alpha, sigma = model.schedule(t)
        eps = randn_like(x_0)
        eps_hat = model(perturb(x_0, alpha, sigma, eps), t).eps
        weight = (self._weight(alpha, sigma) / sigma**2).to(x_0.dtype)
        return weight * (eps_hat - eps).square().flatten(1).mean(1)
