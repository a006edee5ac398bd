"""What fits into this machine's memory, asked on the device `meta`, where tensors have shapes and take no memory."""

import os
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OPERATIONS = 30_000  # seven times what the deepest network here takes; others would be built for hours


def machine_bytes() -> int:
    """Bytes of this machine's memory, that of its GPUs included."""
    own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return own + sum(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def check_bytes(needed: int, what: str) -> None:
    """Refuses what needs more than this machine's memory.

    Raises:
        MemoryError: with both.
    """
    if needed > machine_bytes():
        raise MemoryError(f"{what} take {needed / 2**30:,.1f} GiB, this machine has {machine_bytes() / 2**30:,.1f}")


class Bounded(TorchDispatchMode):
    """In it, building and trying a network ends with a MemoryError where it grows beyond this machine."""

    def __init__(self) -> None:
        super().__init__()
        self._operations, self._limit = 0, machine_bytes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, counted."""
        result = func(*args, **(kwargs or {}))
        self._operations += 1
        if self._operations > OPERATIONS:
            raise MemoryError(f"the network has more than {OPERATIONS:,} operations")
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.nbytes > self._limit:
                check_bytes(tensor.nbytes, f"numbers of shape {tuple(tensor.shape)}")
        return result
