"""The settings of diffusers' schedulers: noise levels, prediction and variance, read and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_lightning.errors import UserError
from score_lightning.models import ScoreModel
from score_lightning.schedules import cosine, linear_beta
from score_lightning.schedules.discrete import from_betas

PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}


def levels(scheduler: Mapping[str, Any], place: Path) -> tuple[Tensor, str]:
    """(alpha (levels,) float64, least noise first; the prediction) of a scheduler_config.json.

    Raises:
        UserError: when the scheduler's noise levels or prediction are not known here, or make no sense.
    """
    try:
        return _levels(scheduler, place)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{place}: scheduler_config.json makes no sense: {reason}") from error


def _levels(scheduler: Mapping[str, Any], place: Path) -> tuple[Tensor, str]:
    if scheduler.get("rescale_betas_zero_snr") or scheduler.get("predict_epsilon") is False:
        raise UserError(f"{place}: schedulers with rescale_betas_zero_snr, or predict_epsilon false, cannot be read")
    name = scheduler.get("_class_name", "DDPMScheduler")
    if name not in ("DDPMScheduler", "DDIMScheduler") and not scheduler.keys() & {"beta_schedule", "trained_betas"}:
        raise UserError(
            f"{place}: its scheduler, {name}, has no betas; only noise levels linear, squaredcos_cap_v2 and "
            "trained_betas can be read"
        )
    n, kind = scheduler.get("num_train_timesteps", 1000), scheduler.get("beta_schedule", "linear")
    first, last = scheduler.get("beta_start", 0.0001), scheduler.get("beta_end", 0.02)
    prediction = PREDICTIONS.get(scheduler.get("prediction_type", "epsilon"))
    if prediction is None:
        raise UserError(f"{place}: prediction_type must be one of {', '.join(PREDICTIONS)}")
    if scheduler.get("trained_betas") is not None:
        schedule = from_betas(torch.tensor(scheduler["trained_betas"], dtype=torch.float64))
    elif kind == "linear":
        schedule = linear_beta(first, last, n)
    elif kind == "squaredcos_cap_v2":
        schedule = cosine(n)
    else:
        raise UserError(f"{place}: noise levels {kind!r} are not among linear, squaredcos_cap_v2 and trained_betas")
    return schedule(torch.arange(schedule.levels))[0], prediction


VARIANCES = {"large": "fixed_large", "small": "fixed_small", "learned": "learned_range"}


def sampler_settings(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of our ancestral sampler that a DDPMScheduler's config.json names."""
    named = {theirs: ours for ours, theirs in VARIANCES.items()}.get(scheduler.get("variance_type", ""))
    clip = scheduler.get("clip_sample")
    return ({"variance": named} if named else {}) | ({"clip": clip} if isinstance(clip, bool) else {})


def scheduler_config(model: ScoreModel, variance: str, clip: bool, place: str) -> dict[str, Any]:
    """The scheduler_config.json of a DDPMScheduler with a model's noise levels.

    Raises:
        UserError: when it has no levels, or they do not preserve the variance.
    """
    schedule, names = model.schedule, {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if schedule.levels is None or model.prediction not in names:
        raise UserError(
            f"{place}: only networks with discrete noise levels and a prediction among {', '.join(names)} can be "
            "written for diffusers"
        )
    alpha, sigma = schedule(torch.arange(schedule.levels))
    if (alpha**2 + sigma**2 - 1).abs().max() > 1e-6:
        raise UserError(f"{place}: diffusers' DDPMScheduler takes levels with alpha^2 + sigma^2 = 1 only")
    before = torch.cat([alpha.new_ones(1), alpha[:-1]])
    beta = 1 - (alpha / before) ** 2
    first, last = round(beta[0].item(), 12), round(beta[-1].item(), 12)
    betas: dict[str, Any] = {"beta_schedule": "linear", "trained_betas": beta.tolist()}
    if torch.allclose(beta, torch.linspace(first, last, schedule.levels, dtype=torch.float64), atol=1e-12):
        betas = {"beta_schedule": "linear", "beta_start": first, "beta_end": last}
    elif torch.allclose(alpha, cosine(schedule.levels)(torch.arange(schedule.levels))[0]):
        betas = {"beta_schedule": "squaredcos_cap_v2"}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.levels,
        **betas,
        "prediction_type": names[model.prediction],
        "variance_type": VARIANCES[variance],
        "clip_sample": clip,
    }
