"""Confidence intervals of metrics, from subsamples without replacement: the jackknife that leaves out many images.

The n images are divided at random into three parts of sizes m_j, and each is left out in turn. With h_j = n / m_j, the
metric v of all images and v_j of those outside part j,

    v_J = 3 v - sum_j (1 - 1 / h_j) v_j                                     v without its bias of order 1 / n
    se^2 = 1/3 sum_j (h_j v - (h_j - 1) v_j - v_J)^2 / (h_j - 1)            its variance

(Busing et al. 1999), both averaged over 7 such divisions. The interval is v -+ t se, with the quantile of Student's t
for 2 degrees of freedom of each division. It is about the draw of the images: the reference is taken as it is.

Without replacement, because copies of an image, which a bootstrap has, are each other's nearest neighbors, and bias
kernel and Fréchet distances. A third rather than a single image, because recall and coverage are no smooth functions of
single images, and their variance would be overestimated (Shao & Wu 1989).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

DIVISIONS, PARTS = 7, 3
LEAST = 40  # images below which there are no intervals
CONFIDENCE = 0.95
SEED = 1999


@dataclass(frozen=True)
class Subsamples:
    """Which images metrics are computed of.

    Args:
        weights: float64 (1 + S, n), 1 for images of a subsample and 0 for others; the first row has all images.
    """

    weights: Tensor

    @classmethod
    def of(cls, n: int, conditions: int | None = None) -> "Subsamples":
        """All n images, then all without each part of each division; below LEAST images all only.

        Args:
            n: images.
            conditions: number of pictures that images are conditioned on, image i on picture i modulo it. Images of
                one picture are alike, so they are left out together, and LEAST is the least number of pictures.
        """
        order, count = np.random.RandomState(SEED), n if conditions is None else min(n, conditions)
        divisions = [order.permutation(count) % PARTS for _ in range(DIVISIONS if count >= LEAST else 0)]
        parts = [torch.from_numpy(division[np.arange(n) % count]) for division in divisions]
        left_out = [part == j for part in parts for j in range(PARTS)]
        return cls(1 - torch.stack([torch.zeros(n, dtype=torch.bool), *left_out]).double())

    @property
    def count(self) -> int:
        """S, the subsamples besides all images."""
        return len(self.weights) - 1

    @property
    def sizes(self) -> Tensor:
        """float64 (1 + S,), images in each."""
        return self.weights.sum(1)

    @property
    def left_out(self) -> Tensor:
        """bool (S, n): images that are not in a subsample."""
        return self.weights[1:] == 0

    def means(self, values: Tensor) -> Tensor:
        """The mean of values (n,) over each subsample, float64 (1 + S,), on the CPU."""
        return self.weights @ values.double().cpu() / self.sizes


@dataclass(frozen=True)
class Jackknife:
    """v_J and se of a metric, averaged over the divisions."""

    unbiased: float
    error: float

    @classmethod
    def of(cls, values: Tensor, sizes: Tensor) -> "Jackknife":
        """From a metric of all images and of each subsample, and their sizes, both (1 + S,)."""
        v, without = values[0], values[1:].unflatten(0, (-1, PARTS))
        h = sizes[0] / (sizes[0] - sizes[1:]).unflatten(0, (-1, PARTS))
        unbiased = PARTS * v - ((1 - 1 / h) * without).sum(1)
        variance = ((h * v - (h - 1) * without - unbiased[:, None]).square() / (h - 1)).mean()
        return cls(unbiased.mean().item(), variance.sqrt().item())


@dataclass(frozen=True)
class Values:
    """Metrics by name.

    Args:
        values: of all images and of each subsample, float64 (1 + S,); (1,) of what has no interval.
        sizes: by name too, (1 + S,), images in each.
    """

    values: Mapping[str, Tensor]
    sizes: Mapping[str, Tensor]

    @classmethod
    def of(cls, values: Mapping[str, Tensor], sizes: Tensor) -> "Values":
        """Metrics of the same subsamples."""
        return cls(values, dict.fromkeys(values, sizes))

    @classmethod
    def mean(cls, seeds: Sequence["Values"]) -> "Values":
        """Means over several seeds, of the same metrics."""
        names = seeds[0].values
        return cls({name: torch.stack([s.values[name] for s in seeds]).mean(0) for name in names}, seeds[0].sizes)

    def __or__(self, other: "Values") -> "Values":
        """Both, of the same images."""
        return Values({**self.values, **other.values}, {**self.sizes, **other.sizes})

    @property
    def metrics(self) -> dict[str, float]:
        """Of all images."""
        return {name: values[0].item() for name, values in self.values.items()}

    @property
    def intervals(self) -> dict[str, list[float]]:
        """The 95 % interval [low, high] of each metric that has one."""
        reach = float(student.ppf((1 + CONFIDENCE) / 2, DIVISIONS * (PARTS - 1)))
        bounds = {}
        for name, values in self.values.items():
            if len(values) > 1:
                error = Jackknife.of(values, self.sizes[name]).error
                bounds[name] = [values[0].item() - reach * error, values[0].item() + reach * error]
        return bounds


def method(n: int) -> str:
    """What metrics.json says of the intervals of n images."""
    if n < LEAST:
        return f"none: they need {LEAST} images"
    return f"{CONFIDENCE:.0%}, of the draw of the images: jackknife over {DIVISIONS} divisions into {PARTS} parts"
