"""What happens around each training step: logging its loss, importance weights, compiling the network."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from score_lightning.objectives import Consistency, ImportanceSampled
from score_lightning.training.module import ScoreModule

RATES = ("train/lr", "train/lr_muon")
SHOWN = 10  # steps from one refresh of the progress bar to the next


class TrainingLoss(L.Callback):
    """Logs the training loss at the steps that show it; at every step it would cost 1 % of a small network's step."""

    def on_before_backward(self, trainer: L.Trainer, pl_module: ScoreModule, loss: Tensor) -> None:  # type: ignore[override]  # noqa: ARG002
        """Logs the mean loss of all processes, which ask each other at no other step."""
        step, every = trainer.global_step + 1, int(getattr(trainer, "log_every_n_steps", 0))
        logged = every > 0 and step % every == 0
        if logged or step % SHOWN == 0 or step == trainer.max_steps:
            mean = pl_module.last[1].mean()  # Lightning divides `loss` by the number of accumulated batches
            everyones: Any = pl_module.all_gather(mean) if trainer.world_size > 1 and logged else mean
            pl_module.log("train/loss", everyones.mean(), prog_bar=True)


class LearningRate(L.Callback):
    """Logs the learning rates of Adam and Muon, once per optimizer step that is logged."""

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002 - Lightning's signature
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Logs them before the first batch of a step."""
        step, every = trainer.global_step, int(getattr(trainer, "log_every_n_steps", 0))
        if batch_idx % trainer.accumulate_grad_batches == 0 and every > 0 and (step + 1) % every == 0:
            groups = trainer.optimizers[0].param_groups
            rates = {name: group["lr"] for name, group in zip(RATES, groups, strict=False)}
            for logger in trainer.loggers:
                logger.log_metrics(rates, step)


class LossObserver(L.Callback):
    """Shows an objective with importance-sampled times the losses of every batch, those of all processes.

    Args:
        objective: which samples its times by the losses.
    """

    def __init__(self, objective: ImportanceSampled) -> None:
        self._objective = objective

    def on_before_backward(self, trainer: L.Trainer, pl_module: ScoreModule, loss: Tensor) -> None:  # type: ignore[override]  # noqa: ARG002
        """Passes them on."""
        self._objective.observe(*(part.flatten() for part in pl_module.all_gather(pl_module.last)))


class TrainingProgress(L.Callback):
    """Sets the `progress` of an objective that changes during training.

    Args:
        objective: whose stages follow it.
    """

    def __init__(self, objective: Consistency) -> None:
        self._objective = objective

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ARG002
        """The share of the steps that are done."""
        self._objective.progress = trainer.global_step / trainer.max_steps

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Validates as at the end, so that losses of all stages can be compared."""
        self._objective.progress = 1.0


class NetworkCompiler(L.Callback):
    """Compiles the network before the first step; trains without where it cannot be compiled, or differentiated then.

    No compiled network has second derivatives, and compilers are not on every machine.
    """

    def __init__(self) -> None:
        self._tried = False

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: ScoreModule, batch: Any, batch_idx: int) -> None:  # type: ignore[override]  # noqa: ARG002
        """Compiles it, once."""
        if self._tried:
            return
        self._tried = True
        net: Any = pl_module.model.net
        trained = [p for p in net.parameters() if p.requires_grad]
        if trainer.is_global_zero:
            print("compiling the network: a minute or more")
        net.compile()
        try:
            with (
                torch.random.fork_rng([pl_module.device] if pl_module.device.type == "cuda" else []),
                trainer.precision_plugin.train_step_context(),
            ):
                torch.autograd.grad(pl_module.losses(batch)[1].mean(), trained, allow_unused=True)
        except Exception as error:
            net._compiled_call_impl = None  # torch has no other way back
            reason = str(error).strip().splitlines()
            if trainer.is_global_zero:
                print(f"trains without: {type(error).__name__}: {reason[0] if reason else ''}")
