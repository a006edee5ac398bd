"""Models given a part of the data: y = P x_0, with an orthogonal projection P."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from score_lightning.conditional.base import Wrapper, probe, repeat
from score_lightning.models import Estimate, Model


@dataclass(frozen=True)
class Measurement:
    """A part of the data that is known, as `Evidence`: y = P x_0, P an orthogonal projection (P P = P = P^T).

    Args:
        project: P, from and to (B, ...).
        y: (...) or (B, ...), what is known; P y = y.
    """

    project: Callable[[Tensor], Tensor]
    y: Tensor

    def wrap(self, model: Model) -> "MeasurementConditioned":
        """The model given that part."""
        return MeasurementConditioned(model, self)

    def impose(self, x_0: Tensor) -> Tensor:
        """x_0 (B, ...) with the part that is known put in."""
        return x_0 - self.project(x_0) + self.y.to(x_0)

    def perturb(self, x: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
        """x (B, ...) with that part of a perturbed x_0 put in; alpha and sigma of shape ()."""
        return x - self.project(x) + alpha * self.y.to(x) + sigma * self.project(eps)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses images of a shape that what is known does not fit.

        Raises:
            ValueError: with both shapes.
        """
        try:
            fits = self.impose(torch.zeros(1, *shape, device=self.y.device)).shape[1:] == shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(f"what is known has shape {tuple(self.y.shape)}, which does not fit images {shape}")

    def fingerprint(self, shape: tuple[int, ...]) -> list[bytes]:
        """All that images of this shape are a function of here."""
        return [a.cpu().numpy().tobytes() for a in (self.y, self.project(probe(shape).to(self.y.device)))]


class MeasurementConditioned(Wrapper[Model]):
    """A model given a part of the data: inpainting, colorization, upsampling with an unconditional model.

    The estimate of x_0 has the part that is known put in. So P x_t has its exact score given y, that of
    N(alpha y, sigma^2 I), and any sampler draws it from its exact distribution; the rest has the model's score of the
    whole x_t. It is Song et al. 2021a, App. I.2-3 (there the sampler draws that part anew at each step). The rest is
    exact where a corrector mixes at each level; a predictor alone sees x_t on the way only.

    Args:
        model: unconditional, or conditioned on labels.
        measurement: what is known.
    """

    def __init__(self, model: Model, measurement: Measurement) -> None:
        super().__init__(model)
        self._measurement = measurement

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        estimate = self.model(x_t, t)
        return estimate.with_x_0(self._measurement.impose(estimate.x_0))

    def repeated(self, n: int, ndim: int) -> "MeasurementConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("MeasurementConditioned", super().repeated(n, ndim))
        y = self._measurement.y
        twin._measurement = replace(self._measurement, y=repeat(y, n) if y.ndim == ndim else y)
        return twin


def inpainting(image: Tensor, known: Tensor) -> Measurement:
    """The pixels of an image (C, H, W) where `known`, bool (H, W).

    Raises:
        ValueError: when the mask has another size, or leaves nothing to paint, or nothing known.
    """
    if known.shape != image.shape[1:]:
        raise ValueError(f"the mask has {tuple(known.shape)} pixels, the image {tuple(image.shape[1:])}")
    if known.all() or not known.any():
        raise ValueError("the mask must mark a part of the image to paint: some pixels, and not all")
    mask = known.to(image)
    return Measurement(lambda x: x * mask.to(x), image * mask)


def colorization(image: Tensor) -> Measurement:
    """The mean of the channels of an image (C, H, W), or of each image (B, C, H, W); a gray one has C = 1."""
    return Measurement(lambda x: x.mean(1, keepdim=True).expand_as(x), image.mean(-3, keepdim=True))


def upsampling(image: Tensor, factor: int) -> Measurement:
    """The means of squares of factor x factor pixels, those of a small image (C, h, w), or of each one (B, C, h, w).

    Raises:
        ValueError: when the factor is below 2.
    """
    if factor < 2:
        raise ValueError(f"upsampling needs a factor of 2 or more, got {factor}")

    def spread(small: Tensor) -> Tensor:
        return small.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    return Measurement(lambda x: spread(F.avg_pool2d(x, factor)), spread(image))
