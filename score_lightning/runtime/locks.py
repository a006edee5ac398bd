"""Locks between the processes of one machine: one at a time works in a folder.

Linux and macOS lock the folder itself (flock), Windows the first byte of the file `.lock` in it, which stays there. The
system unlocks when a process ends, however it ends. Where neither module is there, or the file system knows no locks,
nothing is locked.
"""

import math
import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

PAUSE = 0.1  # seconds between two tries


def lock(folder: Path, patience: float = math.inf) -> int:
    """Locks a folder that is there; returns the descriptor whose closing unlocks it.

    Args:
        folder: to lock.
        patience: seconds to wait for a process that has locked it.

    Raises:
        BlockingIOError: when it is still locked then.
    """
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    start = time.monotonic()
    while True:
        try:
            _try(descriptor)
        except BlockingIOError:
            if time.monotonic() - start > patience:
                os.close(descriptor)
                raise
            time.sleep(PAUSE)
        except OSError:  # a file system without locks
            return descriptor
        else:
            return descriptor


def _try(descriptor: int) -> None:
    """Locks what a descriptor is of.

    Raises:
        BlockingIOError: when another one has.
        OSError: when there are no locks.
    """
    if fcntl:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
