"""Metrics of images against a reference: a single pass of one feature network over them, on any number of ranks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.errors import UserError
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.intervals import Subsamples, Values, method
from score_lightning.evaluation.metrics import (
    METRICS,
    Comparison,
    MetricSettings,
    Statistics,
    kid_subset_size,
)
from score_lightning.evaluation.neighbors import nearest
from score_lightning.evaluation.reference import Reference, collect, reference_statistics
from score_lightning.evaluation.tally import Tally
from score_lightning.generation.store import Batch
from score_lightning.runtime.files import cache_folder
from score_lightning.runtime.processes import Rank

NEIGHBORS = 4  # nearest reference images that are shown beside each image
UNAVAILABLE = {  # what a metric needs -> the reason where it is missing
    "logits": "the features {features} have no class probabilities",
    "features": "the reference is a file of statistics, with which only fid can be computed",
    "clip": "it is defined for CLIP's embedding: features=cmmd",
    "held_out": "no real images besides the reference are known; a data set has them, its test images",
}


@dataclass(frozen=True)
class Result:
    """Metrics of a set of images, and what is needed to show the first of them.

    Args:
        values: by name, such as fid_inception.
        shown: (shown, C, H, W), the first images in order.
        neighbors: (shown, NEIGHBORS) indices of the reference images nearest to each in feature space, nearest first;
            None where the reference's features are not known, and on all ranks but the first.
    """

    values: Values
    shown: Tensor
    neighbors: Tensor | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Value by name."""
        return self.values.metrics


