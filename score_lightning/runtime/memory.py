"""What fits into this machine's memory, asked on the device `meta`, where tensors have shapes and take no memory."""

import os
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OPERATIONS = 30_000  # seven times what the deepest network here takes; others would be built for hours


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


class Bounded(TorchDispatchMode):
    """In it, building and trying a network ends with a MemoryError where it grows beyond this machine."""

    def __init__(self) -> None:
        super().__init__()
        self._operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, counted."""
        result = func(*args, **(kwargs or {}))
        self._operations += 1
        if self._operations > OPERATIONS:
            raise MemoryError(f"the network has more than {OPERATIONS:,} operations")
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                check_bytes(tensor.nbytes, f"numbers of shape {tuple(tensor.shape)}")
        return result
