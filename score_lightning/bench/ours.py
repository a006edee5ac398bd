"""This project's side of a comparison: the training step of `train`, without Lightning's loop around it.

Built from the theory and the Lightning module alone, so that it runs without the packages for data and evaluation.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from score_lightning.bench.settings import Size, Step
from score_lightning.data.pixels import PixelRange
from score_lightning.models import ScoreModel
from score_lightning.networks import UNet
from score_lightning.objectives import Denoising
from score_lightning.schedules import Schedule, cosine, linear_beta
from score_lightning.training.ema import WeightAverage
from score_lightning.training.module import Augmentation, ScoreModule
from score_lightning.training.optimizer import AdamSettings

SCHEDULES: dict[str, Callable[..., Schedule]] = {"linear_beta": linear_beta, "cosine": cosine}


def build_model(size: Size) -> ScoreModel:
    """The model of an experiment, as `Experiment.model` is built."""
    c = size.resolved.config
    net = UNet(c.images.size, c.images.channels, **_keywords(c.net))
    schedule = SCHEDULES[c.schedule["name"]](**_keywords(c.schedule))
    model = ScoreModel(net, schedule, c.prediction, c.conditioning, c.sigma_data)
    return model.to(memory_format=torch.channels_last)


def build_module(size: Size, device: str = "cpu") -> ScoreModule:
    """The training of an experiment."""
    c = size.resolved.config
    model, o = build_model(size), c.optimizer
    adam = AdamSettings(
        o.lr, (o.betas[0], o.betas[1]), o.eps, o.weight_decay, o.warmup, c.trainer.max_steps if o.decay else None
    )
    augmentation = Augmentation(PixelRange(c.images.range[0], c.images.range[1]), c.images.flip, drop=c.labels.drop)
    average = WeightAverage(model, c.ema.decay, c.ema.warmup, c.ema.ramp)
    return ScoreModule(model, Denoising(**_keywords(c.objective)), augmentation, adam, average).to(device)


def build_step(size: Size, precision: str, device: str, module: ScoreModule | None = None) -> Step:
    """A training step in one of Lightning's precisions, of the module or else of a new one."""
    batch: dict[str, Any] = {"images": size.images().to(device), "step": 0}
    return build_step_on(batch, module or build_module(size, device), size.resolved.config.optimizer.clip, precision)


def build_step_on(batch: dict[str, Any], module: ScoreModule, clip: float | None, precision: str = "32-true") -> Step:
    """A training step of a module on the images that a batch holds at the time, and whose `step` it counts up."""
    trainer = _trainer(precision, module.device.type)
    module.trainer = trainer
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]

    def compute() -> None:
        optimizer.zero_grad()
        with trainer.precision_plugin.train_step_context():
            loss = module.training_step(batch, 0)
        loss.backward()

    def update() -> None:
        module.configure_gradient_clipping(optimizer, clip, "norm")
        optimizer.step()
        schedule.step()
        batch["step"] += 1
        module.average.update(module.model, batch["step"])

    return Step(compute, update)


def inputs(size: Size, device: str) -> tuple[Tensor, Tensor]:
    """(x (B, C, H, W), t (B,)) for a network."""
    x = torch.randn(size.batch, *size.shape, device=device)
    return x, torch.linspace(0, 999, size.batch, device=device).long()


def _trainer(precision: str, device: str) -> Any:
    """A trainer that only gives the module its precision and its rank."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*barebones.*")
    return L.Trainer(
        barebones=True,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_steps=2,  # the first step is not the last one, which would log its loss
    )


def _keywords(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}
