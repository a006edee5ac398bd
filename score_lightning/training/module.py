"""The LightningModule: draws times and noise, calls the objective, averages the weights, logs the validation loss."""

from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from score_lightning.conditional import NO_LABEL, Condition, Given, condition
from score_lightning.data.augment import augment
from score_lightning.data.pixels import Range
from score_lightning.evaluation.model_losses import LevelLosses, ValidationLoss
from score_lightning.models import ScoreModel
from score_lightning.objectives import Objective
from score_lightning.runtime.randomness import BatchNoise, derive_seed, seed_dropout
from score_lightning.training.ema import WeightAverage
from score_lightning.training.gradients import Clipping
from score_lightning.training.muon import Muon
from score_lightning.training.optimizer import Adam, AdamSettings


@dataclass(frozen=True)
class Augmentation:
    """From images as they are stored and labels to what the model is trained on.

    Args:
        pixels: range of pixels in the model, whether images are dequantized.
        flip: whether half of the images are flipped left to right.
        drop: share of labels that are dropped.
        geometric: probability of each geometric change, which the network is conditioned on (see `augment`).
        condition: the pictures that images are conditioned on.
    """

    pixels: Range
    flip: bool = False
    drop: float = 0.0
    geometric: float = 0.0
    condition: Condition | None = None

    def __call__(self, images: Tensor, noise: BatchNoise) -> tuple[Tensor, Tensor | None]:
        """float32 (B, C, H, W) from images of that shape, and the geometric changes (B, K), or None."""
        images = images if images.dtype == torch.uint8 else images.float()  # GPUs cannot index uint16
        if self.flip:
            flipped = noise.rand(len(images)) < 0.5
            both = torch.cat([images, images.flip(3)])
            images = both.index_select(0, torch.arange(len(images), device=images.device) + len(images) * flipped)
        x_0 = self.pixels.encode(images, noise.rand(*images.shape) if self.pixels.dequantized else None)
        return augment(x_0, noise, self.geometric) if self.geometric > 0 else (x_0, None)

    def pair(self, images: Tensor, pictures: Tensor | None, noise: BatchNoise) -> tuple[Tensor, Tensor, Tensor | None]:
        """Both of images (B, C, H, W) and their pictures (B, K, H, W), changed alike, and the geometric changes.

        Without pictures, which are to be made of the images then, the second of the three is the first.
        """
        if pictures is None:
            x_0, changes = self(images, noise)
            return x_0, x_0, changes
        x, changes = self(torch.cat([images, pictures], 1), noise)
        x_0, shown = x.split([images.shape[1], pictures.shape[1]], 1)
        return x_0, shown, changes

    def given(self, labels: Tensor | None, picture: Tensor, noise: BatchNoise) -> tuple[Tensor | None, Given | None]:
        """Labels int64 (B,), dropped ones -1, and what is observed of pictures (B, C, H, W).

        One number for each image says whether its label is dropped, and whether its picture is, and the label with it.
        """
        if labels is None and self.condition is None:
            return None, None
        u, given, lost = noise.rand(len(picture)), None, self.drop
        if self.condition is not None:
            given = Given(self.condition, self.condition(picture, noise.randn_like))
            given, lost = given.without(u < self.condition.drop), max(lost, self.condition.drop)
        return None if labels is None else torch.where(u < lost, NO_LABEL, labels), given


