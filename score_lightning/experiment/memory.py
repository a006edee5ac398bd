"""Whether a network fits into this machine's memory: asked before it takes any."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from score_lightning.errors import UserError
from score_lightning.models import ScoreModel
from score_lightning.runtime.memory import check_bytes

OPERATIONS = 30_000  # seven times what the deepest network here takes; others would be built for hours


@contextmanager
def build_within_memory(copies: int) -> Iterator[None]:
    """Ends the building of a network where that many copies of it would not fit into memory.

    Raises:
        MemoryError: before the weights that are too much are allocated.
    """
    with _Counted(copies):
        yield


@torch.no_grad()
def check_forward(model: ScoreModel, shape: tuple[int, ...], name: str, taken: str) -> None:
    """Refuses a network that cannot take data of a shape (B, ...), or its conditioning, or that no memory holds.

    The forward pass runs on the device `meta`, with weights of the same shapes: nothing is computed.

    Raises:
        UserError: naming the network.
    """
    state = {key: value.to("meta") for key, value in [*model.named_parameters(), *model.named_buffers()]}
    training = model.training
    model.eval()
    try:
        with _Counted():
            x, t = torch.zeros(shape, device="meta"), model.schedule.times(1).expand(shape[0]).to("meta")
            output: Tensor = functional_call(model, state, (x, t)).eps
    except MemoryError as error:
        raise UserError(f"{name} is too large for {shape[0]} {taken}: {error}") from error
    except (ValueError, TypeError, RuntimeError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} cannot take {taken}, or its conditioning: {reason}") from error
    finally:
        model.train(training)
    if output.shape != shape:
        raise UserError(f"{name} returns {tuple(output.shape)} for data of shape {shape}")


class _Counted(TorchDispatchMode):
    """Within it an operation ends with a MemoryError where what it makes is larger than this machine's memory.

    Args:
        copies: of all that is allocated that are to be in memory; 0 checks each result by itself.
    """

    def __init__(self, copies: int = 0) -> None:
        super().__init__()
        self._copies, self._operations, self._allocated = copies, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, counted."""
        kwargs = kwargs or {}
        self._operations += 1
        if self._operations > OPERATIONS:
            raise MemoryError(f"the network has more than {OPERATIONS:,} operations")
        if self._copies and not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
            self._check(func(*args, **{**kwargs, "device": torch.device("meta")}))  # its size, before it is there
        result = func(*args, **kwargs)
        if not self._copies:
            self._check(result)
        return result

    def _check(self, result: Any) -> None:
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                check_bytes(tensor.nbytes, f"numbers of shape {tuple(tensor.shape)}")
                self._allocated += tensor.nbytes
        if self._copies:
            check_bytes(self._copies * self._allocated, f"{self._copies} copies of its weights")
