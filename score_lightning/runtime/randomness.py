"""Random numbers as functions of a seed and a place, never of the process or the order of execution."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that differs, and whose numbers are independent, for every key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by the key."""
    return torch.Generator(device).manual_seed(derive_seed(*key))


class BatchNoise:
    """Noise of one rank's share of a global batch, the same for every number of ranks.

    Every rank draws the numbers of the whole global batch and keeps its rows.

    Args:
        key: what the numbers are a function of, such as (seed, "train", step).
        rank, ranks: this process and the number of processes, each with an equal share.
    """

    def __init__(self, *key: int | str, device: torch.device | str = "cpu", rank: int = 0, ranks: int = 1) -> None:
        self._generator, self._rank, self._ranks = generator(*key, device=device), rank, ranks

    def rand(self, *shape: int) -> Tensor:
        """Uniform float32 numbers on [0, 1) for this rank's rows, whatever the default type."""
        device = self._generator.device
        u = torch.rand(
            shape[0] * self._ranks, *shape[1:], generator=self._generator, device=device, dtype=torch.float32
        )
        return u[self._rank * shape[0] :][: shape[0]]

    def strata(self, n: int) -> Tensor:
        """(n,) uniform float32 numbers on [0, 1), one in each of as many equal intervals as the global batch has rows.

        Row i of the batch has interval i: images come in random order.
        """
        rows = torch.arange(self._rank * n, (self._rank + 1) * n, device=self._generator.device)
        # the largest number below 1 in place of 1, to which the last sum may be rounded
        return ((rows + self.rand(n)) / (n * self._ranks)).clamp(max=1 - torch.finfo(torch.float32).eps / 2)

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal numbers of x's shape and dtype for this rank's rows."""
        device = self._generator.device
        z = torch.randn(len(x) * self._ranks, *x.shape[1:], generator=self._generator, device=device, dtype=x.dtype)
        return z[self._rank * len(x) :][: len(x)]


class ImageNoise:
    """Noise for generation: image i draws from its own generator, so it is the same in every batch.

    A `randn_like` for batches of these images. Each generator draws the numbers of several calls at once, since one
    call costs far more than one number.

    Args:
        seed: of the whole set of images.
        indices: the images of this batch.
    """

    _numbers_at_once = 4096

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self._generators = [generator(seed, "image", i) for i in indices]
        self._block = torch.empty(0)
        self._next = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal numbers of x's shape (B, ...), dtype and device, B the number of images.

        Raises:
            ValueError: when x holds another number of images.
        """
        if len(x) != len(self._generators):
            raise ValueError(f"noise for {len(self._generators)} images was asked for {len(x)}")
        if not self._generators:
            return torch.empty_like(x)
        if self._next >= len(self._block) or self._block.shape[1:] != x.shape:
            calls = max(1, self._numbers_at_once // max(1, x[0].numel()))
            rows = [torch.randn(calls, *x.shape[1:], generator=g, dtype=torch.float32) for g in self._generators]
            self._block, self._next = torch.stack(rows, 1), 0
        self._next += 1
        return self._block[self._next - 1].to(device=x.device, dtype=x.dtype, non_blocking=True)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seeds the global generators that dropout on a device draws from.

    torch.manual_seed would also record the call stack for every kind of device that is not in use, which takes 1 % of
    a small network's step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
