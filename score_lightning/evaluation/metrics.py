"""Metrics of images against reference images: states of torchmetrics, reduced over ranks, and the final formulas.

Numbers are torch-fidelity's where it has the metric; kernel distances are computed in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from score_lightning.evaluation.frechet import frechet_distance, subsampled_distances
from score_lightning.evaluation.inception_score import inception_scores
from score_lightning.evaluation.intervals import Jackknife, Subsamples
from score_lightning.evaluation.kernel import clip_distance, kernel_distances
from score_lightning.evaluation.neighbors import density_and_coverage, memorization, precision_and_recall

NEIGHBORHOOD = 3  # k of precision and recall (Kynkäänniemi et al. 2019, Sec. 3)


class Moments(Metric):
    """Mean (D,) and covariance (D, D) of features in float64; memory does not grow with their number.

    Args:
        origin: (D,) a point near the mean, subtracted before summing: large means would otherwise cancel digits.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, origin: Tensor) -> None:
        super().__init__()
        dim, self._origin = len(origin), origin.double()
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Adds features (B, D)."""
        features = features.to(self.device).double() - self._origin.to(self.device)
        self.count += len(features)
        self.total += features.sum(0)
        self.outer += features.T @ features

    def compute(self) -> tuple[Tensor, Tensor]:
        """(mean, unbiased covariance), on the CPU.

        Raises:
            ValueError: with fewer than two rows of features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {int(self.count)}")
        mean = self.total / self.count
        cov = (self.outer - self.count * mean.outer(mean)) / (self.count - 1)
        return mean.cpu() + self._origin.cpu(), cov.cpu()


class OrderedRows(Metric):
    """Rows of numbers, one per image, gathered from all ranks into the images' order.

    Args:
        row: an example, which gives the shape and type of rows.
    """

    full_state_update = False
    rows: list[Tensor]
    indices: list[Tensor]

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        # backends of several processes do not send uint16
        self._row_dtype, self._sent = row.dtype, torch.int32 if row.dtype == torch.uint16 else row.dtype
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("indices", [], dist_reduce_fx="cat")
        # so that a rank without images takes part in the gathering
        self.update(row.new_empty(0, *row.shape), torch.empty(0, dtype=torch.long))

    def update(self, rows: Tensor, indices: Tensor) -> None:
        """Adds rows (B, ...) of the images with these indices (B,)."""
        self.rows.append(rows.to(self.device, self._sent))
        self.indices.append(indices.to(self.device))

    def compute(self) -> Tensor:
        """(N, ...)."""
        return dim_zero_cat(self.rows)[dim_zero_cat(self.indices).argsort()].to(self._row_dtype)


@dataclass(frozen=True)
class Statistics:
    """Features of a set of images, as their moments and, where metrics need them, one by one.

    Args:
        mean, cov: (D,) and (D, D), float64, of the features.
        features: (N, D) in the images' order; None where they were not kept.
        logits: (N, classes); None where they were not kept or the network has none.
    """

    mean: Tensor
    cov: Tensor
    features: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class MetricSettings:
    """Which metrics to compute, and their parameters.

    Args:
        names: keys of METRICS.
        splits: parts of the shuffled images that the inception score is averaged over.
        kid_subsets, kid_subset_size: random subsets that KID is averaged over, and the images in each, at most all.
    """

    names: tuple[str, ...] = ("fid", "is", "kid", "precision_recall", "density_coverage", "memorization")
    splits: int = 10
    kid_subsets: int = 100
    kid_subset_size: int = 1000


@dataclass(frozen=True)
class Comparison:
    """Statistics of generated and of real images, and features (N, D) of real images that are in neither set.

    Args:
        subsamples: of the generated images, whose metrics give the intervals.
    """

    fake: Statistics
    real: Statistics
    held_out: Tensor | None
    settings: MetricSettings
    subsamples: Subsamples

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """Features of the generated and of the real images."""
        assert self.fake.features is not None
        assert self.real.features is not None
        return self.fake.features, self.real.features


