"""When a training stops early, and who may write to its folder: signals, and the lock of a run folder."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from score_lightning.errors import UserError
from score_lightning.runtime.locks import lock
from score_lightning.runtime.signals import SIGNALS

PATIENCE = 10.0
"""Seconds within which the workers that a killed training leaves behind end."""


class StopSignals:
    """Notes SIGTERM and SIGUSR1 during a training, in place of Lightning's own handlers."""

    def __init__(self) -> None:
        self._received: int | None = None

    def listen(self) -> None:
        """Starts to listen; Lightning restores the previous handlers after the training."""
        with suppress(ValueError):  # outside the main thread there are no signals
            for number in SIGNALS:
                signal.signal(number, self._note)

    def received(self, group: Any = None) -> int:
        """A signal that any process of a group has received, 0 for none; every process must ask."""
        mine = self._received or 0
        if group is None:
            return mine
        numbers = torch.tensor(mine)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX, group)
        return int(numbers)

    def _note(self, number: int, frame: Any) -> None:  # noqa: ARG002
        self._received = number


class RunFolderLock:
    """Keeps other trainings out of a run folder until it is released, where the system supports locks."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def acquire(self, folder: Path) -> None:
        """Locks the folder.

        Raises:
            UserError: when another training holds it.
        """
        self._descriptor = _lock(folder)

    def release(self) -> None:
        """Unlocks the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def wait_for_others(folder: Path) -> None:
    """Waits a little for a training that writes to a run folder, if there is one."""
    with suppress(UserError):  # reported when this training starts
        os.close(_lock(folder))


def _lock(folder: Path) -> int:
    try:
        return lock(folder, PATIENCE)
    except BlockingIOError as error:
        raise UserError(f"another training is writing to {folder}: wait for its end, or stop it") from error
