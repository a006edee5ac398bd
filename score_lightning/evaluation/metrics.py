"""Metrics from features, with states that torchmetrics reduces over ranks."""

import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Moments(Metric):
    """Mean (D,) and covariance (D, D) of features in float64; memory does not grow with their number."""

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Adds features (B, D)."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(0)
        self.outer += features.T @ features

    def compute(self) -> tuple[Tensor, Tensor]:
        """(mean, unbiased covariance).

        Raises:
            ValueError: of fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {int(self.count)}")
        mean = self.total / self.count
        return mean, (self.outer - self.count * mean.outer(mean)) / (self.count - 1)


class InceptionScore(Metric):
    """exp E KL(p(y | x) || p(y)) (Salimans et al. 2016), by torch-fidelity's formula on logits in the images' order.

    Args:
        splits: parts of the (shuffled) images that the score is computed on and averaged over.
    """

    full_state_update = False
    logits: list[Tensor]
    indices: list[Tensor]

    def __init__(self, classes: int, splits: int) -> None:
        super().__init__()
        self._splits = splits
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("indices", [], dist_reduce_fx="cat")
        # a rank without images takes part in the gathering with empty states
        self.update(torch.empty(0, classes), torch.empty(0, dtype=torch.long))

    def update(self, logits: Tensor, indices: Tensor) -> None:
        """Adds logits (B, classes) of the images with these indices (B,)."""
        self.logits.append(logits.float().to(self.device))
        self.indices.append(indices.to(self.device))

    def compute(self) -> tuple[float, float]:
        """(mean, population standard deviation) over the splits."""
        logits, indices = dim_zero_cat(self.logits), dim_zero_cat(self.indices)
        score = isc_features_to_metric(logits[indices.argsort()].cpu(), splits=min(self._splits, len(logits)))
        return score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD]
