"""What a process does before it imports torch."""

import ctypes
import os
import time
from threading import Thread

LAUNCHER = "SCORE_LIGHTNING_LAUNCHER"
"""The environment variable that holds the id of the process that launched this one."""


def keep_memory() -> None:
    """Lets the C library keep freed memory for reuse.

    glibc returns each large array to the system when it is freed, and the next one of the same size gets new pages,
    which the system clears: up to a fifth of a training step on the CPU. Arrays of 64 MiB and more are returned all
    the same: kept, they fragment the heap. In a CIFAR-10 step on 64 images, returning all from 32 MiB on took a quarter
    less memory and 7 % more time.
    Settings in the environment take precedence.
    """
    trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    settings = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"} & set(os.environ)
    if settings or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    # glibc before 2.35 takes 32 MiB at most; M_TRIM_THRESHOLD alone would stop the other one from adapting itself
    if mallopt(mmap, 2**26) or mallopt(mmap, 2**25):
        mallopt(trim, 2**30)


def end_with_launcher() -> None:
    """Ends this process soon after the one that launched it, however that ends: what this one waits for never comes.

    Only the ranks after the first of a machine are launched; those of torchrun and SLURM end by these.
    """
    launcher = os.environ.get(LAUNCHER)
    os.environ[LAUNCHER] = str(os.getpid())  # for those that this one launches
    if launcher not in (None, str(os.getpid())) and os.environ.get("LOCAL_RANK", "0") != "0":
        Thread(target=_end_after, args=[int(str(launcher))], daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def is_first() -> bool:
    """Whether this is the first of the processes."""
    if "RANK" in os.environ:  # torchrun's
        return os.environ["RANK"] == "0"
    # processes that Lightning started have LOCAL_RANK, and their parent's SLURM_PROCID
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0" == os.environ.get("NODE_RANK", "0")
