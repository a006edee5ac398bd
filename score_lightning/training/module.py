"""The LightningModule: draws times and noise, calls the objective, keeps the average of the weights."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from score_lightning.conditional import NO_LABEL, condition
from score_lightning.data.augment import augment
from score_lightning.data.pixels import Range
from score_lightning.errors import NonFiniteError
from score_lightning.evaluation.model_losses import LevelLosses, ValidationLoss
from score_lightning.models import ScoreModel
from score_lightning.objectives import ImportanceSampled, Objective
from score_lightning.runtime.processes import Rank
from score_lightning.runtime.randomness import BatchNoise, derive_seed
from score_lightning.training.ema import WeightAverage
from score_lightning.training.optimizer import DIVIDING, Adam, AdamSettings

SHOWN = 10  # steps from one refresh of the progress bar to the next
OVERFLOWS = 25  # steps in a row after which a gradient in float16 does not overflow for its scale


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images on the way into the model.

    Args:
        pixels: range of pixels in the model.
        flip: whether half of the images are flipped left to right.
        dequantize: whether uniform noise below one grey level is added.
        drop: share of labels that are left out.
        geometric: probability of each geometric change, of which the network is told (see `augment`).
    """

    pixels: Range
    flip: bool = False
    dequantize: bool = False
    drop: float = 0.0
    geometric: float = 0.0

    def __call__(self, images: Tensor, noise: BatchNoise) -> tuple[Tensor, Tensor | None]:
        """float32 (B, C, H, W) from uint8 images of that shape, and (B, K), what the network is told of it, or None."""
        if self.flip:
            flipped = noise.rand(len(images)) < 0.5
            both = torch.cat([images, images.flip(3)])
            images = both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * flipped)
        x_0 = self.pixels.encode(images, noise.rand(*images.shape) if self.dequantize else None)
        return augment(x_0, noise, self.geometric) if self.geometric > 0 else (x_0, None)

    def labels(self, labels: Tensor, noise: BatchNoise) -> Tensor:
        """Labels int64 (B,), those left out -1."""
        return torch.where(noise.rand(len(labels)) < self.drop, NO_LABEL, labels)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all of them, at least one, together; torch's own does so slower where there are many small ones."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


