"""Bits per dimension of held-out images: by the probability-flow ODE, and DDPM's bound where levels are discrete."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.images import ImageSet
from score_lightning.likelihood import bits_per_dim, check_times, continuous
from score_lightning.models import Model, ScoreModel
from score_lightning.objectives.bound import bound_bits_per_dim
from score_lightning.perturbation import Variance
from score_lightning.pixels import Range
from score_lightning.processes import Rank
from score_lightning.randomness import ImageNoise, derive_seed
from score_lightning.training import told

Bits = Callable[[Model, Tensor, ImageNoise], Tensor]


@dataclass(frozen=True)
class Likelihood:
    """What was found.

    Args:
        metrics: means over the images, in bits per dimension, by name.
        unavailable: what could not be computed, by name, and why.
        settings: what they depend on.
    """

    metrics: dict[str, float]
    unavailable: dict[str, str]
    settings: dict[str, Any]


def mean_bits(
    model: ScoreModel,
    images: ImageSet,
    n: int,
    batch_size: int,
    pixels: Range,
    variance: Variance,
    rank: Rank,
    seed: int = 0,
) -> Likelihood:
    """Mean bits per dimension of the first n images, two or more; the same on every rank, and every rank must call.

    With the flow, one uniform noise below a grey level is added to each image (Theis et al. 2016); the bound is of the
    grey levels themselves, with one noise for each term. Both are functions of the seed and the image.
    """

    def flow(model: Model, grey: Tensor, noise: ImageNoise) -> Tensor:
        x = pixels.encode(grey, torch.special.ndtr(noise(grey.float())))
        return bits_per_dim(model, x, "hutchinson", noise) + math.log2(256 / (pixels.high - pixels.low))

    def bound(model: Model, grey: Tensor, noise: ImageNoise) -> Tensor:
        return bound_bits_per_dim(model, pixels.encode(grey), variance, noise, (pixels.low, pixels.high))[0]

    kinds: dict[str, tuple[ScoreModel, Bits]] = {}
    metrics, errors, unavailable = {}, {}, {}
    try:
        check_times(model, torch.zeros(1, *images.shape, device=next(model.parameters()).device))
        kinds["bits_per_dim_flow"] = (continuous(model), flow)
    except ValueError as error:
        unavailable["bits_per_dim_flow"] = str(error)
    if model.schedule.levels is not None and model.schedule.levels > 1:
        kinds["bits_per_dim_bound"] = (model, bound)
    for name, (given, bits) in kinds.items():
        found = _bits(given, bits, images, n, batch_size, rank, seed, name)
        if not found.isfinite().all():
            unavailable[name] = f"{int((~found.isfinite()).sum())} of {n} images have none that is finite"
            continue
        metrics[name] = found.mean().item()
        errors[name] = (found.std() / math.sqrt(n)).item()
    settings = {
        "n": n,
        "images": "held out",
        "noise": 1,
        "trace": "hutchinson",
        "prior": "N(0, sigma_T^2)",
        "bound_variance": variance,
    }
    return Likelihood(metrics, unavailable, {**settings, "standard_error": errors})


def _bits(
    model: ScoreModel, bits: Bits, images: ImageSet, n: int, batch_size: int, rank: Rank, seed: int, name: str
) -> Tensor:
    """(n,) bits per dimension, by image."""
    device, mine = next(model.parameters()).device, []
    batches = torch.arange(n).split(batch_size)
    for index in tqdm(batches[rank.number :: rank.count], desc=name, disable=None if rank.number == 0 else True):
        labels = None if images.labels is None else images.labels[index].to(device)
        noise = ImageNoise(derive_seed(seed, "likelihood"), index.tolist())
        mine.append((index, bits(told(model, labels), images[index].to(device), noise).cpu().double()))
    everyones = [pair for part in rank.gather(mine) for pair in part]
    found = torch.full((n,), math.nan, dtype=torch.float64)
    for index, values in everyones:
        found[index] = values
    return found
