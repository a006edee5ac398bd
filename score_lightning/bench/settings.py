"""Settings that all suites share, and the two networks that they measure."""

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
        digits, mnist: checkpoints whose samples `quality` measures.
        n: images at each point of `quality`.
        npz: images and labels in place of MNIST's, in `race`.
    """

    device: str = "cpu"
    quick: bool = False
    digits: str | None = None
    mnist: str | None = None
    n: int = 1000
    npz: str | None = None

    def repeats(self, usual: int) -> int:
        """Number of repetitions: the usual one, or 1 if quick."""
        return 1 if self.quick else usual

    def warmup(self, usual: int) -> int:
        """Number of calls before those that count: the usual one, or 0 if quick."""
        return 0 if self.quick else usual


@dataclass(frozen=True)
class Step:
    """A training step in two halves: loss and gradients, then clipping, optimizer and average."""

    compute: Callable[[], None]
    update: Callable[[], None]

    def __call__(self) -> None:
        """Takes the whole step."""
        self.compute()
        self.update()


@dataclass(frozen=True)
class Size:
    """A network and a batch size.

    Args:
        title: of its tables.
        exp: name of the experiment.
        overrides: of its configuration, key=value.
        batch: images in a batch.
    """

    title: str
    exp: str
    overrides: tuple[str, ...]
    batch: int

    @property
    def resolved(self) -> Resolved:
        """The experiment's configuration."""
        return config.load(self.overrides, self.exp)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        images = self.resolved.config.images
        return images.channels, images.size, images.size

    def images(self, n: int | None = None) -> Tensor:
        """uint8 (n, C, H, W) of noise, one batch by default."""
        return noise_images(n or self.batch, self.shape)


def noise_images(n: int, shape: tuple[int, ...]) -> Tensor:
    """uint8 (n, C, H, W), uniform noise, always the same."""
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


OURS = "score_lightning"
"""The name of this project among its peers."""
UNET = ("net=unet_tiny", "prediction=eps", "objective.stratified=false")  # the published U-Net and loss, made small
TINY = ("net.channels=32", "net.multipliers=[1,2]", "net.blocks=1")


def sizes(settings: Settings) -> tuple[Size, Size]:
    """DDPM's CIFAR-10 network, and that of the digits."""
    gpu = settings.device == "cuda"
    if settings.quick:
        return (
            Size("DDPM CIFAR-10, made tiny", "ddpm_cifar", TINY, 2),
            Size("digits", "ddpm_digits", UNET, 2),
        )
    return (
        Size("DDPM CIFAR-10", "ddpm_cifar", (), 128 if gpu else 8),
        Size("digits", "ddpm_digits", UNET, 64),
    )
