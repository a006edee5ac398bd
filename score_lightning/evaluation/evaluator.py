"""Metrics of images against a reference: one pass of one feature network over them, on any number of ranks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.data.images import ImageSet
from score_lightning.errors import UserError
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.metrics import METRICS, InOrder, MetricSettings, Sides, Statistics, kid_subset_size
from score_lightning.evaluation.neighbors import nearest
from score_lightning.evaluation.reference import Reference, collect, reference_statistics
from score_lightning.generation.generator import Batch, check_finite
from score_lightning.runtime.files import cache_folder
from score_lightning.runtime.processes import Rank

NEIGHBORS = 4  # nearest reference images that are shown of an image


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Args:
        metrics: values by name, each name with that of its features.
        shown: uint8, the first images in their order.
        neighbors: (shown, NEIGHBORS) indices of the reference images nearest to each in feature space, nearest first;
            None where their features are not known, or on other ranks than the first.
    """

    metrics: dict[str, float]
    shown: Tensor
    neighbors: Tensor | None = None


class Evaluator:
    """Metrics of images against a reference.

    Statistics of the reference are read from the cache or computed at the first use, and kept.

    Args:
        features: the feature network.
        reference: the images to compare with.
        shape: (C, H, W) of images.
        settings: which metrics, and how.

    Raises:
        UserError: for an unknown metric, or a network that cannot take the images or does not fit the statistics.
    """

    def __init__(
        self,
        features: Features,
        reference: Reference,
        shape: tuple[int, ...],
        settings: MetricSettings,
    ) -> None:
        unknown = [name for name in settings.names if name not in METRICS]
        if unknown or not settings.names:
            raise UserError(f"evaluation.metrics must name some of {', '.join(METRICS)}; got {list(settings.names)}")
        self.features, self.reference, self.metrics = features, reference, settings
        self._shape, self._cache = shape, cache_folder()
        self._real: Statistics | None = None
        self._held_out: Tensor | None = None
        probe = features.probe(shape)
        statistics = reference.statistics
        if statistics is not None and len(statistics.mean) != len(probe.origin):
            raise UserError(
                f"{reference.name} has statistics of {len(statistics.mean)} features, {features.name} has "
                f"{len(probe.origin)}: choose the network that they were made with (features=…)"
            )
        self._lacking = self._find_lacking(probe.classes)

    @property
    def unavailable(self) -> dict[str, str]:
        """Metrics that cannot be computed, by name, and why."""
        reasons = {
            "logits": f"the features {self.features.name} have no class probabilities",
            "features": "the reference is a file of statistics, with which only fid can be computed",
            "held_out": "no real images besides the reference are known; a data set has them, its test images",
        }
        lacking = {name: [n for n in METRICS[name].needs if n in self._lacking] for name in self.metrics.names}
        return {f"{name}_{self.features.name}": reasons[parts[0]] for name, parts in lacking.items() if parts}

    def check(self, n: int) -> None:
        """Refuses a number of images that is too small.

        Raises:
            UserError: naming the metric and what to do; or when no metric can be computed at all.
        """
        if not self._computed:
            raise UserError(f"no metric can be computed: {'; '.join(self.unavailable.values())}")
        real = math.inf if self.reference.images is None else len(self.reference.images)
        for name in self._computed:
            least = METRICS[name].least
            if n < least[0] or real < least[1]:
                others = [other for other in self.metrics.names if other != name]
                raise UserError(
                    f"{name} needs at least {least[0]} images and {least[1]} of the reference, got {n} and {real}: "
                    f"take more, or leave it out with evaluation.metrics=[{','.join(others)}]"
                )

    def prepare(self, rank: Rank, progress: bool = False) -> None:
        """Reads or computes the statistics of the reference, once; every rank must call."""
        if self._real is not None:
            return
        needs = {need for name in self._computed for need in METRICS[name].needs}
        real, held_out = self.reference.images, self.reference.held_out
        if set(self._computed) == {"is"}:  # which compares with nothing
            self._real = Statistics(torch.empty(0), torch.empty(0))
            return
        if "held_out" in needs:
            assert held_out is not None
            self._held_out = reference_statistics(self.features, held_out, True, rank, self._cache, progress).features
        if real is not None:
            keep = "features" in needs
            self._real = reference_statistics(self.features, real, keep, rank, self._cache, progress)
        else:
            self._real = self.reference.statistics

    def __call__(self, batches: Iterable[Batch], rank: Rank, shown: int = 0, progress: bool = False) -> Result:
        """Metrics of images, the same on every rank.

        Args:
            batches: this rank's images.
            rank: this process; every rank must call.
            shown: how many of the first images to return.
            progress: whether to show that of the reference.

        Raises:
            UserError: when pixels of images were not finite, with their number.
        """
        self.prepare(rank, progress)
        pictures = InOrder(torch.empty(self._shape, dtype=torch.uint8)).to(rank.device)
        bad: list[int] = []
        seen: list[int] = []

        def taken() -> Iterator[tuple[Tensor, Tensor]]:
            for indices, images, finite in batches:
                seen.append(len(indices))
                bad.extend(indices[~finite].tolist())
                first = indices < shown
                pictures.update(images[first.to(images.device)], indices[first])
                yield indices, images

        keep = sorted({need for name in self._computed for need in METRICS[name].needs} & {"features", "logits"})
        fake = collect(self.features, taken(), self._shape, keep, rank)
        everyones = rank.gather((bad, sum(seen)))
        check_finite([i for indices, _ in everyones for i in indices], sum(n for _, n in everyones))
        metrics = rank.broadcast(self._compute(fake) if rank.number == 0 else {})
        neighbors = self._neighbors(fake, shown) if rank.number == 0 and shown else None
        return Result(metrics, pictures.compute().cpu(), neighbors)

    def settings(self, n: int) -> dict[str, Any]:
        """What metrics of n images depend on besides the images."""
        real = n if self.reference.images is None else len(self.reference.images)
        return {
            **self.features.settings(),
            **self.reference.settings(),
            "splits": min(self.metrics.splits, n),
            "kid_subsets": self.metrics.kid_subsets,
            "kid_subset_size": kid_subset_size(self.metrics, n, real),
        }

    @property
    def _computed(self) -> list[str]:
        return [name for name in self.metrics.names if not METRICS[name].needs & self._lacking]

    def _find_lacking(self, classes: int | None) -> frozenset[str]:
        lacking = {"logits"} if classes is None else set()
        lacking |= {"features"} if self.reference.images is None else set()
        held_out = self.reference.held_out
        return frozenset(lacking | ({"held_out"} if held_out is None or len(held_out) < 2 else set()))

    def _compute(self, fake: Statistics) -> dict[str, float]:
        assert self._real is not None
        sides = Sides(fake, self._real, self._held_out, self.metrics)
        found: dict[str, float] = {}
        for name in self._computed:
            found |= METRICS[name].formula(sides)
        return {f"{name}_{self.features.name}": float(value) for name, value in found.items()}

    def _neighbors(self, fake: Statistics, shown: int) -> Tensor | None:
        if fake.features is None or self._real is None or self._real.features is None:
            return None
        k = min(NEIGHBORS, len(self._real.features))
        return nearest(fake.features[:shown], self._real.features, k)[1].cpu()


def batches_of(
    images: ImageSet,
    n: int,
    size: int = 256,
    rank: Rank = Rank(),  # noqa: B008 - immutable
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Iterator[Batch]:
    """This rank's batches of the first n of images that are there already, as `Evaluator` takes them."""
    with tqdm(total=n, unit="image", desc="features", disable=None if progress else True, leave=False) as bar:
        batches: Sequence[Tensor] = torch.arange(n).split(size)
        for indices in batches[rank.number :: rank.count]:
            yield Batch(indices, images[indices].to(device), torch.ones(len(indices), dtype=torch.bool))
            bar.update(len(indices) * rank.count)
