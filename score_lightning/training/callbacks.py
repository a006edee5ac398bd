"""Sample grids and evaluation during training. Every rank enters; rank 0 writes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from score_lightning.evaluation.evaluator import Evaluator
from score_lightning.evaluation.fidelity import Fidelity
from score_lightning.evaluation.intervals import Values
from score_lightning.evaluation.metrics import OrderedRows
from score_lightning.evaluation.outputs import describe_run
from score_lightning.evaluation.report import summarize, write_metrics
from score_lightning.generation.generator import Generator, trajectory
from score_lightning.generation.pictures import save_aligned, save_rows, save_samples
from score_lightning.runtime.processes import rank_of
from score_lightning.tracking.dashboard import PICTURES, show, untimed
from score_lightning.training.module import ScoreModule

WAYS = 6  # images that are drawn on their way from noise


def run_folder(trainer: L.Trainer) -> Path:
    """The folder of the run; every rank must call, since rank 0 broadcasts it."""
    assert trainer.log_dir is not None
    return Path(trainer.log_dir)


class Periodic(L.Callback):
    """An action every few optimizer steps and after the last one.

    Args:
        every: steps; only after the last one when None.
    """

    def __init__(self, every: int | None) -> None:
        self._every, self._done = every, 0
        self.folder = Path()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Learns the run folder."""
        self.folder = run_folder(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Notes the step that a run is resumed from, whose action is done."""
        self._done = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: ScoreModule, *_: Any) -> None:  # type: ignore[override]
        """Runs when it is time; once per optimizer step, however many batches it accumulates."""
        step = trainer.global_step
        due = step >= trainer.max_steps or (self._every is not None and step % self._every == 0)
        if step > self._done and due:
            self._done = step
            with untimed(trainer):
                self.run(trainer, pl_module)

    def run(self, trainer: L.Trainer, module: ScoreModule) -> None:
        """What happens."""
        raise NotImplementedError


class SampleGrid(Periodic):
    """Draws images 0 .. n - 1 with the averaged weights, the same noise every time, to samples/ and to every logger.

    The first of them also on their way from noise. Images that are given pictures stand between these and the truths.

    Args:
        generator: how images are made.
        n: images in a grid.
        seed: of the images.
        every: steps between grids.
        captions: one for each image, such as its class.
    """

    def __init__(
        self, generator: Generator, n: int, seed: int, every: int | None, captions: Sequence[str] | None = None
    ) -> None:
        super().__init__(every)
        self._generator, self._n, self._seed, self._captions = generator, n, seed, captions

    def run(self, trainer: L.Trainer, module: ScoreModule) -> None:
        """Draws and logs one grid."""
        rank = rank_of(trainer)
        generator = self._generator.measured(module.average.model)
        images = OrderedRows(torch.empty(generator.shape, dtype=generator.pixels.dtype)).to(rank.device)
        for batch in generator(module.average.model, self._n, self._seed, rank):
            images.update(batch.images, batch.indices)
        drawn = images.compute().cpu()
        with rank.sharing_errors():
            if rank.number == 0:
                self._draw(drawn, generator, trainer, module)

    def _draw(self, drawn: Tensor, generator: Generator, trainer: L.Trainer, module: ScoreModule) -> None:
        grid, ways = (self.folder / "samples" / f"{name}_{trainer.global_step:07d}.png" for name in PICTURES.values())
        depth, conditions = generator.pixels.depth, generator.conditions
        if conditions is None:
            show(trainer, "samples/grid", save_samples(drawn, grid, self._captions, depth))
        else:
            show(trainer, "samples/grid", save_aligned(conditions.around(drawn, generator.pixels), grid, depth))
        if drawn.ndim == 4:
            states = trajectory(generator, module.average.model, min(self._n, WAYS), self._seed)
            show(trainer, "samples/trajectory", save_rows(states, ways, depth=depth))


class PeriodicEvaluation(Periodic):
    """Computes metrics of generated images with the averaged weights, for metrics.json and every logger.

    Where a number stands alone its name says how many images it is of: eval/fid_inception_5k. The checkpoint with the
    lowest Fréchet distance is kept as checkpoints/best_fid.ckpt.

    Args:
        evaluator: the metrics, their features and reference.
        generator: how images are made.
        n: images.
        seed: of the images.
        every: steps between evaluations.
        settings: what else the metrics depend on, for metrics.json.
    """

    state_key = "Evaluate"  # as in checkpoints of version 0.1

    def __init__(
        self, evaluator: Evaluator, generator: Generator, n: int, seed: int, every: int | None, settings: dict[str, Any]
    ) -> None:
        super().__init__(every)
        self._evaluator, self._generator, self._n, self._seed = evaluator, generator, n, seed
        self._settings = settings
        self._monitor, self._best = f"fid_{evaluator.features.name}_{short(n)}", math.inf
        self._values: Values | None = None

    def run(self, trainer: L.Trainer, module: ScoreModule) -> None:
        """Evaluates once; every rank takes part."""
        rank, show = rank_of(trainer), trainer.progress_bar_callback is not None and trainer.is_global_zero
        generator = self._generator.measured(module.average.model, show)
        batches = generator(module.average.model, self._n, self._seed, rank, show)
        fidelity = None if generator.conditions is None else Fidelity(generator.conditions, generator.pixels, rank)
        watched = batches if fidelity is None else fidelity.watch(batches)
        values = self._evaluator(watched, rank, progress=show).values
        self._values = values if fidelity is None else values | fidelity.compute()
        with rank.sharing_errors():
            if rank.number == 0:
                self._write(generator, trainer, module)
        distance = self.named.get(self._monitor, math.inf)
        if distance < self._best:
            self._best = distance
            trainer.save_checkpoint(self.folder / "checkpoints" / "best_fid.ckpt")

    def _write(self, generator: Generator, trainer: L.Trainer, module: ScoreModule) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({f"eval/{k}": v for k, v in self.named.items()}, step=trainer.global_step)
        device, quantizer = trainer.strategy.root_device, generator.pixels.quantizer
        run = describe_run(self._n, self._evaluator, rank_of(trainer), device, generator.batch_size, quantizer)
        evaluations = {
            "evaluations_per_image": generator.evaluations(module.average.model),
            "pilot_evaluations": generator.pilot_evaluations,
        }
        settings = {"step": trainer.global_step, "seeds": [self._seed], **evaluations}
        assert self._values is not None
        write_metrics(self.folder, summarize([self._values]), {**settings, **self._settings, **run})

    @property
    def named(self) -> dict[str, float]:
        """The last metrics, with the number of images in their names."""
        metrics = {} if self._values is None else self._values.metrics
        return {f"{name}_{short(self._n)}": value for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """The lowest distance so far, by its name: those of other numbers of images cannot be compared with it."""
        return {self._monitor: self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it."""
        self._best = state_dict.get(self._monitor, math.inf)


def short(n: int) -> str:
    """A number of images as metrics' names have it: 5000 is 5k."""
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)
