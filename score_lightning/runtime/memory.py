"""What fits into this machine's memory."""

import os

import torch


def host_bytes() -> int:
    """Bytes of this machine's memory, without that of its GPUs."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_bytes(needed: int, what: str) -> None:
    """Refuses what needs more than this machine's memory and that of its GPUs together.

    Raises:
        MemoryError: with both.
    """
    if needed <= host_bytes():  # GPUs are asked where it matters only: that takes hold of them
        return
    gpus = (torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    there = host_bytes() + sum(gpus)
    if needed > there:
        raise MemoryError(f"{what} take {needed / 2**30:,.1f} GiB, this machine has {there / 2**30:,.1f}")
