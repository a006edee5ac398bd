"""Posterior sampling: models of x_0 given a noisy observation y = A x_0 + noise of it, with a linear operator A.

With L an approximation of grad_x ln p(y | x_t), the score given y is score + L, and by Tweedie's formula

    E[x_0 | x_t, y] = x_0 + sigma^2 / alpha L,    L = J^T A^T u,

where x_0 = E[x_0 | x_t] is the model's and J its Jacobian, dx_0 / dx_t. The methods differ in u (B, ...) alone, which
weighs the residual r = y - A x_0. As Cov[x_0 | x_t] = sigma^2 / alpha J^T (see Rozet et al. 2024), p(y | x_t) of
Gaussian data has exactly the u of MMPS. A step never couples images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from score_lightning.conditional.base import Wrapper, probe, repeat
from score_lightning.conditional.operators import Observation, adjoint
from score_lightning.models import Estimate, Model

Linear = Callable[[Tensor], Tensor]


class ObservationConditioned(Wrapper[Model]):
    """A model given an observation.

    At alpha = 0, where x_t is noise alone, the estimate is the model's own.

    Args:
        model: unconditional, or conditioned on labels; x_0 must be differentiable in x_t.
        observation: of the images.

    Raises:
        ValueError: where the method divides by the noise, and there is none; when it is called, where the operator's
            output does not fit the observation.
    """

    def __init__(self, model: Model, observation: Observation) -> None:
        super().__init__(model)
        self.check(observation)
        self.observation = observation

    @classmethod
    def check(cls, observation: Observation) -> None:
        """Refuses an observation that the method cannot take."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        with torch.inference_mode(False), torch.enable_grad():
            x = x_t.detach().clone().requires_grad_()
            estimate = self.model(x, t.clone())
            seen = self.observation.see(estimate.x_0)
        alpha, sigma = estimate.alpha, estimate.sigma
        spread = torch.where(alpha > 0, sigma**2 / alpha, 0)

        def back(u: Tensor) -> Tensor:
            """sigma^2 / alpha J^T A^T u."""
            return spread * torch.autograd.grad(seen, x, u, retain_graph=True)[0]

        with torch.inference_mode(False), torch.no_grad():
            u = self.weigh(self.observation.y.to(seen) - seen, back, estimate)
            x_0 = estimate.x_0 + back(u)
        fraction = None if estimate.fraction is None else estimate.fraction.detach()
        return replace(estimate.detach(), x_t=x_t, fraction=fraction).with_x_0(x_0)

    def weigh(self, residual: Tensor, back: Linear, estimate: Estimate) -> Tensor:
        """u of the residual's shape (B, ...); `back` is u -> sigma^2 / alpha J^T A^T u."""
        raise NotImplementedError

    def repeated(self, n: int, ndim: int) -> "ObservationConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("ObservationConditioned", super().repeated(n, ndim))
        twin.observation = replace(self.observation, y=repeat(self.observation.y, n))
        return twin


class DPS(ObservationConditioned):
    """Diffusion posterior sampling: u = r / noise^2, so that L = -grad |r|^2 / (2 noise^2) (Chung et al. 2023).

    It takes x_0 for known: the guidance is too strong at high noise, and small steps are needed where noise is small.
    A step of `Ancestral` becomes the published one, x_s - zeta grad |r|^2 (Alg. 1), with

        zeta = sigma_ts^2 / (2 alpha_ts noise^2).
    """

    @classmethod
    def check(cls, observation: Observation) -> None:
        """Refuses an observation without noise.

        Raises:
            ValueError: naming the alternatives.
        """
        if not observation.noise > 0:
            raise ValueError("dps divides by the noise of the observation, which is 0: take mmps or pigdm, or noise")

    def weigh(self, residual: Tensor, back: Linear, estimate: Estimate) -> Tensor:  # noqa: ARG002
        """r / noise^2."""
        return residual / self.observation.noise**2


class _Solving(ObservationConditioned):
    """u = (noise^2 I + A V A^T)^-1 r, by conjugate gradients.

    Args:
        model, observation: as of `ObservationConditioned`.
        iterations: of conjugate gradients, at most.

    Raises:
        ValueError: as `ObservationConditioned`, and unless iterations >= 1.
    """

    def __init__(self, model: Model, observation: Observation, iterations: int = 5) -> None:
        super().__init__(model, observation)
        if iterations < 1:
            raise ValueError(f"conjugate gradients need at least 1 iteration, got {iterations}")
        self.iterations = iterations

    def solve(self, spread: Linear, residual: Tensor) -> Tensor:
        """u of the residual's shape (B, ...), for `spread` v -> V A^T v."""
        noise, see = self.observation.noise, self.observation.operator.forward
        return conjugate_gradients(lambda v: noise**2 * v + see(spread(v)), residual, self.iterations)


