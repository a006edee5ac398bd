"""Adam, in one pass over memory, and its schedule of learning rates."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AdamSettings:
    """Adam with a linear warm-up from 0 over `warmup` steps and, with `decay_steps`, a linear decay to 0 at that step.

    With `muon`, its learning rate, the weights of hidden layers take the steps of `Muon`.

    Raises:
        ValueError: when lr is not positive, or betas are not two numbers in [0, 1).
    """

    lr: float = 2e-4
    betas: Sequence[float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    decay_steps: int | None = None
    muon: float | None = None

    def __post_init__(self) -> None:
        if not self.lr > 0 or len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"needs lr > 0 and two betas in [0, 1), got {self.lr} and {list(self.betas)}")

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by in step 0, 1, ..."""
        warm = min(1.0, step / self.warmup) if self.warmup else 1.0
        return warm if self.decay_steps is None else warm * max(0.0, 1 - step / self.decay_steps)

    def replace(self, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR) -> None:
        """Puts these settings in place of those that an optimizer and its schedule brought from a checkpoint."""
        rates = [self.lr] if self.muon is None else [self.lr, self.muon]
        now = [rate * self.factor(schedule.last_epoch) for rate in rates]
        mine = {"eps": self.eps, "weight_decay": self.weight_decay, "betas": (self.betas[0], self.betas[1])}
        for group, rate, lr in zip(optimizer.param_groups, rates, now, strict=True):
            group.update(mine, initial_lr=rate, lr=lr)
        schedule.base_lrs, schedule._last_lr = [*rates], [*now]


@dataclass
class Alike:
    """Parameters with the same device, dtype and number of steps, and their moments, each in order of memory."""

    step: Tensor
    parameters: list[nn.Parameter] = field(default_factory=list)
    orders: list[tuple[int, ...] | None] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)

    def add(self, p: nn.Parameter, state: dict[str, Tensor]) -> None:
        """One more parameter, whose moments come into its order of memory."""
        order = None if p.is_contiguous() else tuple(sorted(range(p.dim()), key=p.stride, reverse=True))
        for key in ("exp_avg", "exp_avg_sq"):
            if state[key].stride() != p.stride():
                state[key] = torch.empty_like(p).copy_(state[key])
        state["step"] = self.step
        self.parameters.append(p)
        self.orders.append(order)
        self.weights.append(_permuted(p.detach(), order))
        self.means.append(_permuted(state["exp_avg"], order))
        self.squares.append(_permuted(state["exp_avg_sq"], order))

    def gradients(self) -> list[Tensor]:
        """Those of the parameters, in the same order of memory."""
        gradients = []
        for p, order in zip(self.parameters, self.orders, strict=True):
            assert p.grad is not None
            gradient = _permuted(p.grad, order)
            if not gradient.is_contiguous():  # torch's kernel takes the memory of all four to be in one order
                p.grad = torch.empty_like(p).copy_(p.grad)
                gradient = _permuted(p.grad, order)
            gradients.append(gradient)
        return gradients


def _permuted(tensor: Tensor, order: tuple[int, ...] | None) -> Tensor:
    return tensor if order is None else tensor.permute(order)


class Adam(torch.optim.Adam):
    """torch's Adam (Kingma & Ba 2015, Alg. 1) and its fused kernel, with the same results and checkpoints.

    It finds tensors once rather than at every step, counts steps once rather than for each parameter, shows the kernel
    parameters with channels last as views in order of memory (otherwise it copies them), and clips the
    gradient in that same pass.

    Args:
        parameters: what to train.
        lr: learning rate.
        betas: decays of the mean of gradients and of their squares, per step.
        eps: added to the root of the squares.
        weight_decay: times the weights, added to the gradient.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, fused=True)
        self._divisor: Tensor | None = None
        self._skipped: Tensor | None = None
        self._groups: tuple[list[int], list[tuple[dict[str, Any], Alike]]] = [], []

    def mask_next_step(self, divisor: Tensor | None, skipped: Tensor) -> None:
        """Has the next step divide the gradient by a number, in its one pass over memory, or change nothing.

        Args:
            divisor: float32 ().
            skipped: float32 (), 1 where the step is to change nothing and 0 where not.
        """
        self._divisor, self._skipped = divisor, skipped

    def state_dict(self) -> dict[str, Any]:
        """As torch's: each parameter has a count of steps."""
        state_dict = super().state_dict()
        states = {key: {**state, "step": state["step"].clone()} for key, state in state_dict["state"].items()}
        return {**state_dict, "state": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copy, or the moments of a checkpoint."""
        super().__setstate__(state)
        self._divisor, self._skipped, self._groups = None, None, ([], [])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, of what has a gradient, masked as was asked for."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, alike in self._trained():
            alike.step += 1 if self._skipped is None else 1 - self._skipped
            torch._fused_adam_(
                alike.weights,
                alike.gradients(),
                alike.means,
                alike.squares,
                [],
                [alike.step] * len(alike.weights),
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=self._divisor,
                found_inf=self._skipped,
            )
        self._divisor, self._skipped = None, None
        return loss

    def _trained(self) -> list[tuple[dict[str, Any], Alike]]:
        """The parameters with a gradient, grouped anew where they are others than in the last step."""
        groups = self._adam_groups()
        learning = [p.data_ptr() for group in groups for p in group["params"] if p.grad is not None]
        if learning != self._groups[0]:
            self._groups = learning, [(group, alike) for group in groups for alike in self._alike(group)]
        return self._groups[1]

    def _adam_groups(self) -> list[dict[str, Any]]:
        return self.param_groups

    def _alike(self, group: dict[str, Any]) -> Iterable[Alike]:
        """Those of a group with a gradient."""
        groups: dict[Any, Alike] = {}
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            key = p.device, p.dtype, state["step"].item()
            if key not in groups:
                # a plain Adam's checkpoint leaves it on the CPU
                groups[key] = Alike(state["step"].to(p.device, torch.float32, copy=True))
            groups[key].add(p, state)
        return groups.values()
