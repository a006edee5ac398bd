"""Loaders whose processes leave signals to the run."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from score_lightning.runtime.signals import held_back, ignore_signals


class Loader(DataLoader[Any]):
    """torch's DataLoader, whose processes ignore the signals that ask a run to save its state and stop.

    A signal is sent to all processes of a run at once. torch's own handler would end a process that is just starting,
    and with it the run, which would have saved its state.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, worker_init_fn=ignore_signals, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Starts the processes, and gives what they load."""
        if self.num_workers == 0:
            return super().__iter__()
        with held_back():
            return super().__iter__()
