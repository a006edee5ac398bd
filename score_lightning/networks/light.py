"""A U-Net for CPUs: few layers, each of a kind and a width that processors are fast at."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.blocks import conv, init
from score_lightning.networks.embedding import look_up, sinusoidal
from score_lightning.networks.layers import Block, Dropout
from score_lightning.networks.ushape import Size, check_classes, check_images, check_levels, sides


class LightUNet(nn.Module):
    """A U-Net with one norm and two convolutions a block, without attention, whose skips are added.

    On a CPU a small network spends its time in convolutions at the full resolution and in passes over memory. So the
    full resolution has blocks on the way up only, where they see what the coarser levels made; skips are added, which
    needs no convolution of twice the width; a norm is one group, without learned weights, since the conditioning
    scales and shifts it (Nichol & Dhariwal 2021, Sec. 3.4); 1 x 1 convolutions come before pixels are repeated. With
    AVX-512, 32 channels take the time of 24, and 64 hardly more than 48: take multiples of 32.

    Args:
        image_size: height and width of the images in pixels, one number of squares.
        image_channels: channels of the images.
        widths: channels of each level; each next one has half the resolution.
        blocks: residual blocks per level, on the way down and on the way up.
        patch: height and width of the patches that the first level takes as its pixels (Shi et al. 2016).
        dropout: probability inside the residual blocks.
        scale: what the conditioning is multiplied by before its embedding, whose periods are 2 pi and longer: take 1
            for integer times, 2 for log sigma.
        learned_variance: whether to return twice the channels, the second half for variances (Nichol & Dhariwal 2021).
        classes: of labels, which are embedded and added to the time's embedding; None without labels.
        condition_channels: of a picture that images are conditioned on, beside `image_channels` in the input.

    Raises:
        ValueError: when the image size cannot be divided that often, or a number is not positive.
    """

    def __init__(
        self,
        image_size: Size = 8,
        image_channels: int = 1,
        widths: Sequence[int] = (32, 32, 32),
        blocks: int = 1,
        patch: int = 1,
        dropout: float = 0.0,
        scale: float = 1.0,
        learned_variance: bool = False,
        classes: int | None = None,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        check_classes(classes)
        height, width = sides(image_size)
        if patch < 1 or height % patch or width % patch:
            raise ValueError(f"patch must divide the image size of {image_size}, got {patch}")
        check_levels((height // patch, width // patch), 1, widths, blocks)
        self.image_size, self.patch, self.scale, self.classes = image_size, patch, scale, classes
        self.features, self.condition_channels = 2 * widths[0], condition_channels
        pixels, pairs = image_channels * patch**2, list(pairwise(widths))
        self.conv_in = conv(pixels + condition_channels * patch**2, widths[0])
        self.shrink = nn.ModuleList(nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in pairs)
        self.down = nn.ModuleList(_level(deep, blocks, dropout) for _, deep in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(deep, wide, 1) for wide, deep in reversed(pairs))
        self.up = nn.ModuleList(_level(width, blocks, dropout) for width in reversed(widths))
        self.conv_out = conv(widths[0], pixels * (1 + learned_variance), scale=0)
        self._sizes = [2 * module.width for module in self.modules() if isinstance(module, LightBlock)]
        self.time_1 = init(nn.Linear(self.features, self.features))
        self.time_2 = init(nn.Linear(self.features, sum(self._sizes)), scale=0.01)
        if classes is not None:
            self.label = nn.Embedding(classes + 1, self.features)  # the first row is that of no label

    def hidden_weights(self) -> list[Tensor]:
        """The kernels of all convolutions between the first and the last."""
        ends = self.conv_in, self.conv_out
        return [m.weight for m in self.modules() if isinstance(m, nn.Conv2d) and m not in ends]

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) from images x (B, C, H, W), conditioning c (B,) and labels int64 (B,), -1 for none.

        Raises:
            ValueError: when the images are not of the size that the network was built for.
        """
        check_images(x, self.image_size)
        embedding = self.time_1(sinusoidal(self.scale * c, self.features).to(x.dtype))
        if self.classes is not None:
            embedding = embedding + look_up(self.label, labels, c)
        changes = iter(self.time_2(F.silu(embedding))[:, :, None, None].split(self._sizes, dim=1))
        h, skips = self.conv_in(F.pixel_unshuffle(x, self.patch)), []
        for shrink, level in zip(self.shrink, self.down, strict=True):
            skips.append(h)
            h = _pass(level, shrink(h), changes)
        h = _pass(self.up[0], h, changes)
        for grow, level in zip(self.grow, self.up[1:], strict=True):
            h = skips.pop() + F.interpolate(grow(h), scale_factor=2.0, mode="nearest")
            h = _pass(level, h, changes)
        return F.pixel_shuffle(self.conv_out(F.silu(h)), self.patch)


class LightBlock(Block):
    """x + conv(silu(scale * norm(conv(silu(x))) + shift)), the last convolution 0 at first."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.conv_1 = conv(width, width)
        self.norm = nn.GroupNorm(1, width, affine=False)
        self.dropout = Dropout(dropout)
        self.conv_2 = conv(width, width, scale=0)

    def forward(self, x: Tensor, changes: Tensor) -> Tensor:
        """(B, width, H, W) from x of that shape and changes (B, 2 width, 1, 1), scale - 1 and shift."""
        scale, shift = changes.chunk(2, 1)
        h = torch.addcmul(shift, self.norm(self.conv_1(F.silu(x))), 1 + scale)
        return x + self.conv_2(self.dropout(F.silu(h)))


def _level(width: int, blocks: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(LightBlock(width, dropout) for _ in range(blocks))


def _pass(level: nn.Module, h: Tensor, changes: Iterator[Tensor]) -> Tensor:
    for block in level.children():
        h = block(h, next(changes))
    return h