class Evaluator:
    """Metrics of images against a reference.

    Statistics of the reference are read from the cache or computed at the first use, and kept.

    Args:
        features: the feature network.
        reference: the images to compare with.
        shape: (C, H, W) of an image.
        settings: which metrics, and how they are computed.
        depth: how pixels are stored.

    Raises:
        UserError: for an unknown metric, or a network that cannot take the images or does not fit the statistics.
    """

    def __init__(
        self,
        features: Features,
        reference: Reference,
        shape: tuple[int, ...],
        settings: MetricSettings,
        depth: Depth = EIGHT_BITS,
    ) -> None:
        unknown = [name for name in settings.names if name not in METRICS]
        if unknown or not settings.names:
            raise UserError(f"evaluation.metrics must name some of {', '.join(METRICS)}; got {list(settings.names)}")
        self.features, self.reference, self.metrics = features, reference, settings
        self._shape, self.depth, self._cache = shape, depth, cache_folder()
        self._real: Statistics | None = None
        self._held_out: Tensor | None = None
        probe = features.probe(shape, depth)
        _check_dimensions(reference, features, len(probe.origin))
        self._missing = _missing_parts(reference, features.name, probe.classes)

    @property
    def unavailable(self) -> dict[str, str]:
        """Metrics that cannot be computed: name -> reason."""
        missing = {name: [n for n in METRICS[name].needs if n in self._missing] for name in self.metrics.names}
        return {
            f"{name}_{self.features.name}": UNAVAILABLE[parts[0]].format(features=self.features.name)
            for name, parts in missing.items()
            if parts
        }

    def check(self, n: int) -> None:
        """Refuses a number of images that is too small.

        Raises:
            UserError: naming the metric and what to do; or when no metric can be computed at all.
        """
        if not self._available:
            raise UserError(f"no metric can be computed: {'; '.join(self.unavailable.values())}")
        real = math.inf if self.reference.images is None else len(self.reference.images)
        for name in self._available:
            least_fake, least_real = METRICS[name].least
            if n < least_fake or real < least_real:
                others = [other for other in self.metrics.names if other != name]
                raise UserError(
                    f"{name} needs at least {least_fake} images and {least_real} of the reference, got {n} and {real}: "
                    f"take more, or leave it out with evaluation.metrics=[{','.join(others)}]"
                )

    def prepare(self, rank: Rank, progress: bool = False) -> None:
        """Reads or computes the statistics of the reference, once; every rank must call."""
        if self._real is not None:
            return
        real, held_out = self.reference.images, self.reference.held_out
        if set(self._available) == {"is"}:  # the inception score compares with nothing
            self._real = Statistics(torch.empty(0), torch.empty(0))
            return
        if "held_out" in self._needs:
            assert held_out is not None
            self._held_out = reference_statistics(self.features, held_out, True, rank, self._cache, progress).features
        if real is not None:
            keep = "features" in self._needs
            self._real = reference_statistics(self.features, real, keep, rank, self._cache, progress)
        else:
            self._real = self.reference.statistics

    def __call__(self, batches: Iterable[Batch], rank: Rank, shown: int = 0, progress: bool = False) -> Result:
        """Metrics of images, the same on every rank.

        Args:
            batches: this rank's images.
            rank: this process; every rank must call.
            shown: how many of the first images to return.
            progress: whether to show the progress of the reference's features.

        Raises:
            UserError: when pixels of images are not finite, with the number of images.
        """
        self.prepare(rank, progress)
        tally = Tally(torch.empty(self._shape, dtype=self.depth.dtype), shown, rank.device)
        keep = ["features", *(self._needs & {"logits"})]
        fake = collect(self.features, tally.watch(batches), self._shape, keep, rank, self.depth)
        tally.check_finite(rank)
        values = rank.broadcast(self._compute(fake) if rank.number == 0 else None)
        neighbors = self._neighbors(fake, shown) if rank.number == 0 and shown else None
        return Result(values, tally.shown(), neighbors)

    def settings(self, n: int) -> dict[str, Any]:
        """Everything that metrics of n images depend on besides the images."""
        real = n if self.reference.images is None else len(self.reference.images)
        return {
            **self.features.settings(),
            **self.reference.settings(),
            "splits": min(self.metrics.splits, n),
            "kid_subsets": self.metrics.kid_subsets,
            "kid_subset_size": kid_subset_size(self.metrics, n, real),
            "intervals": method(n),
        }

    @property
    def _available(self) -> list[str]:
        return [name for name in self.metrics.names if not METRICS[name].needs & self._missing]

    @property
    def _needs(self) -> set[str]:
        return {need for name in self._available for need in METRICS[name].needs}

    def _compute(self, fake: Statistics) -> Values:
        assert self._real is not None
        assert fake.features is not None
        subsamples = Subsamples.of(len(fake.features))
        comparison = Comparison(fake, self._real, self._held_out, self.metrics, subsamples)
        values: dict[str, Tensor] = {}
        for name in self._available:
            values |= METRICS[name].formula(comparison)
        return Values.of({f"{name}_{self.features.name}": value for name, value in values.items()}, subsamples.sizes)

    def _neighbors(self, fake: Statistics, shown: int) -> Tensor | None:
        if fake.features is None or self._real is None or self._real.features is None:
            return None
        k = min(NEIGHBORS, len(self._real.features))
        return nearest(fake.features[:shown], self._real.features, k)[1].cpu()


def _check_dimensions(reference: Reference, features: Features, dim: int) -> None:
    statistics = reference.statistics
    if statistics is not None and len(statistics.mean) != dim:
        raise UserError(
            f"{reference.name} has statistics of {len(statistics.mean)} features, {features.name} has {dim}: "
            "choose the network that they were made with (features=…)"
        )


def _missing_parts(reference: Reference, features: str, classes: int | None) -> frozenset[str]:
    """The needs of metrics that this reference, or a feature network with so many classes, cannot meet."""
    held_out = reference.held_out
    missing = {
        "logits": classes is None,
        "features": reference.images is None,
        "clip": not features.startswith("clip"),
        "held_out": held_out is None or len(held_out) < 2,
    }
    return frozenset(part for part, is_missing in missing.items() if is_missing)


def batches_of(
    images: ImageSet,
    n: int,
    size: int = 256,
    rank: Rank = Rank(),  # noqa: B008 - immutable
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Iterator[Batch]:
    """This rank's batches of the first n of existing images, as `Evaluator` takes them."""
    with tqdm(total=n, unit="image", desc="features", disable=None if progress else True, leave=False) as bar:
        batches: Sequence[Tensor] = torch.arange(n).split(size)
        for indices in batches[rank.number :: rank.count]:
            yield Batch(indices, images[indices].to(device), torch.ones(len(indices), dtype=torch.bool))
            bar.update(len(indices) * rank.count)
