"""What a network embeds of the noise: its time, the number of its level, or the logarithm of its standard deviation."""

from collections.abc import Callable

import torch
from torch import Tensor

from score_lightning.models.preconditioning import precondition
from score_lightning.schedules import Schedule

USUAL_LEVELS = 1000  # that networks of continuous time are made for (Song et al. 2021a, its code)

Conditioning = Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]
"""(schedule, t, alpha, sigma) -> what the network embeds, of t's shape."""


def time(schedule: Schedule, t: Tensor) -> Tensor:
    """t itself of discrete levels; continuous times in units of the levels that a network is trained with."""
    return t if schedule.levels is not None else t * ((schedule.limit_of or USUAL_LEVELS) - 1)


def time_of_1000(schedule: Schedule, t: Tensor) -> Tensor:
    """The time as if there were 1000 levels, whatever their number (Nichol & Dhariwal 2021, its code)."""
    now = time(schedule, t)
    # a quotient of integers would have the default type, which may be of half precision
    now = now if now.is_floating_point() else now.to(torch.float32)
    return now * 1000 / (time(schedule, schedule.t_max) + 1)


def level(schedule: Schedule, t: Tensor) -> Tensor:
    """NCSN's index of a level, counted from the largest sigma.

    Raises:
        ValueError: for continuous time.
    """
    if schedule.levels is None:
        raise ValueError(
            "a network that embeds the number of its noise level visits the levels of a discrete schedule only; "
            "condition it on time or log_sigma"
        )
    return schedule.levels - 1 - t


CONDITIONINGS: dict[str, Conditioning] = {
    "time": lambda schedule, t, alpha, sigma: time(schedule, t),
    "time_of_1000": lambda schedule, t, alpha, sigma: time_of_1000(schedule, t),
    "level": lambda schedule, t, alpha, sigma: level(schedule, t),
    "log_sigma": lambda schedule, t, alpha, sigma: sigma.log(),
    "edm": lambda schedule, t, alpha, sigma: precondition(sigma / alpha, 1.0).c_noise,
}
"""By name; edm is the c_noise of its preconditioning, which does not depend on sigma_data."""
