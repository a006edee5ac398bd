"""Checkpoints during training: when they are written, that a kill leaves whole ones, and which is the newest.

A checkpoint of step k is written when all that belongs to that step is done, its validation, pictures and evaluation,
before the next step begins. So a run that goes on from it does and logs exactly what the uninterrupted run does.
"""

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import distributed

from score_lightning.errors import NonFiniteError, StopRequested, UserError
from score_lightning.runtime.files import atomic_file, atomic_path
from score_lightning.runtime.processes import rank_of
from score_lightning.runtime.signals import SIGNALS
from score_lightning.tracking.csv import MetricsLogger

PATIENCE = 10.0
"""Seconds in which what a killed training leaves behind, its workers, has ended."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are whole or not there: written beside their place, then moved to it.

    After step_*.ckpt is written it is last.ckpt, too, and older ones go.

    Args:
        keep: how many step_*.ckpt are kept.
    """

    def __init__(self, keep: int = 1) -> None:
        self._keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Writes a checkpoint.

        Raises:
            UserError: when it cannot be written, on a full disk say; the file that was there stays.
        """
        path = Path(path)
        try:
            with atomic_file(path) as file:
                torch.save(checkpoint, file)
            if path.name.startswith("step_"):
                self._make_last(path)
        except (OSError, RuntimeError) as error:
            kept = f"; {path} is as it was" if path.exists() else ""
            # torch tells that the file is too short, and not why
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            raise UserError(f"the checkpoint {path} cannot be written: {str(cause).splitlines()[0]}{kept}") from error

    def _make_last(self, path: Path) -> None:
        _link(path, path.with_name("last.ckpt"))
        steps = sorted(path.parent.glob("step_*.ckpt"))
        number = steps.index(path) + 1
        # later ones could not be read when this run went on
        for other in [*steps[: max(0, number - self._keep)], *steps[number:]]:
            other.unlink()


class AsyncCheckpointWriter(AsyncCheckpointIO):
    """Writes checkpoints while the training goes on; its `teardown` waits for them and raises what failed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], *args: Any, **options: Any) -> None:
        """Begins to write one; an earlier one that failed is left to `teardown`, which every process awaits."""
        # from a GPU's memory, of which there may be no more
        checkpoint = apply_to_collection(checkpoint, torch.Tensor, lambda tensor: tensor.cpu())
        with suppress(UserError):
            super().save_checkpoint(checkpoint, *args, **options)

    def teardown(self) -> None:
        """Waits, and raises what failed, once."""
        try:
            super().teardown()
        finally:
            self._error = None


