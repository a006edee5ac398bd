"""Metrics of images against a reference, in one pass over the features, on any number of ranks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.evaluation.features import Features
from score_lightning.evaluation.frechet import frechet_distance
from score_lightning.evaluation.metrics import InceptionScore, Moments
from score_lightning.images import ImageSet

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Rank:
    """This process: its number, the number of processes, and the device that metrics are gathered on."""

    number: int = 0
    count: int = 1
    device: torch.device | str = "cpu"


def metric_device(device: torch.device) -> torch.device:
    """Where metrics are gathered for a model on this device: there, but on the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


class Evaluator:
    """Fréchet distance to reference images, and inception score, of images that come in batches.

    The reference's moments are computed at the first use and kept.

    Args:
        features: the feature network.
        reference: the images to compare with.
        splits: parts that the inception score is averaged over.
    """

    def __init__(self, features: Features, reference: ImageSet, splits: int) -> None:
        self.features, self.reference, self.splits = features, reference, splits
        self._moments: tuple[Tensor, Tensor] | None = None

    def __call__(self, batches: Iterable[Batch], rank: Rank, progress: bool = False) -> dict[str, float]:
        """Metrics by name, the same on every rank.

        Args:
            batches: (indices (B,), uint8 images (B, C, H, W)) of this rank's images.

        Raises:
            ValueError: of fewer than two images.
        """
        moments = Moments(self.features.dim).to(rank.device)
        score = InceptionScore(self.features.classes, self.splits).to(rank.device)
        for indices, images in batches:
            features, logits = self.features(images)
            moments.update(features.to(rank.device))
            score.update(logits, indices)
        distance = frechet_distance(*moments.compute(), *self._reference_moments(rank, progress))
        mean, spread = score.compute()
        name = self.features.name
        return {f"fid_{name}": distance, f"is_{name}": mean, f"is_std_{name}": spread}

    def settings(self) -> dict[str, Any]:
        """What the metrics depend on besides the images."""
        chosen = {"features": self.features.name, "reference_images": len(self.reference), "splits": self.splits}
        accuracy = getattr(self.features, "accuracy", None)
        return chosen if accuracy is None else {**chosen, "classifier_accuracy": accuracy}

    def _reference_moments(self, rank: Rank, progress: bool) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            moments = Moments(self.features.dim).to(rank.device)
            batches = torch.arange(len(self.reference)).split(256)[rank.number :: rank.count]
            for numbers in tqdm(batches, "features of the reference", disable=None if progress else True, leave=False):
                moments.update(self.features(self.reference[numbers].to(rank.device))[0])
            self._moments = moments.compute()
        return self._moments
