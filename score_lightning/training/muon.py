"""Muon for the weights of hidden layers, with Adam for all others."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from score_lightning.training.optimizer import Adam

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T in (N, A, B), in at least float32.

    Singular values above a hundredth of the norm come to between 0.6 and 1.2, smaller ones to less: five Newton-Schulz
    iterations of an odd polynomial of degree 5 (Jordan et al. 2024).
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(torch.promote_types(matrices.dtype, torch.float32))
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Adam):
    """Steps of hidden layers' weights along their orthogonalized momentum (Jordan et al. 2024), all others by Adam.

    A convolution's kernel counts as a matrix with a row for each output channel. Weights of one shape are
    orthogonalized together.

    Args:
        parameters: of the network.
        hidden: those of them that take Muon's steps, with at least 2 dimensions.
        hidden_lr: their learning rate; a step has about that spectral norm, times the root of rows by columns where
            there are more rows.
        adam: keywords of `Adam`, for the others; the weight decay of hidden weights is decoupled (times the learning
            rate, subtracted from them).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], hidden: Iterable[nn.Parameter], hidden_lr: float, **adam: Any
    ) -> None:
        hidden = list(hidden)
        matrices = {id(p) for p in hidden}
        super().__init__([p for p in parameters if id(p) not in matrices], **adam)
        self.add_param_group({"params": hidden, "lr": hidden_lr})

    def _adam_groups(self) -> list[dict[str, Any]]:
        return self.param_groups[:1]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, of what has a gradient, masked as was asked for."""
        loss = None
        if closure is not None:  # in which Lightning computes the gradient, and asks for the mask
            with torch.enable_grad():
                loss = closure()
        divisor, skipped = self._divisor, self._skipped
        super().step()
        group = self.param_groups[1]
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p in group["params"]:
            if p.grad is not None:
                shapes.setdefault(p.shape, []).append((p, p.grad))
        for pairs in shapes.values():
            weights, gradients = [p for p, _ in pairs], [gradient for _, gradient in pairs]
            means = self._means(weights)
            if divisor is not None:
                gradients = [*torch._foreach_div(gradients, divisor)]
            if skipped is not None:
                gradients = [torch.where(skipped > 0, m, g) for m, g in zip(means, gradients, strict=True)]
            torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
            directions = _directions(torch.stack(torch._foreach_lerp(gradients, means, MOMENTUM)))
            steps = directions.mul_(max(1.0, len(weights[0]) / weights[0][0].numel()) ** 0.5)
            steps = steps.add_(torch.stack(weights), alpha=group["weight_decay"]).mul_(-group["lr"])
            if skipped is not None:
                steps = steps.mul_(1 - skipped)
            torch._foreach_add_(weights, list(steps.unbind()))
        return loss

    def _means(self, weights: list[Tensor]) -> list[Tensor]:
        """Of past gradients, 0 at first."""
        for p in weights:
            if not self.state[p]:
                # Adam has its count of steps in each state
                self.state[p] = {"step": torch.zeros((), device=p.device), "momentum_buffer": torch.zeros_like(p)}
        return [self.state[p]["momentum_buffer"] for p in weights]


def _directions(gradients: Tensor) -> Tensor:
    """Orthogonalized gradients (N, out, in) or (N, out, in, height, width)."""
    rows = gradients.movedim(2, -1)  # as convolutions with channels last are stored
    return orthogonalize(rows.flatten(2)).view(rows.shape).movedim(-1, 2)
