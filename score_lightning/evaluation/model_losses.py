"""Losses of a model: its validation loss at each noise level, and bits per dimension of held-out images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from tqdm.auto import tqdm

from score_lightning.conditional import Condition, Given, condition
from score_lightning.data.images import ImageSet
from score_lightning.data.orders import ValidationOrder
from score_lightning.data.pixels import Range
from score_lightning.generation.conditions import Conditions
from score_lightning.likelihood import bits_per_dim, check_times, continuous
from score_lightning.models import Model, ScoreModel
from score_lightning.objectives import Objective
from score_lightning.objectives.bound import bound_bits_per_dim
from score_lightning.perturbation import Variance
from score_lightning.runtime.processes import Rank
from score_lightning.runtime.randomness import ImageNoise, derive_seed

Bits = Callable[[Model, Tensor, ImageNoise], Tensor]


class LevelLosses(Metric):
    """Mean loss at each of `levels` noise levels, over the images of all ranks."""

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
    """The loss of triples (image, time, noise) that are functions of the seed and the triple's number.

    Args:
        objective: the loss.
        model: its schedule gives the times.
        pixels: range of pixels in the model.
        levels: number of times, spread over the schedule, at most all of its levels.
        seed: of the noise.
        given: the pictures that images are conditioned on.
    """

    def __init__(
        self,
        objective: Objective,
        model: ScoreModel,
        pixels: Range,
        levels: int,
        seed: int,
        given: Condition | None = None,
    ) -> None:
        self._objective, self._pixels, self._seed, self._condition = objective, pixels, seed, given
        self.times = model.schedule.times(min(levels, model.schedule.levels or levels))

    def __call__(
        self,
        model: ScoreModel,
        images: Tensor,
        numbers: Tensor,
        labels: Tensor | None = None,
        pictures: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(level (B,), loss (B,)) of images (B, C, H, W) in the triples with these numbers (B,).

        Args:
            model: the model.
            images, numbers: as above.
            labels: int64 (B,), for a model that is conditioned on them.
            pictures: (B, K, H, W), those that the images are paired with.
        """
        noise = ImageNoise(derive_seed(self._seed, "validation"), numbers.tolist())
        # the second term moves an image to another level each time it is used again
        level = (numbers + numbers // len(self.times)) % len(self.times)
        t = self.times.to(level.device)[level]
        u = torch.special.ndtr(noise(images.float())) if self._pixels.dequantized else None
        x_0, given = self._pixels.encode(images, u), None
        if self._condition is not None:
            picture = x_0 if pictures is None else self._pixels.encode(pictures)
            given = Given(self._condition, self._condition(picture, noise))
        return level, self._objective(condition(model, labels, given=given), x_0, t, noise)


@torch.no_grad()
def level_losses(
    model: ScoreModel, loss: ValidationLoss, images: ImageSet, n: int, batch_size: int, rank: Rank
) -> tuple[Tensor, Tensor]:
    """(sigma / alpha, mean loss) at each level, both (levels,), over n triples (image, time, noise) of all ranks.

    The triples are those of validation during training. Every rank must call.
    """
    device = next(model.parameters()).device
    losses = LevelLosses(len(loss.times)).to(device)
    for _, index in ValidationOrder(n, batch_size, rank.number, rank.count):
        chosen = index % len(images)
        labels = None if images.labels is None else images.labels[chosen].to(device)
        pictures = None if images.conditions is None else images.conditions[chosen].to(device)
        losses.update(*loss(model, images[chosen].to(device), index.to(device), labels, pictures))
    return model.schedule.ratio(loss.times).cpu(), losses.compute().view(-1).cpu()


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of a model.

    Args:
        metrics: means over the images, by name.
        unavailable: metrics that could not be computed: name -> reason.
        settings: everything that the metrics depend on.
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
    conditions: Conditions | None = None,
) -> Likelihood:
    """Mean bits per dimension of the first n images, two or more; the same on every rank, and every rank must call.

    The flow is evaluated on dequantized images, each with one uniform noise below a level of pixels (Theis et al.
    2016); the bound on the pixels themselves, with one noise for each term. Both are functions of the image's number.
    Bits are those given the conditions, if there are any; pixels that are known are counted among the others.
    """
    estimators: dict[str, tuple[ScoreModel, Bits]] = {}
    metrics, errors, unavailable = {}, {}, {}
    try:
        check_times(model, torch.zeros(1, *images.shape, device=next(model.parameters()).device))
        if conditions is not None and conditions.condition.partial:
            raise ValueError("pixels that are known have no density")
        estimators["bits_per_dim_flow"] = (continuous(model), _flow(pixels))
    except ValueError as error:
        unavailable["bits_per_dim_flow"] = str(error)
    if model.schedule.levels is not None and model.schedule.levels > 1:
        estimators["bits_per_dim_bound"] = (model, _bound(pixels, variance))
    for name, (estimated, bits) in estimators.items():
        values = _bits(estimated, bits, images, n, batch_size, rank, conditions, name)
        if not values.isfinite().all():
            unavailable[name] = f"for {int((~values.isfinite()).sum())} of {n} images it is not finite"
            continue
        metrics[name] = values.mean().item()
        errors[name] = (values.std() / math.sqrt(n)).item()
    return Likelihood(metrics, unavailable, {**_likelihood_settings(n, variance), "standard_error": errors})


def _likelihood_settings(n: int, variance: Variance) -> dict[str, Any]:
    return {
        "n": n,
        "images": "held out",
        "noise": 1,
        "trace": "hutchinson",
        "prior": "N(0, sigma_T^2)",
        "bound_variance": variance,
    }


def _flow(pixels: Range) -> Bits:
    """By the probability-flow ODE, with Hutchinson's estimate of the divergence."""

    def bits(model: Model, images: Tensor, noise: ImageNoise) -> Tensor:
        x = pixels.encode(images, torch.special.ndtr(noise(images.float())))
        assert pixels.levels is not None
        return bits_per_dim(model, x, "hutchinson", noise) + math.log2(pixels.levels / (pixels.high - pixels.low))

    return bits


def _bound(pixels: Range, variance: Variance) -> Bits:
    """By the variational bound of discrete levels."""

    def bits(model: Model, images: Tensor, noise: ImageNoise) -> Tensor:
        ends = (pixels.low, pixels.high)
        return bound_bits_per_dim(model, pixels.encode(images), variance, noise, ends, pixels.levels)[0]

    return bits


def _bits(
    model: ScoreModel,
    bits: Bits,
    images: ImageSet,
    n: int,
    batch_size: int,
    rank: Rank,
    conditions: Conditions | None,
    name: str,
) -> Tensor:
    """(n,) float64, bits per dimension of each image; `name` is shown with the progress."""
    device, mine = next(model.parameters()).device, []
    batches = torch.arange(n).split(batch_size)
    for index in tqdm(batches[rank.number :: rank.count], desc=name, disable=None if rank.number == 0 else True):
        labels = None if images.labels is None else images.labels[index].to(device)
        given = None if conditions is None else conditions.given(index.tolist(), device)
        noise = ImageNoise(derive_seed(0, "likelihood"), index.tolist())
        conditioned = condition(model, labels, given=given)
        mine.append((index, bits(conditioned, images[index].to(device), noise).cpu().double()))
    bits_of_all = torch.full((n,), math.nan, dtype=torch.float64)
    for part in rank.gather(mine):
        for index, values in part:
            bits_of_all[index] = values
    return bits_of_all