class ScoreModule(L.LightningModule):
    """Training of a score model.

    Args:
        model: network, schedule and prediction.
        objective: the loss.
        augmentation: from images to the model's range.
        adam: the optimizer.
        average: the averaged weights.
        seed: of times, noise and augmentation.
        validation_levels: noise levels at which the validation loss is reported, spread over the schedule.
        clipping: of gradients, and what to do about those that are not finite.

    Attributes:
        last: (times (B,), losses (B,)) of the last batch.
        config: plain data that goes into every checkpoint.
        data: what is known of the images (see `Source.plain`), which does so, too.
    """

    last: tuple[Tensor, Tensor]
    config: dict[str, Any]
    data: dict[str, Any]

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        augmentation: Augmentation,
        adam: AdamSettings,
        average: WeightAverage,
        seed: int = 0,
        validation_levels: int = 10,
        clipping: Clipping | None = None,
    ) -> None:
        super().__init__()
        self.model, self.average = model, average
        self._objective, self._augmentation, self._adam = objective, augmentation, adam
        self._seed, self._clipping, self.config = seed, clipping or Clipping(), {}
        self.data = {}
        self._validation = ValidationLoss(
            objective, model, augmentation.pixels, validation_levels, seed, augmentation.condition
        )
        self._level_losses = LevelLosses(len(self._validation.times))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """The mean loss of a batch at times and with noise that are functions of (seed, step)."""
        t, losses = self.losses(batch)
        self.last = (t, losses.detach())
        return losses.mean()

    def losses(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(times (B,), losses (B,)) of this rank's share of a batch."""
        place = {"rank": self.global_rank, "ranks": self.trainer.world_size}
        noise = BatchNoise(self._seed, "train", batch["step"], device=self.device, **place)
        seed_dropout(derive_seed(self._seed, "dropout", batch["step"], self.global_rank), self.device)
        x_0, picture, augmentation = self._augmentation.pair(batch["images"], batch.get("conditions"), noise)
        u = noise.strata(len(x_0)) if self._objective.stratified else noise.rand(len(x_0))
        t = self._objective.draw_t(self.model.schedule, u)
        labels, given = self._augmentation.given(batch["labels"] if self.model.classes else None, picture, noise)
        return t, self._objective(condition(self.model, labels, augmentation, given), x_0, t, noise.randn_like)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002 - by norm
    ) -> None:
        """Clips the norm of the gradient; see `Clipping` for one that is not finite."""
        self._clipping(self, optimizer, gradient_clip_val)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Averages the weights after every optimizer step."""
        super().optimizer_step(*args, **kwargs)
        self.average.update(self.model, self.trainer.global_step + 1, self._clipping.finite)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Losses of the averaged weights for triples (image, time, noise) that are the same in every validation."""
        given = batch["images"], batch["numbers"], batch.get("labels"), batch.get("conditions")
        self._level_losses.update(*self._validation(self.average.model, *given))

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss, and that of each level."""
        losses = self._level_losses.compute().view(-1)  # torchmetrics squeezes a single one
        self._level_losses.reset()
        self.log("val/loss", losses.mean(), prog_bar=True)
        for t, loss in zip(self._validation.times.tolist(), losses, strict=True):
            self.log(f"val_level/{t:04d}" if isinstance(t, int) else f"val_level/{t:.4f}", loss)

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """Those of the model, and of an objective that has some."""
        objective = self._objective.parameters() if isinstance(self._objective, torch.nn.Module) else ()
        return [*self.model.parameters(), *objective]

    def configure_optimizers(self) -> Any:
        """Adam, or Muon, with its schedule of learning rates, a step at a time."""
        a, net = self._adam, cast(Any, self.model.net)
        settings: dict[str, Any] = {
            "lr": a.lr,
            "betas": (a.betas[0], a.betas[1]),
            "eps": a.eps,
            "weight_decay": a.weight_decay,
        }
        optimizer: torch.optim.Optimizer
        if a.muon is not None:
            optimizer = Muon(self.trained_parameters(), net.hidden_weights(), a.muon, **settings)
        elif self.trainer.precision == "16-mixed":  # a fused one would see the scaled gradients of float16
            optimizer = torch.optim.Adam(self.trained_parameters(), **settings)
        else:
            optimizer = Adam(self.trained_parameters(), **settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, a.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "train/lr"}}

    def on_train_start(self) -> None:
        """Lets the present settings of Adam hold, not those of the checkpoint that a run resumes from."""
        optimizer, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        self._adam.replace(optimizer, schedule)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, what is known of the images, and the number of skipped steps, all of them read.

        Raises:
            NonFiniteError: when more steps were not finite than may be skipped.
        """
        self._clipping.read(self)
        checkpoint["config"], checkpoint["data"] = self.config, self.data
        checkpoint["skipped"] = self._clipping.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the number of skipped steps."""
        self._clipping.skipped = checkpoint.get("skipped", 0)
