"""Likelihood and latents: what the probability-flow ODE, being invertible, says of data (Song et al. 2021a, Sec. 4.3).

The ODE carries x_0 at the least noise to x_T at the most. With the distribution N(0, sigma_T^2 I) there, also where the
sampling of a recipe starts from another, the instantaneous change of variables (Chen et al. 2018, Eq. 8) gives the
density of x_0 under the model,

    ln p(x_0) = ln N(x_T; 0, sigma_T^2 I) - [ln p_T(x_T) - ln p_0(x_0)]  along the path.

x_0 is taken for data at the schedule's least noise, as in the paper. A discrete schedule is taken in its limit.
"""

import copy
import math
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from score_lightning.divergence import along, exact
from score_lightning.models import Model
from score_lightning.samplers.flow import ProbabilityFlow
from score_lightning.schedules import RandnLike

EXACT = 16  # dimensions up to which the trace is taken exactly without being asked: each costs a backward pass

Trace = Literal["exact", "hutchinson"]


def bits_per_dim(
    model: Model,
    x_0: Tensor,
    trace: Trace | None = None,
    randn_like: RandnLike = torch.randn_like,
    flow: ProbabilityFlow | None = None,
) -> Tensor:
    """-log2 p(x_0) / D in bits per dimension, (B,), of data x_0 (B, ...) with a density.

    Images of gray levels have a density once uniform noise is added to them (Theis et al. 2016); of 256 levels, those
    in [-1, 1] then have 7 bits per dimension more than the result, those in [0, 1] 8.

    Args:
        model: with any schedule that has a continuous limit, and a network that takes times of it.
        x_0: data in the range of the model.
        trace: `exact`, or Hutchinson's unbiased estimate with one random direction v of signs for each image, the
            same along the whole path (Grathwohl et al. 2019); exact up to 16 dimensions when None.
        randn_like: draws v.
        flow: tolerances of the solver, 1e-6 when None.

    Raises:
        ValueError: for another trace, a network that takes discrete levels only, or a compiled one.
    """
    dim = x_0.shape[1:].numel()
    trace = trace or ("exact" if dim <= EXACT else "hutchinson")
    if trace not in ("exact", "hutchinson"):
        raise ValueError(f"trace must be exact or hutchinson, got {trace!r}")
    divergence = exact if trace == "exact" else partial(along, randn_like(x_0).sign())
    _refuse_compiled(model)
    model, flow = continuous(model), flow or ProbabilityFlow(1e-6, 1e-6)
    schedule = model.schedule
    latents, change = flow.solve(model, x_0, schedule.t_min, schedule.t_max, divergence)
    sigma = schedule(schedule.t_max)[1].to(change)
    squares = latents.to(change).flatten(1).square().sum(1)
    prior = -squares / (2 * sigma**2) - dim * torch.log(sigma * math.sqrt(2 * math.pi))
    return ((change - prior) / (dim * math.log(2))).to(x_0.dtype)


def _refuse_compiled(model: object) -> None:
    while model is not None:
        if getattr(getattr(model, "net", None), "_compiled_call_impl", None) is not None:
            raise ValueError(
                "the likelihood takes derivatives of the network that a compiled one does not have: build it anew"
            )
        model = getattr(model, "model", None)


def encode(model: Model, x_0: Tensor, flow: ProbabilityFlow | None = None) -> Tensor:
    """The latents of x_0 (B, ...): x at the most noise, of x_0's shape."""
    model = continuous(model)
    return (flow or ProbabilityFlow())(model, x_0, model.schedule.t_min, model.schedule.t_max)


def decode(model: Model, latents: Tensor, flow: ProbabilityFlow | None = None) -> Tensor:
    """Data of latents (B, ...): the inverse of `encode`."""
    model = continuous(model)
    return (flow or ProbabilityFlow())(model, latents, model.schedule.t_max, model.schedule.t_min)


def interpolate(first: Tensor, last: Tensor, n: int) -> Tensor:
    """(n, ...) latents on the great circle from one (...) to another, both included (Shoemake 1985).

    A straight line would lead through latents that are shorter than those of any data.

    Raises:
        ValueError: when n < 2.
    """
    if n < 2:
        raise ValueError(f"an interpolation has at least its two ends, got n = {n}")
    a, b = (latents.flatten().cpu().double() for latents in (first, last))
    norms = (a.norm() * b.norm()).clamp(min=torch.finfo(a.dtype).tiny)  # a zero latent has no direction
    angle = torch.acos(torch.clamp(a @ b / norms, -1, 1)).clamp(1e-6, math.pi - 1e-6)
    share = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    path = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    return path.view(n, *first.shape).to(first)


def check_times(model: Model, x_0: Tensor) -> None:
    """Refuses a network that does not take all times of the continuous limit, by giving it one of x_0 (B, ...).

    Raises:
        ValueError: with its reason.
    """
    limit = continuous(model)
    try:
        with torch.no_grad():
            limit(x_0, limit.schedule.at(torch.tensor(0.4567, dtype=torch.float64)))
    except (RuntimeError, TypeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the network does not take the times between its levels: {reason}") from error


M = TypeVar("M", bound=Model)


def continuous(model: M) -> M:
    """The same model, or a wrapper of it, with the continuous limit of its schedule; the original keeps its own."""
    twin = copy.copy(model)
    twin.schedule = model.schedule.continuous()
    return twin
