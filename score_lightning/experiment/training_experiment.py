"""The objects that a training takes besides those of its experiment: data, loss and optimizer."""

import math
from collections.abc import Sequence
from functools import cached_property

from score_lightning.data.module import ImageData
from score_lightning.errors import UserError, mistakes_in
from score_lightning.experiment import checks
from score_lightning.experiment.build import Experiment
from score_lightning.networks.layers import Block
from score_lightning.runtime.memory import check_bytes
from score_lightning.runtime.processes import PROCESS, placement
from score_lightning.training.ema import WeightAverage
from score_lightning.training.gradients import Clipping
from score_lightning.training.module import Augmentation, ScoreModule
from score_lightning.training.optimizer import AdamSettings

COPIES = 5  # of the weights on this machine: the weights, their average, their gradient, Adam's two moments


class TrainingExperiment(Experiment):
    """An experiment whose network is to be trained: it must fit into memory with its gradient and moments."""

    training = True

    def _memory_needed(self) -> tuple[int, int]:
        c = self.config
        machines = placement(c.trainer.devices, c.trainer.num_nodes, "trainer.")[1]
        return math.ceil(c.trainer.batch_size / max(machines, 1)), COPIES

    def _class_names(self) -> Sequence[str] | None:
        return self.listed[0].source.classes

    @cached_property
    def data(self) -> ImageData:
        """The loaders of a run."""
        c = self.config
        checks.check_labeled(c.labels.classes, self.listed)
        try:
            check_bytes(c.trainer.workers * PROCESS, f"{c.trainer.workers} processes")
        except MemoryError as error:
            raise UserError(f"trainer.workers: {error}") from error
        steps = c.trainer.max_steps * c.trainer.accumulate
        return ImageData(*self.split, c.trainer.batch_size, steps, c.validation.n, c.seed, c.trainer.workers)

    def _recompute_activations(self) -> None:
        blocks = [part for part in self.model.modules() if isinstance(part, Block)]
        if not blocks:
            raise UserError(f"trainer.checkpointing: net {self.config.net.get('name')} has no blocks to compute again")
        for block in blocks:
            block.checkpointing = True

    @cached_property
    def module(self) -> ScoreModule:
        """The training of the model."""
        c, o = self.config, self.config.optimizer
        if c.guide is not None or c.guidance:
            raise UserError("guide=… and guidance=… are of sample and eval: a training has no use for them")
        if c.validation.n < c.validation.levels:
            raise UserError(f"validation.n must be at least {c.validation.levels}, got {c.validation.n}")
        if c.evaluation.n == 1:
            raise UserError("evaluation.n must be 0 (none) or at least 2, got 1")
        with mistakes_in("optimizer"):
            decay_steps = c.trainer.max_steps if o.decay else None
            adam = AdamSettings(o.lr, tuple(o.betas), o.eps, o.weight_decay, o.warmup, decay_steps, o.muon)
        if o.muon is not None and not hasattr(self.model.net, "hidden_weights"):
            raise UserError(
                f"optimizer.muon: net {c.net.get('name')} does not name its hidden layers; net=unet_light does"
            )
        if o.muon is not None and c.trainer.precision in ("16-mixed", "16-true", "bf16-true"):
            raise UserError(f"optimizer.muon needs trainer.precision=32-true or bf16-mixed, got {c.trainer.precision}")
        if c.trainer.checkpointing:
            self._recompute_activations()
        flip = c.images.flip and not c.points
        module = ScoreModule(
            self.model,
            self.objective,
            Augmentation(self.pixels, flip, c.labels.drop, c.images.augment, self.condition),
            adam,
            WeightAverage(self.model, c.ema.decay, c.ema.warmup, c.ema.ramp),
            c.seed,
            c.validation.levels,
            Clipping(c.trainer.skip_nonfinite),
        )
        module.config = self.resolved.plain()
        return module