@dataclass(frozen=True)
class Definition:
    """A metric.

    Args:
        formula: values by name, each of all images and then of each subsample, float64 (1 + S,); what has no interval,
            such as a standard deviation, is of all images only, (1,).
        needs: the parts of a comparison that it needs.
        least: its least number of (fake, real) images.
    """

    formula: Callable[[Comparison], dict[str, Tensor]]
    needs: frozenset[str]
    least: tuple[int, int]


def _fid(comparison: Comparison) -> dict[str, Tensor]:
    """The Fréchet distance, and what it is of infinitely many images.

    Its bias is proportional to 1 / n to first order (Chong & Forsyth 2020). Their line through distances of
    several numbers of images goes here through those of all and of two thirds of the images, in balanced subsamples.
    """
    fake, real, subsamples = comparison.fake, comparison.real, comparison.subsamples
    distance = torch.tensor([frechet_distance(fake.mean, fake.cov, real.mean, real.cov)], dtype=torch.float64)
    if not subsamples.count:
        return {"fid": distance}
    assert fake.features is not None
    values = torch.cat([distance, subsampled_distances(fake.features, subsamples, real.mean, real.cov)])
    return {"fid": values, "fid_infinity": values - distance + Jackknife.of(values, subsamples.sizes).unbiased}


def _inception_score(comparison: Comparison) -> dict[str, Tensor]:
    logits, splits = comparison.fake.logits, comparison.settings.splits
    assert logits is not None
    scores = inception_scores(logits, min(splits, len(logits)), comparison.subsamples)
    return {"is": scores.nanmean(0), "is_std": scores[:, 0].std(correction=0)[None]}


def kid_subset_size(settings: MetricSettings, fake: int, real: int) -> int:
    """Images in each of KID's subsets, at most as many as both sets have."""
    return min(settings.kid_subset_size, fake, real)


def _kid(comparison: Comparison) -> dict[str, Tensor]:
    fake, real = comparison.features
    size = kid_subset_size(comparison.settings, len(fake), len(real))
    distances = kernel_distances(fake, real, comparison.settings.kid_subsets, size, comparison.subsamples)
    return {"kid": distances.mean(0), "kid_std": distances[:, 0].std(correction=0)[None]}


def _cmmd(comparison: Comparison) -> dict[str, Tensor]:
    return {"cmmd": clip_distance(*comparison.features, comparison.subsamples)}


def _precision_recall(comparison: Comparison) -> dict[str, Tensor]:
    """Precision, recall and their harmonic mean."""
    precision, recall = precision_and_recall(*comparison.features, comparison.subsamples, NEIGHBORHOOD)
    f_score = 2 * precision * recall / (precision + recall).clamp(min=1e-5)
    return {"precision": precision, "recall": recall, "f_score": f_score}


def _density_coverage(comparison: Comparison) -> dict[str, Tensor]:
    density, coverage = density_and_coverage(*comparison.features, comparison.subsamples)
    return {"density": density, "coverage": coverage}


def _memorization(comparison: Comparison) -> dict[str, Tensor]:
    assert comparison.held_out is not None
    return {"memorization": memorization(*comparison.features, comparison.held_out, comparison.subsamples)}


METRICS = {
    "fid": Definition(_fid, frozenset(), (2, 2)),
    "is": Definition(_inception_score, frozenset({"logits"}), (2, 0)),
    "kid": Definition(_kid, frozenset({"features"}), (2, 2)),
    "cmmd": Definition(_cmmd, frozenset({"features", "clip"}), (2, 2)),
    "precision_recall": Definition(_precision_recall, frozenset({"features"}), (NEIGHBORHOOD + 1, NEIGHBORHOOD + 1)),
    "density_coverage": Definition(_density_coverage, frozenset({"features"}), (2, 6)),
    "memorization": Definition(_memorization, frozenset({"features", "held_out"}), (2, 2)),
}
