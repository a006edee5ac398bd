"""Checkpoints during training: when they are written, and what a run needs to continue from one.

A checkpoint of step k is written when everything of that step is done, its validation, pictures and evaluation, before
the next step starts. So a resumed run does and logs exactly what an uninterrupted one does.
"""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import distributed

from score_lightning.errors import NonFiniteError, StopRequested, UserError
from score_lightning.runtime.processes import rank_of
from score_lightning.tracking.csv import MetricsLogger
from score_lightning.training.stopping import RunFolderLock, StopSignals


class CheckpointTimes:
    """When a checkpoint is due: every so many steps, or minutes if those pass sooner.

    Args:
        every: steps between checkpoints.
        minutes: between checkpoints; None for steps only.
        check: steps between looks at the clock.
    """

    def __init__(self, every: int, minutes: float | None = None, check: int = 50) -> None:
        self._every, self._minutes, self._check = every, minutes, check
        self.last_step, self._last_time = 0, time.monotonic()

    def start(self, step: int) -> bool:
        """Notes a checkpoint of a step; whether there was none of it before."""
        if step == self.last_step:
            return False
        self.last_step, self._last_time = step, time.monotonic()
        return True

    def due(self, step: int, group: Any = None) -> bool:
        """Whether one is due after a step; by the clock of the first process of a group, all of which must ask."""
        if step in (self.last_step, 0):
            return False
        if step % self._every == 0:
            return True
        if self._minutes is None or step % self._check:
            return False
        late = torch.tensor(int(time.monotonic() - self._last_time > 60 * self._minutes))
        if group is not None:
            distributed.broadcast(late, 0, group)
        return bool(late)


class Checkpoints(L.Callback):
    """Has checkpoints/step_*.ckpt written in the background.

    On SIGTERM or SIGUSR1 it writes one before the next step and stops the run with `StopRequested`.

    Args:
        times: when they are due.
    """

    def __init__(self, times: CheckpointTimes) -> None:
        self._times, self._signals, self.lock = times, StopSignals(), RunFolderLock()
        self._group: Any = None
        self.folder = Path()

    @property
    def last(self) -> Path | None:
        """The newest checkpoint of the run, None before the first."""
        path = self.folder / "last.ckpt"
        return path if path.exists() else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Finds the run folder, and removes what killed writes left there."""
        assert trainer.log_dir is not None
        self.folder = Path(trainer.log_dir) / "checkpoints"
        with rank_of(trainer).sharing_errors():
            if trainer.is_global_zero:
                for partial in self.folder.glob(".*.ckpt.*"):
                    partial.unlink()
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")  # asks the processes, never the GPUs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Listens to signals.

        Raises:
            UserError: when the processes resume from different steps.
        """
        if self._group is not None:
            steps: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(steps, trainer.global_step, self._group)
            if len(set(steps)) > 1:
                raise UserError(f"the processes resume from different steps, {steps}: all must see one folder of runs")
        # between two steps the next batch is ready, which Lightning would count twice after a resume
        total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        total.ready = min(total.ready, total.started)
        self._signals.listen()

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Writes the checkpoint of the previous step, if one is due.

        Raises:
            StopRequested: after a signal.
        """
        # Lightning counts one too many after a resume; it is the step that losses are logged with
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if batch_idx % trainer.accumulate_grad_batches:
            return
        number = self._signals.received(self._group)
        if number or self._times.due(trainer.global_step, self._group):
            self.save(trainer)
        if number:
            self._wait(trainer)
            saved = f"{self.last} is saved" if self.last else "nothing was trained yet"
            raise StopRequested(f"{signal.Signals(number).name} after step {trainer.global_step}: {saved}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Writes the last checkpoint."""
        self.save(trainer)
        self._wait(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Releases the folder, and names the last good checkpoint where numbers were not finite."""
        with suppress(UserError):  # already reported, or less important than the exception
            trainer.strategy.checkpoint_io.teardown()
        self.lock.release()
        if isinstance(exception, NonFiniteError):
            where = f"the last good checkpoint is {self.last}" if self.last else "there is no checkpoint yet"
            exception.args = (f"{exception}; {where}. A smaller optimizer.lr or optimizer.clip may help",)

    def save(self, trainer: L.Trainer) -> None:
        """Starts to write a checkpoint of this step unless there is one; every rank takes part.

        Raises:
            UserError: when the previous one could not be written.
        """
        if not self._times.start(trainer.global_step):
            return
        with rank_of(trainer).sharing_errors():
            for logger in trainer.loggers:
                (logger.write if isinstance(logger, MetricsLogger) else logger.save)()
        self._wait(trainer)
        trainer.save_checkpoint(self.folder / f"step_{trainer.global_step:07d}.ckpt")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Releases the folder."""
        self.lock.release()

    def state_dict(self) -> dict[str, Any]:
        """The step of the checkpoint, which need not be written again."""
        return {"step": self._times.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it."""
        self._times.last_step = state_dict["step"]

    def _wait(self, trainer: L.Trainer) -> None:
        """Waits until everything is written; every rank takes part.

        Raises:
            UserError: when something could not be.
        """
        with rank_of(trainer).sharing_errors():
            trainer.strategy.checkpoint_io.teardown()


class LogKeeper(L.Callback):
    """Keeps the rows of the log in every checkpoint: a resumed run has the whole log, and nothing twice."""

    state_key = "KeepLog"  # as in checkpoints of version 0.1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Finds the log."""
        self._logs = [logger for logger in trainer.loggers if isinstance(logger, MetricsLogger)]

    def state_dict(self) -> dict[str, Any]:
        """The rows of the log."""
        return {"rows": json.dumps([row for log in self._logs for row in log.rows])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them."""
        for log in self._logs:
            log.restore(json.loads(state_dict["rows"]))
