"""What all suites are told, and the two networks that they measure."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from score_lightning import config
from score_lightning.config import Resolved


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        device: cpu or cuda.
        quick: tiny networks and one repetition, to see that everything runs.
        digits, mnist: checkpoints whose samples are judged.
        n: images at each point of `quality`.
    """

    device: str = "cpu"
    quick: bool = False
    digits: str | None = None
    mnist: str | None = None
    n: int = 1000

    def repeats(self, usual: int) -> int:
        """So many repetitions, or one."""
        return 1 if self.quick else usual


@dataclass(frozen=True)
class Step:
    """A training step in two halves: loss and gradients, then clipping, optimizer and average."""

    compute: Callable[[], None]
    update: Callable[[], None]

    def __call__(self) -> None:
        """Both."""
        self.compute()
        self.update()


@dataclass(frozen=True)
class Size:
    """A network and a batch.

    Args:
        title: of its tables.
        exp: the experiment that it is of.
        words: that change the experiment.
        batch: images in it.
    """

    title: str
    exp: str
    words: tuple[str, ...]
    batch: int

    @property
    def resolved(self) -> Resolved:
        """The experiment."""
        return config.load(self.words, self.exp)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        images = self.resolved.config.images
        return images.channels, images.size, images.size

    def images(self, n: int | None = None) -> Tensor:
        """uint8 (n, C, H, W) of noise, a batch of them by default."""
        draws = torch.Generator().manual_seed(0)
        return torch.randint(256, (n or self.batch, *self.shape), dtype=torch.uint8, generator=draws)


TINY = ("net.channels=32", "net.multipliers=[1,2]", "net.blocks=1")


def sizes(settings: Settings) -> tuple[Size, Size]:
    """DDPM's CIFAR-10 network, and that of the digits."""
    gpu = settings.device == "cuda"
    if settings.quick:
        return (
            Size("DDPM CIFAR-10, made tiny", "ddpm_cifar", TINY, 2),
            Size("digits", "ddpm_digits", (), 2),
        )
    return (
        Size("DDPM CIFAR-10", "ddpm_cifar", (), 128 if gpu else 8),
        Size("digits", "ddpm_digits", (), 64),
    )
