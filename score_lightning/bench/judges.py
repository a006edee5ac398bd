"""Judges of images that a race compares: classifiers of real images, and features of theirs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from score_lightning.data.images import ImageSet
from score_lightning.evaluation.features.classifier import fit_classifier
from score_lightning.evaluation.frechet import frechet_distance
from score_lightning.runtime.files import cache_folder


@dataclass(frozen=True)
class Judge:
    """A classifier of real images, and their features, Gaussians of which are compared.

    Args:
        classify: uint8 images (N, C, H, W) -> probabilities of classes, (N, classes).
        describe: uint8 images -> features (N, D).
        real: real images, uint8 (N, C, H, W).
    """

    classify: Callable[[Tensor], Tensor]
    describe: Callable[[Tensor], Tensor]
    real: Tensor

    def __call__(self, images: Tensor) -> tuple[float, float]:
        """(inception score, Fréchet distance to the real images) of uint8 images (N, C, H, W)."""
        p = self.classify(images).double()
        kl = (p * ((p + 1e-12).log() - (p.mean(0) + 1e-12).log())).sum(1).mean()
        moments = [
            (f.mean(0), torch.atleast_2d(f.T.cov())) for f in (self.describe(x).double() for x in (images, self.real))
        ]
        return math.exp(kl), frechet_distance(*moments[0], *moments[1])


def judge_pixels(images: Tensor, labels: Tensor, fitted: int) -> Judge:
    """A calibrated support vector machine fitted to the first `fitted` images, and pixels in [-1, 1] as features."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    def describe(x: Tensor) -> Tensor:
        return x.flatten(1).double() / 127.5 - 1

    machine = CalibratedClassifierCV(SVC(gamma=0.05), ensemble=False)
    machine.fit(describe(images[:fitted]).numpy(), labels[:fitted].numpy())
    return Judge(lambda x: torch.from_numpy(np.asarray(machine.predict_proba(describe(x).numpy()))), describe, images)


def judge_features(train: ImageSet, validation: ImageSet) -> Judge:
    """The project's classifier of the labels, and its features."""
    network, _ = fit_classifier(train, validation, cache_folder())

    @torch.no_grad()
    def run(x: Tensor, part: int) -> Tensor:
        return torch.cat([network(some)[part] for some in x.split(500)])

    return Judge(lambda x: run(x, 1).double().softmax(1), lambda x: run(x, 0), train[:])
