"""One step of a predictor."""

from torch import Tensor

from score_lightning.models import Model
from score_lightning.schedules import RandnLike


class Step:
    """From x at time t to x at an earlier s, and from x at the last time to the result."""

    def __call__(self, model: Model, x: Tensor, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x's shape (B, ...), for times of shape ()."""
        raise NotImplementedError

    def denoise(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike) -> Tensor:  # noqa: ARG002
        """E[x_0 | x], of x's shape: the step from the last time t to no noise."""
        return model(x, t).x_0