class ScoreModule(L.LightningModule):
    """Training of a score model.

    Args:
        model: network, schedule and prediction.
        objective: the loss.
        augmentation: from uint8 images to the model's range.
        adam: the optimizer.
        average: the averaged weights.
        seed: of times, noise and augmentation.
        validation_levels: noise levels at which the validation loss is reported, spread over the schedule.
        config: plain data that goes into every checkpoint.
        skip_nonfinite: steps that are skipped because a loss or a gradient is not finite; the next one stops the run.
        compile: whether the network is compiled for training, where that can be.
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        augmentation: Augmentation,
        adam: AdamSettings,
        average: WeightAverage,
        seed: int = 0,
        validation_levels: int = 10,
        config: dict[str, Any] | None = None,
        skip_nonfinite: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self._compile = compile
        self._skip, self._skipped, self._overflows = skip_nonfinite, 0, 0
        self._last: tuple[Tensor, Tensor] | None = None  # times and losses of the last batch
        self.model, self.average = model, average
        self._objective, self._augmentation, self._adam = objective, augmentation, adam
        self._seed, self._config = seed, config or {}
        self._validation = ValidationLoss(objective, model, augmentation.pixels, validation_levels, seed)
        self._level_losses = LevelLosses(len(self._validation.times))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """The mean loss of a batch at times and with noise that are functions of (seed, step)."""
        place = {"rank": self.global_rank, "ranks": self.trainer.world_size}
        noise = BatchNoise(self._seed, "train", batch["step"], device=self.device, **place)
        self._seed_dropout(derive_seed(self._seed, "dropout", batch["step"], self.global_rank))
        x_0, augmentation = self._augmentation(batch["images"], noise)
        t = self._objective.draw_t(self.model.schedule, noise.rand(len(x_0)))
        labels = self._augmentation.labels(batch["labels"], noise) if self.model.classes else None
        model = condition(self.model, labels, augmentation)
        if self._compile:
            self._compile = False
            self._try_to_compile(lambda: self._objective(model, x_0, t, torch.zeros_like))
        losses = self._objective(model, x_0, t, noise.randn_like)
        if isinstance(self._objective, ImportanceSampled):
            times, everyones = (part.flatten() for part in self.all_gather((t, losses.detach())))
            finite = torch.isfinite(everyones)
            self._objective.observe(times[finite], everyones[finite])
        self._last = (t, losses.detach())
        loss = losses.mean()
        trainer: Any = self.trainer
        step, every = trainer.global_step + 1, trainer.log_every_n_steps
        logged = every > 0 and step % every == 0
        if logged or step % SHOWN == 0 or step == trainer.max_steps:  # noting it costs 1 % of a small network's step
            self.log("train/loss", self._of_all(loss.detach(), logged), prog_bar=True)
        return loss

    def _try_to_compile(self, losses: Callable[[], Tensor]) -> None:
        """Compiles the network; what cannot be compiled, or differentiated then as losses need it, stays as it is.

        No compiled network has second derivatives, and compilers are not on every machine.
        """
        net: Any = self.model.net
        learned = [p for p in net.parameters() if p.requires_grad]
        if self.trainer.is_global_zero:
            print("compiling the network: a minute or more")
        net.compile()
        try:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                torch.autograd.grad(losses().mean(), learned, allow_unused=True)
        except Exception as error:
            net._compiled_call_impl = None  # torch has no other way back
            reason = str(error).strip().splitlines()
            if self.trainer.is_global_zero:
                print(f"trains without: {type(error).__name__}: {reason[0] if reason else ''}")

    def _seed_dropout(self, seed: int) -> None:
        """Seeds the global generators that dropout draws from.

        torch.manual_seed would also note the stack of calls for every kind of device that is not in use, which takes
        1 % of a small network's step.
        """
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def _of_all(self, loss: Tensor, logged: bool) -> Tensor:
        """The mean over all processes where it is logged; they ask each other at no other step."""
        if self.trainer.world_size == 1 or not logged:
            return loss
        everyones: Any = self.all_gather(loss)
        return everyones.mean()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002 - by norm
    ) -> None:
        """Clips the norm of the gradient, or has the step do it; skips a step whose gradient is not finite.

        Without a gradient Adam changes nothing.

        Raises:
            NonFiniteError: when no more steps may be skipped; the weights and their average are still those of before.
        """
        learning = [p for group in optimizer.param_groups for p in group["params"]]
        norm = total_norm([p.grad for p in learning if p.grad is not None])
        size = norm.item()
        if math.isfinite(size):
            self._overflows = 0
            if gradient_clip_val and size > gradient_clip_val:
                if isinstance(optimizer, Adam) and norm.device.type in DIVIDING:
                    optimizer.divisor = (norm.float() + 1e-6) / gradient_clip_val  # as torch's clipping
                else:
                    torch.nn.utils.clip_grads_with_norm_(learning, gradient_clip_val, norm)
            return
        self._overflows += 1
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None and self._overflows <= OVERFLOWS:
            return  # the scale of float16's gradients is found by trying; the scaler skips such a step itself
        for p in self.model.parameters():
            p.grad = None
        message = f"step {self.trainer.global_step + 1}: {self._describe()}"
        if self._skipped >= self._skip:
            raise NonFiniteError(message)
        self._skipped += 1
        if self.trainer.is_global_zero:
            print(f"{message}; skipped, as {self._skip - self._skipped} more may be")

    def _describe(self) -> str:
        """What is not finite, and at which noise; every rank must ask."""
        assert self._last is not None
        t, losses = self._last
        _, sigma = self.model.schedule(t)
        bad = sigma.expand(losses.shape)[~torch.isfinite(losses)].tolist()
        everyones = Rank(self.global_rank, self.trainer.world_size).gather(
            (bad, sigma.min().item(), sigma.max().item())
        )
        found = sorted({f"{value:.4g}" for ranks_bad, _, _ in everyones for value in ranks_bad}, key=float)
        if found:
            return f"the loss is not finite at sigma = {', '.join(found)}"
        lowest, highest = min(low for _, low, _ in everyones), max(high for _, _, high in everyones)
        return f"the gradient is not finite, at sigma from {lowest:.4g} to {highest:.4g}"

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Averages the weights after every optimizer step."""
        super().optimizer_step(*args, **kwargs)
        self.average.update(self.model, self.trainer.global_step + 1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Losses of the averaged weights for triples (image, time, noise) that are the same in every validation."""
        images, numbers, labels = batch["images"], batch["numbers"], batch.get("labels")
        self._level_losses.update(*self._validation(self.average.model, images, numbers, labels))

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss, and that of each level."""
        losses = self._level_losses.compute().view(-1)  # torchmetrics squeezes a single one
        self._level_losses.reset()
        self.log("val/loss", losses.mean(), prog_bar=True)
        for t, loss in zip(self._validation.times.tolist(), losses, strict=True):
            self.log(f"val_level/{t:04d}" if isinstance(t, int) else f"val_level/{t:.4f}", loss)

    def configure_optimizers(self) -> Any:
        """Adam with its schedule of learning rates, a step at a time."""
        a = self._adam
        # a fused one would see the scaled gradients of float16
        kind = torch.optim.Adam if self.trainer.precision == "16-mixed" else Adam
        optimizer = kind(self.model.parameters(), a.lr, a.betas, a.eps, a.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, a.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "train/lr"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, as plain data, and how many steps were skipped."""
        checkpoint["config"] = self._config
        checkpoint["skipped"] = self._skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with what was skipped before."""
        self._skipped = checkpoint.get("skipped", 0)


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, training loss) of a run's metrics.csv."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    return [(int(row["step"]), float(row["train/loss"])) for row in rows]
