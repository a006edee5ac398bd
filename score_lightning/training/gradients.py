"""Gradients before the optimizer's step: clipping, and what happens to one that is not finite."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from score_lightning.errors import NonFiniteError
from score_lightning.runtime.processes import Rank
from score_lightning.training.optimizer import DIVIDING, Adam

if TYPE_CHECKING:
    from score_lightning.training.module import ScoreModule

OVERFLOWS = 25  # consecutive steps after which a gradient in float16 does not overflow because of its scale


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, at least one; torch's own is slower where there are many small ones."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


class Clipping:
    """Clips gradients to a norm; skips steps whose gradient is not finite, up to a limit.

    Args:
        skip: number of steps with a gradient that is not finite to skip; the next one stops the run.

    Attributes:
        skipped: how many of them were skipped so far.
    """

    def __init__(self, skip: int = 0) -> None:
        self._skip, self.skipped, self._overflows = skip, 0, 0

    def __call__(self, module: "ScoreModule", optimizer: torch.optim.Optimizer, max_norm: float | None) -> None:
        """Clips the gradient of a module, or removes it where it is not finite: without one Adam changes nothing.

        Raises:
            NonFiniteError: when no more steps may be skipped; the weights and their average are those of before.
        """
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norm = total_norm([p.grad for p in trained if p.grad is not None])
        size = norm.item()
        if math.isfinite(size):
            self._overflows = 0
            if max_norm and size > max_norm:
                _clip(optimizer, trained, norm, max_norm)
        elif not self._overflowed(module):
            for p in module.model.parameters():
                p.grad = None
            self._skip_step(module)

    def _overflowed(self, module: "ScoreModule") -> bool:
        """Whether float16's scaler is still searching for a scale: it skips such a step itself."""
        self._overflows += 1
        scaler = getattr(module.trainer.precision_plugin, "scaler", None)
        return scaler is not None and self._overflows <= OVERFLOWS

    def _skip_step(self, module: "ScoreModule") -> None:
        message = f"step {module.trainer.global_step + 1}: {_describe(module)}"
        if self.skipped >= self._skip:
            raise NonFiniteError(message)
        self.skipped += 1
        if module.trainer.is_global_zero:
            print(f"{message}; skipped, {self._skip - self.skipped} more may be")


def _clip(optimizer: torch.optim.Optimizer, trained: list[torch.nn.Parameter], norm: Tensor, max_norm: float) -> None:
    if isinstance(optimizer, Adam) and norm.device.type in DIVIDING:
        optimizer.divide_next_gradient((norm.float() + 1e-6) / max_norm)  # as torch's clipping
    else:
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)


def _describe(module: "ScoreModule") -> str:
    """What is not finite, and at which noise; every rank must ask."""
    t, losses = module.last
    _, sigma = module.model.schedule(t)
    bad = sigma.expand(losses.shape)[~torch.isfinite(losses)].tolist()
    rank = Rank(module.global_rank, module.trainer.world_size)
    everyones = rank.gather((bad, sigma.min().item(), sigma.max().item()))
    levels = sorted({f"{value:.4g}" for ranks_bad, _, _ in everyones for value in ranks_bad}, key=float)
    if levels:
        return f"the loss is not finite at sigma = {', '.join(levels)}"
    lowest, highest = min(low for _, low, _ in everyones), max(high for _, _, high in everyones)
    return f"the gradient is not finite, at sigma from {lowest:.4g} to {highest:.4g}"
