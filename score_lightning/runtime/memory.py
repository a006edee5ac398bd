"""What fits into this machine's memory."""

import os

import torch


def host_bytes() -> int:
    """Size of this machine's memory in bytes, GPUs excluded."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_bytes(needed: int, what: str) -> None:
    """Refuses what needs more memory than this machine and its GPUs have together.

    Raises:
        MemoryError: with both sizes.
    """
    if needed <= host_bytes():  # GPUs are asked only if it matters: that initializes them
        return
    gpus = (torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    available = host_bytes() + sum(gpus)
    if needed > available:
        raise MemoryError(f"{what} take {needed / 2**30:,.1f} GiB, this machine has {available / 2**30:,.1f}")
