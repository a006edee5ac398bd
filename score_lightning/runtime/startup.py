"""What a process does and knows before torch is imported."""

import ctypes
import os


def keep_memory() -> None:
    """Lets the C library keep what is freed, for what comes next.

    glibc gives each large array back to the system when it is freed, and the next one of the same size is new pages,
    which the system clears: up to a fifth of a training step on the CPU. Its own settings in the environment win.
    """
    trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"} & set(os.environ)
    if own or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    # before 2.35 it takes 32 MiB at most; the other option alone would keep it from growing by itself
    if mallopt(mmap, 2**30) or mallopt(mmap, 2**25):
        mallopt(trim, 2**30)


def is_first() -> bool:
    """Whether this is the first of the processes."""
    if "RANK" in os.environ:  # torchrun's
        return os.environ["RANK"] == "0"
    # Lightning's own processes have LOCAL_RANK, and SLURM's SLURM_PROCID of their parent
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0" == os.environ.get("NODE_RANK", "0")
