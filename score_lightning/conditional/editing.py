"""Editing: sampling that starts from a perturbed picture (SDEdit; Meng et al. 2022, Alg. 1)."""

from dataclasses import dataclass

from torch import Tensor

from score_lightning.models import Model
from score_lightning.perturbation import perturb


@dataclass(frozen=True)
class Edit:
    """A picture (...) that images start from, as `Evidence`: alpha picture + sigma z at the sampler's first time."""

    picture: Tensor

    def wrap(self, model: Model) -> Model:
        """The model itself."""
        return model

    def perturb(self, x: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
        """The perturbed picture, of x's shape (B, ...); alpha and sigma of shape ()."""
        return perturb(self.picture.to(x).expand_as(x), alpha, sigma, eps)

    def impose(self, x_0: Tensor) -> Tensor:
        """x_0 itself: nothing of the picture is kept as it is."""
        return x_0

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses images of another shape.

        Raises:
            ValueError: with both shapes.
        """
        if self.picture.shape != shape:
            raise ValueError(f"the picture to edit has shape {tuple(self.picture.shape)}, the model's images {shape}")

    def fingerprint(self, shape: tuple[int, ...]) -> list[bytes]:  # noqa: ARG002
        """All that images are a function of here."""
        return [self.picture.numpy().tobytes()]