class Checkpoints(L.Callback):
    """Has checkpoints/step_*.ckpt written, while the training goes on.

    On SIGTERM or SIGUSR1 it writes one before the next step and stops the run with `StopRequested`.

    Args:
        every: steps between checkpoints.
        minutes: between checkpoints, if those come sooner; None for steps alone.
        check: steps between looks at the clock.
    """

    def __init__(self, every: int, minutes: float | None = None, check: int = 50) -> None:
        self._every, self._minutes, self._check = every, minutes, check
        self._step, self._time = 0, time.monotonic()
        self._signal: int | None = None
        self._group: Any = None
        self._lock: int | None = None
        self.folder = Path()

    @property
    def last(self) -> Path | None:
        """The newest checkpoint of the run, None before the first."""
        path = self.folder / "last.ckpt"
        return path if path.exists() else None

    def lock(self, folder: Path) -> None:
        """Keeps other trainings out of a run folder until this one ends, where the file system knows locks.

        Raises:
            UserError: when another one is in it.
        """
        self._lock = _lock(folder)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Learns the run folder."""
        assert trainer.log_dir is not None
        self.folder = Path(trainer.log_dir) / "checkpoints"
        with rank_of(trainer).sharing_errors():
            if trainer.is_global_zero:
                for partial in self.folder.glob(".*.ckpt.*"):  # of a write that was killed
                    partial.unlink()
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")  # asks the processes, never the GPUs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Listens to signals, in Lightning's place.

        Raises:
            UserError: when the processes go on from different steps.
        """
        if trainer.world_size > 1:
            steps: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(steps, trainer.global_step, self._group)
            if len(set(steps)) > 1:
                raise UserError(f"the processes go on from different steps, {steps}: all must see one folder of runs")
        # between two steps the next batch is ready, which Lightning would count twice after a resume
        total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        total.ready = min(total.ready, total.started)
        with suppress(ValueError):  # outside the main thread there are none
            for number in SIGNALS:  # Lightning puts back what was there before, after the training
                signal.signal(number, self._note)

    def on_train_batch_start(self, trainer: L.Trainer, *place: Any) -> None:
        """Writes the checkpoint of the step before, if one is due.

        Raises:
            StopRequested: after a signal.
        """
        # Lightning counts one too many after a resume; it is the step that losses are logged with
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if place[-1] % trainer.accumulate_grad_batches:  # the number of the batch
            return
        number = self._agreed(trainer)
        if number or self._due(trainer):
            self.save(trainer)
        if number:
            with rank_of(trainer).sharing_errors():
                _wait(trainer)
            saved = f"{self.last} is saved" if self.last else "nothing was trained yet"
            raise StopRequested(f"{signal.Signals(number).name} after step {trainer.global_step}: {saved}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Writes the last checkpoint."""
        self.save(trainer)
        with rank_of(trainer).sharing_errors():
            _wait(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Leaves the folder to others, and names the last good checkpoint where numbers go wrong."""
        with suppress(UserError):  # which was told, or is less than the exception
            _wait(trainer)
        self._leave()
        if isinstance(exception, NonFiniteError):
            where = f"the last good checkpoint is {self.last}" if self.last else "there is no checkpoint yet"
            exception.args = (f"{exception}; {where}. A smaller optimizer.lr or optimizer.clip may help",)

    def save(self, trainer: L.Trainer) -> None:
        """Begins to write a checkpoint of this step unless there is one; every rank takes part.

        Raises:
            UserError: when the one before could not be written.
        """
        step = trainer.global_step
        if step == self._step:
            return
        self._step, self._time = step, time.monotonic()
        with rank_of(trainer).sharing_errors():
            for logger in trainer.loggers:
                (logger.write if isinstance(logger, MetricsLogger) else logger.save)()
            _wait(trainer)
        trainer.save_checkpoint(self.folder / f"step_{step:07d}.ckpt")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leaves the folder to others."""
        self._leave()

    def _leave(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def state_dict(self) -> dict[str, Any]:
        """The step, whose checkpoint need not be written again."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from it."""
        self._step = state_dict["step"]

    def _note(self, number: int, frame: Any) -> None:  # noqa: ARG002
        self._signal = number

    def _agreed(self, trainer: L.Trainer) -> int:
        """A signal that any rank has got, 0 for none; every rank must ask."""
        mine = self._signal or 0
        if trainer.world_size == 1:
            return mine
        numbers = torch.tensor(mine)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, self._group)
        return int(numbers)

    def _due(self, trainer: L.Trainer) -> bool:
        step = trainer.global_step
        if step == self._step or step == 0:
            return False
        if step % self._every == 0:
            return True
        if self._minutes is None or step % self._check:
            return False
        late = torch.tensor(int(time.monotonic() - self._time > 60 * self._minutes))
        if trainer.world_size > 1:
            distributed.broadcast(late, 0, self._group)
        return bool(late)


def wait_for_others(folder: Path) -> None:
    """Waits a little for a training that writes to a run folder, if there is one."""
    with suppress(UserError):  # it is told when this one begins
        os.close(_lock(folder))


def _lock(folder: Path) -> int:
    opened, begun = os.open(folder, os.O_RDONLY), time.monotonic()
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() - begun > PATIENCE:
                os.close(opened)
                raise UserError(f"another training is writing to {folder}: wait for its end, or stop it") from error
            time.sleep(0.2)
            continue
        except OSError:
            pass
        return opened


def _wait(trainer: L.Trainer) -> None:
    """Until what was to be written is.

    Raises:
        UserError: when it could not be.
    """
    trainer.strategy.checkpoint_io.teardown()


def _link(path: Path, name: Path) -> None:
    """Makes a name another one of a file, or a copy of it where files cannot have two names; at once."""
    with atomic_path(name) as partial:
        try:
            partial.hardlink_to(path)
        except OSError:
            partial.write_bytes(path.read_bytes())


class KeepLog(L.Callback):
    """Keeps what was logged in every checkpoint: a run that goes on has the whole log, and nothing twice."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Finds the log."""
        self._logs = [logger for logger in trainer.loggers if isinstance(logger, MetricsLogger)]

    def state_dict(self) -> dict[str, Any]:
        """The rows of the log."""
        return {"rows": json.dumps([row for log in self._logs for row in log.rows])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from them."""
        for log in self._logs:
            log.restore(json.loads(state_dict["rows"]))