class PiGDM(_Solving):
    """Pseudoinverse-guided diffusion: V = r_t^2 I, r_t^2 = sigma^2 / (alpha^2 + sigma^2) (Song et al. 2023b).

    V is the covariance of x_0 given x_t of data N(0, I), for which the method is exact.
    """

    def weigh(self, residual: Tensor, back: Linear, estimate: Estimate) -> Tensor:  # noqa: ARG002
        """(noise^2 I + r_t^2 A A^T)^-1 r."""
        variance = estimate.sigma**2 / (estimate.alpha**2 + estimate.sigma**2)
        return self.solve(lambda v: variance * adjoint(self.observation.operator, v, estimate.x_t), residual)


class MMPS(_Solving):
    """Moment-matching posterior sampling: V = sigma^2 / alpha J^T (Rozet et al. 2024).

    V is the covariance of x_0 given x_t that the model itself states: exact for Gaussian data of any covariance. Each
    iteration takes a backward pass through the model, and one more follows.
    """

    def weigh(self, residual: Tensor, back: Linear, estimate: Estimate) -> Tensor:  # noqa: ARG002
        """(noise^2 I + A V A^T)^-1 r."""
        return self.solve(back, residual)


METHODS: dict[str, type[ObservationConditioned]] = {"dps": DPS, "pigdm": PiGDM, "mmps": MMPS}
"""The approximations of the score given an observation, by name."""


@dataclass(frozen=True)
class Posterior:
    """A noisy observation as `Evidence`, and the method that samples given it.

    Args:
        observation: of each image.
        method: one of `METHODS`.
        iterations: of conjugate gradients, for a method that takes them; its default when None.

    Raises:
        ValueError: for another method, or an observation that it cannot take.
    """

    observation: Observation
    method: str = "mmps"
    iterations: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.iterations is not None and not issubclass(METHODS[self.method], _Solving):
            raise ValueError(f"{self.method} takes no iterations")
        METHODS[self.method].check(self.observation)

    def wrap(self, model: Model) -> ObservationConditioned:
        """The model given the observation."""
        options = {} if self.iterations is None else {"iterations": self.iterations}
        return METHODS[self.method](model, self.observation, **options)

    def perturb(self, x: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:  # noqa: ARG002
        """x itself: sampling starts from noise."""
        return x

    def impose(self, x_0: Tensor) -> Tensor:
        """x_0 itself: nothing is known exactly."""
        return x_0

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses images of a shape that the observation does not fit; see `Observation.see`."""
        self.observation.see(torch.zeros(len(self.observation.y), *shape, device=self.observation.y.device))

    def fingerprint(self, shape: tuple[int, ...]) -> list[bytes]:
        """All that images of this shape are a function of here."""
        y, noise = self.observation.y, self.observation.noise
        seen = self.observation.operator.forward(probe(shape).to(y.device))
        settings = f"{self.method} {noise} {self.iterations}".encode()
        return [settings, *(a.detach().cpu().numpy().tobytes() for a in (y, seen))]


def conjugate_gradients(matrix: Linear, b: Tensor, iterations: int) -> Tensor:
    """u of b's shape (B, ...) with matrix(u) = b, for a symmetric positive definite one; each image by itself.

    An image is done when its residual is as small as rounding allows, or in a direction that the matrix does not
    stretch by a positive number: that of a network need not be positive definite.
    """
    u, r, p = torch.zeros_like(b), b, b
    rr = _inner(r, r)
    least = (torch.finfo(b.dtype).eps ** 2) * rr
    for _ in range(iterations):
        q = matrix(p)
        curvature = _inner(p, q)
        active = (rr > least) & (curvature > 0)
        if not active.any():
            break
        step = torch.where(active, rr / curvature, 0)
        u, r = u + step * p, r - step * q
        before, rr = rr, torch.where(active, _inner(r, r), 0)
        p = torch.where(active, r + rr / before * p, p)
    return u


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """(B, 1, ...): the inner products of images (B, ...)."""
    return (a * b).flatten(1).sum(1).view(-1, *[1] * (a.ndim - 1))
