"""Signals that ask a run to save its state and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

from score_lightning.errors import StopRequested

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def stop_at_signals() -> Iterator[None]:
    """Raises StopRequested for a signal while there is nothing to save: before the first step and after the last."""

    def stop(number: int, frame: Any) -> None:  # noqa: ARG001
        raise StopRequested(f"{signal.Signals(number).name} while nothing was trained")

    if current_thread() is not main_thread():  # others get no signals
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(worker: int = 0) -> None:  # noqa: ARG001
    """Ignores signals that are sent to all processes of a run: the one that saves its state handles them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
