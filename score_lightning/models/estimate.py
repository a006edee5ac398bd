"""What a model says about x_t, and how a network's output says it.

The output is read as one of these quantities, all equivalent given x_t, alpha and sigma:

    score = grad log p(x_t),    eps = -sigma score,    x_0 = (x_t - sigma eps) / alpha  (Tweedie),
    v = alpha eps - sigma x_0   (Salimans & Ho 2022, App. D),   velocity = eps - x_0   (Liu et al. 2023, Eq. 1),
    and EDM's preconditioned x_0 (Karras et al. 2022)

Where both eps and x_0 follow from the output without cancellation, a prediction states both. eps from x_0 loses digits
where sigma is small, x_0 from eps where alpha is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import Tensor

from score_lightning.models.preconditioning import precondition

Reading = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(network output, x_t, alpha, sigma) -> eps or x_0."""


@dataclass(frozen=True)
class Prediction:
    """What a network's output means: how eps and x_0 are read from it; one that is None follows from the other.

    Both are affine in the output with coefficients that depend on x_t, alpha and sigma alone.

    Raises:
        ValueError: with neither.
    """

    eps: Reading | None = None
    x_0: Reading | None = None

    def __post_init__(self) -> None:
        if self.eps is None and self.x_0 is None:
            raise ValueError("a prediction gives eps, x_0 or both; got neither")


def _output(output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG001
    return output


EPS, X_0 = Prediction(eps=_output), Prediction(x_0=_output)


@dataclass(frozen=True)
class Estimate:
    """What a model says about x_t: `score`, `eps` and `x_0`, each of x_t's shape (B, ...).

    Each is computed when it is asked for.

    Args:
        x_t: (B, ...) perturbed data.
        alpha, sigma: of the kernel, of shape () or (B, 1, ...). alpha may be 0 where the prediction gives x_0.
        output: (B, ...), what the prediction is read from.
        prediction: what the output means; eps, the expected standard noise in x_t, by default.
        fraction: (B, ...) of networks that learn variances, where those of a step back lie between the logarithms of
            the posterior's, 0, and beta's, 1 (Nichol & Dhariwal 2021, Eq. 15); may leave [0, 1].
    """

    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    output: Tensor
    prediction: Prediction = EPS
    fraction: Tensor | None = None

    @cached_property
    def eps(self) -> Tensor:
        """E[eps | x_t]; (x_t - alpha x_0) / sigma where the prediction gives x_0 alone."""
        if self.prediction.eps is None:
            return (self.x_t - self.alpha * self.x_0) / self.sigma
        return self.prediction.eps(self.output, self.x_t, self.alpha, self.sigma)

    @cached_property
    def x_0(self) -> Tensor:
        """E[x_0 | x_t]; (x_t - sigma eps) / alpha (Tweedie; Ho et al. 2020, Eq. 15) of a prediction of eps alone."""
        if self.prediction.x_0 is None:
            return (self.x_t - self.sigma * self.eps) / self.alpha
        return self.prediction.x_0(self.output, self.x_t, self.alpha, self.sigma)

    @property
    def velocity(self) -> Tensor:
        """E[eps - x_0 | x_t], that of a straight line from data to noise."""
        return self.eps - self.x_0

    @property
    def score(self) -> Tensor:
        """grad_x log p(x_t) = -eps / sigma (Vincent 2011)."""
        return -self.eps / self.sigma

    def with_x_0(self, x_0: Tensor) -> "Estimate":
        """The same with another x_0 (B, ...), and eps and score that agree with it."""
        return replace(self, output=x_0, prediction=X_0)

    def clip(self, low: float, high: float) -> "Estimate":
        """The same with x_0 clipped to the range of the data, and eps and score that agree with it."""
        return self.with_x_0(self.x_0.clamp(low, high))

    def detach(self) -> "Estimate":
        """The same without a gradient, but for that of the fraction."""
        return replace(self, output=self.output.detach())


def _eps_from_v(v: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * v + sigma * x_t) / (alpha**2 + sigma**2)


def _x_0_from_v(v: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def _eps_from_velocity(u: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x_t + alpha * u) / (alpha + sigma)


def _x_0_from_velocity(u: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x_t - sigma * u) / (alpha + sigma)


def _eps_from_edm(sigma_data: float, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """(y - x_0) / n, where y = x_t / alpha has noise of n = sigma / alpha."""
    n = sigma / alpha
    c = precondition(n, sigma_data)
    # 1 - c_skip = (n c_in)^2: nothing cancels where there is little noise
    return n * c.c_in**2 * (x_t / alpha) - c.c_out / n * output


def _x_0_from_edm(sigma_data: float, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x_0 = c_skip y + c_out output (Karras et al. 2022, Eq. 7)."""
    c = precondition(sigma / alpha, sigma_data)
    return c.c_skip * (x_t / alpha) + c.c_out * output


def edm(sigma_data: float) -> Prediction:
    """EDM's preconditioned x_0, for data of this standard deviation."""
    return Prediction(eps=partial(_eps_from_edm, sigma_data), x_0=partial(_x_0_from_edm, sigma_data))


PREDICTIONS: dict[str, Prediction] = {
    "score": Prediction(eps=lambda output, x_t, alpha, sigma: -sigma * output),
    "sigma_score": Prediction(eps=lambda output, x_t, alpha, sigma: -output),
    "eps": EPS,
    "x_0": X_0,
    "v": Prediction(eps=_eps_from_v, x_0=_x_0_from_v),
    "velocity": Prediction(eps=_eps_from_velocity, x_0=_x_0_from_velocity),
}
"""Of sigma_score the output is sigma times the score: the score is output / sigma (Song & Ermon 2020, Sec. 3.3)."""
