"""Gradients before the optimizer's step: clipping, and what happens to one that is not finite."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from score_lightning.errors import NonFiniteError
from score_lightning.runtime.processes import Rank
from score_lightning.training.optimizer import Adam

if TYPE_CHECKING:
    from score_lightning.training.module import ScoreModule

MASKING = ("cpu", "cuda")  # devices whose kernel of Adam divides the gradient and skips a step
MOST_UNREAD = 500  # steps
OVERFLOWS = 25  # consecutive steps after which a gradient in float16 does not overflow because of its scale


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, at least one; torch's own is slower where there are many small ones."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


@dataclass(frozen=True)
class Step:
    """What the host may ask later about a step.

    Args:
        number: 1, 2, ...
        finite: (), whether its gradient was.
        t, losses: (B,), of its last batch.
    """

    number: int
    finite: Tensor
    t: Tensor
    losses: Tensor


class Clipping:
    """Clips gradients to a norm; skips steps whose gradient is not finite, up to a limit.

    A step is masked on the device: weights, moments and average stay as they are. The host learns of it at the next
    logged step and before any checkpoint, since it would otherwise wait for the device at every step. Only optimizers
    that cannot mask a step (with float16's scaler, and on MPS) leave the decision to the host.

    Args:
        skip: number of steps with a gradient that is not finite to skip; the next one stops the run.

    Attributes:
        skipped: how many of them were skipped so far, of those that the host has read.
        finite: (), 1 where the gradient of the last step was finite and 0 where not; None before the first.
    """

    def __init__(self, skip: int = 0) -> None:
        self._skip, self.skipped, self._overflows = skip, 0, 0
        self.finite: Tensor | None = None
        self._unread: list[Step] = []

    def __call__(self, module: "ScoreModule", optimizer: torch.optim.Optimizer, max_norm: float | None) -> None:
        """Clips the gradient of a module, or has the optimizer skip it where it is not finite.

        Raises:
            NonFiniteError: when no more steps may be skipped; the weights and their average are those of good steps.
        """
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norm = total_norm([p.grad for p in trained if p.grad is not None])
        self.finite = torch.isfinite(norm).float()
        if not (isinstance(optimizer, Adam) and norm.device.type in MASKING):
            self._decide(module, trained, norm, max_norm)
            return
        divisor = None
        if max_norm:  # as torch's clipping
            divisor = torch.where(norm > max_norm, (norm.float() + 1e-6) / max_norm, 1.0)
        optimizer.mask_next_step(divisor, 1 - self.finite)
        self._unread.append(Step(module.trainer.global_step + 1, self.finite, *module.last))
        every = int(getattr(module.trainer, "log_every_n_steps", 0)) or MOST_UNREAD
        if self._unread[-1].number % every == 0 or len(self._unread) >= MOST_UNREAD:
            self.read(module)

    def read(self, module: "ScoreModule") -> None:
        """Reports the steps that were skipped since the last time; every rank must ask at the same step.

        Raises:
            NonFiniteError: when they are more than may be skipped.
        """
        unread, self._unread = self._unread, []
        if unread and not (flags := torch.stack([step.finite for step in unread])).all():
            for step, finite in zip(unread, flags.tolist(), strict=True):
                if not finite:
                    self._report(module, step)

    def _decide(
        self, module: "ScoreModule", trained: list[torch.nn.Parameter], norm: Tensor, max_norm: float | None
    ) -> None:
        """The same on the host, for an optimizer that cannot mask a step; without a gradient it changes nothing."""
        if math.isfinite(norm.item()):
            self._overflows = 0
            if max_norm and norm > max_norm:
                torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
        elif not self._overflowed(module):
            for p in trained:
                p.grad = None
            self._report(module, Step(module.trainer.global_step + 1, norm, *module.last))

    def _overflowed(self, module: "ScoreModule") -> bool:
        """Whether float16's scaler is still searching for a scale: it skips such a step itself."""
        self._overflows += 1
        scaler = getattr(module.trainer.precision_plugin, "scaler", None)
        return scaler is not None and self._overflows <= OVERFLOWS

    def _report(self, module: "ScoreModule", step: Step) -> None:
        message = f"step {step.number}: {_describe(module, step)}"
        if self.skipped >= self._skip:
            raise NonFiniteError(message)
        self.skipped += 1
        if module.trainer.is_global_zero:
            print(f"{message}; skipped, {self._skip - self.skipped} more may be")


def _describe(module: "ScoreModule", step: Step) -> str:
    """What is not finite, and at which noise; every rank must ask."""
    _, sigma = module.model.schedule(step.t)
    bad = sigma.expand(step.losses.shape)[~torch.isfinite(step.losses)].tolist()
    rank = Rank(module.global_rank, module.trainer.world_size)
    everyones = rank.gather((bad, sigma.min().item(), sigma.max().item()))
    levels = sorted({f"{value:.4g}" for ranks_bad, _, _ in everyones for value in ranks_bad}, key=float)
    if levels:
        return f"the loss is not finite at sigma = {', '.join(levels)}"
    lowest, highest = min(low for _, low, _ in everyones), max(high for _, _, high in everyones)
    return f"the gradient is not finite, at sigma from {lowest:.4g} to {highest:.4g}"
