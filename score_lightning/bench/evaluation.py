"""An evaluation with all metrics against the feature network alone, and the linear algebra of the Fréchet distance.

The peers of the Fréchet distance are the functions of torch-fidelity and torchmetrics, in 2048 dimensions, for
covariances of full rank and of fewer images than dimensions.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from score_lightning.bench.settings import OURS, Settings
from score_lightning.bench.tables import Table, timed
from score_lightning.bench.timing import alternate, drop
from score_lightning.data.images import ImageSet
from score_lightning.evaluation import frechet_distance
from score_lightning.evaluation.evaluator import Evaluator, batches_of
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.classifier import Classifier
from score_lightning.evaluation.features.extractors import random
from score_lightning.evaluation.metrics import MetricSettings
from score_lightning.evaluation.reference import Reference
from score_lightning.runtime.processes import Rank


def run(settings: Settings) -> list[Table]:
    """A table of the whole evaluation, one for each kind of covariance."""
    dim = 64 if settings.quick else 2048
    ranks = {"full rank": 3 * dim, "half rank": dim // 2}
    return [_metrics(settings), *(_frechet(dim, title, n, settings) for title, n in ranks.items())]


def _metrics(settings: Settings) -> Table:
    """A whole evaluation except the statistics of the reference, which are computed once."""
    n, device = 8 if settings.quick else 256, settings.device
    draws = torch.Generator().manual_seed(0)
    fake, real, held_out = (
        ImageSet(torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=draws)) for _ in range(3)
    )
    features = Features("classifier", Classifier(3, 10)) if settings.quick else random()
    rank = Rank(device=device)
    evaluator = Evaluator(features, Reference("noise", real, held_out), (3, 32, 32), MetricSettings())
    evaluator.prepare(rank)

    def alone() -> None:
        for batch in batches_of(fake, n, device=device):
            features(batch.images)

    functions: dict[str, Callable[[], Any]] = {
        "the feature network alone": alone,
        "all metrics": lambda: evaluator(batches_of(fake, n, device=device), rank),
    }
    timings = alternate(functions, settings.repeats(3), 0)
    return Table(
        f"Evaluation of {n} images, {'a small network' if settings.quick else 'Inception'}",
        "s",
        [timed(name, timing, 1) for name, timing in timings.items()],
    )


def _frechet(dim: int, title: str, n: int, settings: Settings) -> Table:
    draws = torch.Generator().manual_seed(0)
    sides = [torch.randn(n, dim, dtype=torch.float64, generator=draws) for _ in range(2)]
    moments = [(features.mean(0), features.T.cov()) for features in sides]
    timings = alternate(_distances(moments), settings.repeats(3), 0)
    rows = [timed(name, timing, 1, peer=name != OURS) for name, timing in timings.items()]
    return Table(f"Fréchet distance, {dim} dimensions, {title}", "s", rows)


def _distances(moments: list[tuple[Tensor, Tensor]]) -> dict[str, Callable[[], Any]]:
    statistics = [{"mu": mu.numpy(), "sigma": cov.numpy()} for mu, cov in moments]
    flat = list(itertools.chain.from_iterable(moments))
    return {
        OURS: lambda: drop(frechet_distance(*flat)),
        "torch-fidelity": lambda: drop(fid_statistics_to_metric(*statistics, verbose=False)),
        "torchmetrics": lambda: drop(_compute_fid(*flat)),
    }
