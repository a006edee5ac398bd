"""Losses of a model itself: its validation loss at each noise level, and bits per dimension of held-out images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from tqdm.auto import tqdm

from score_lightning.conditional import condition
from score_lightning.data.images import ImageSet
from score_lightning.data.module import ValidationOrder
from score_lightning.data.pixels import Range
from score_lightning.likelihood import bits_per_dim, check_times, continuous
from score_lightning.models import Model, ScoreModel
from score_lightning.objectives import Objective
from score_lightning.objectives.bound import bound_bits_per_dim
from score_lightning.perturbation import Variance
from score_lightning.runtime.processes import Rank
from score_lightning.runtime.randomness import ImageNoise, derive_seed

Bits = Callable[[Model, Tensor, ImageNoise], Tensor]


class LevelLosses(Metric):
    """Mean loss at each of `levels` noise levels, over all ranks."""

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(levels), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(levels), dist_reduce_fx="sum")

    def update(self, level: Tensor, loss: Tensor) -> None:
        """Adds losses (B,) at the levels (B,), int64."""
        self.sums.index_add_(0, level, loss.to(self.sums.dtype))
        self.counts.index_add_(0, level, torch.ones_like(level, dtype=self.counts.dtype))

    def compute(self) -> Tensor:
        """(levels,) means."""
        return self.sums / self.counts


class ValidationLoss:
    """The loss for triples (image, time, noise) that are functions of the seed and the triple's number.

    Args:
        objective: the loss.
        model: whose schedule the times are of.
        pixels: range of pixels in the model.
        levels: number of times, spread over the schedule, at most all of them.
        seed: of the noise.
    """

    def __init__(self, objective: Objective, model: ScoreModel, pixels: Range, levels: int, seed: int) -> None:
        self._objective, self._pixels, self._seed = objective, pixels, seed
        self.times = model.schedule.times(min(levels, model.schedule.levels or levels))

    def __call__(
        self, model: ScoreModel, images: Tensor, numbers: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(level (B,), loss (B,)) of uint8 images (B, C, H, W), labels (B,), in the triples with these numbers (B,)."""
        noise = ImageNoise(derive_seed(self._seed, "validation"), numbers.tolist())
        # the second term moves an image to another level each time it comes round
        level = (numbers + numbers // len(self.times)) % len(self.times)
        t = self.times.to(level.device)[level]
        return level, self._objective(condition(model, labels), self._pixels.encode(images), t, noise)


@torch.no_grad()
def level_losses(
    model: ScoreModel, loss: ValidationLoss, images: ImageSet, n: int, batch_size: int, rank: Rank
) -> tuple[Tensor, Tensor]:
    """(sigma / alpha, mean loss) at each level, both (levels,), of n triples (image, time, noise) over all ranks.

    The same triples as in training's validation; every rank must call.
    """
    device = next(model.parameters()).device
    losses = LevelLosses(len(loss.times)).to(device)
    for _, index in ValidationOrder(n, batch_size, rank.number, rank.count):
        place = index % len(images)
        labels = None if images.labels is None else images.labels[place].to(device)
        losses.update(*loss(model, images[place].to(device), index.to(device), labels))
    alpha, sigma = model.schedule(loss.times)
    return (sigma / alpha).cpu(), losses.compute().view(-1).cpu()


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
        mine.append((index, bits(condition(model, labels), images[index].to(device), noise).cpu().double()))
    everyones = [pair for part in rank.gather(mine) for pair in part]
    found = torch.full((n,), math.nan, dtype=torch.float64)
    for index, values in everyones:
        found[index] = values
    return found
