"""Signals that ask a run to save its state and stop."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from threading import Thread, current_thread, main_thread
from typing import Any

from score_lightning.errors import INTERRUPTED, RESUMABLE, StopRequested
from score_lightning.runtime.startup import is_first

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Those that this system has: on Windows there is no SIGUSR1."""


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


@contextmanager
def end_at_signals() -> Iterator[None]:
    """Ends the process at a signal while its main thread waits for other processes.

    Python calls a handler when the main thread returns from the C++ that waits, after half an hour or more. The number
    of a signal that has a handler is written to a socket at once, which another thread reads.
    """
    if current_thread() is not main_thread():
        yield
        return
    reader, writer = socket.socketpair()  # Windows takes no pipe
    writer.setblocking(False)
    watcher = Thread(target=_end_at, args=[reader], daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer.fileno())
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()


def _end_at(reader: socket.socket) -> None:
    """Ends the process for the first signal from a socket that asks for it; returns when its other end is closed."""
    while number := reader.recv(1):
        if number[0] in (*SIGNALS, signal.SIGINT):
            if is_first():
                print(f"stopped: {signal.Signals(number[0]).name} before all processes were connected", file=sys.stderr)
            sys.stderr.flush()
            os._exit(INTERRUPTED if number[0] == signal.SIGINT else RESUMABLE)


@contextmanager
def held_back() -> Iterator[None]:
    """Holds signals back in this thread, and in the processes that it starts until they call `ignore_signals`."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows, where no process gets a signal of another
        yield
        return
    resource_tracker.ensure_running()  # which would end the block if it started within
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals(worker: int = 0) -> None:  # noqa: ARG001
    """Ignores signals that are sent to all processes of a run: the one that saves its state handles them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # which discards those that were held back
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
