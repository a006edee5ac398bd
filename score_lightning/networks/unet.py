"""The U-Net of DDPM (Ho et al. 2020, App. B): residual blocks with group norm, self-attention, sinusoidal time."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.embedding import sinusoidal

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def _init(layer: Layer, scale: float = 1.0) -> Layer:
    """Uniform weights of variance scale / mean(fan in, fan out), no bias: as in DDPM; scale 0 gives zeros."""
    if scale == 0:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, scale: float = 1.0) -> nn.Conv2d:
    padding = size // 2 if stride == 1 else 0
    return _init(nn.Conv2d(inputs, outputs, size, stride, padding), scale)


class Attention(nn.Module):
    """x + self-attention over all pixels, with one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.query, self.key, self.value = (_conv(channels, channels, size=1) for _ in range(3))
        self.out = _conv(channels, channels, size=1, scale=0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W)."""
        h = self.norm(x)
        q, k, v = (f(h).flatten(2) for f in (self.query, self.key, self.value))
        # written out: PyTorch's fused CPU kernel has no second derivative, which score matching needs
        weights = (q.transpose(1, 2) @ k / math.sqrt(x.shape[1])).softmax(-1)
        return x + self.out((v @ weights.transpose(1, 2)).view_as(x))


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))), with a 1x1 convolution on x where the width changes.

    With `attend`, self-attention follows.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, groups: int, dropout: float, attend: bool = False
    ) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv_1 = _conv(inputs, outputs)
        self.time = _init(nn.Linear(embedding, outputs))
        self.norm_2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = _conv(outputs, outputs, scale=0)
        self.skip = nn.Identity() if inputs == outputs else _conv(inputs, outputs, size=1)
        self.attention = Attention(outputs, groups) if attend else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, outputs, H, W) from x (B, inputs, H, W) and the activated time embedding (B, embedding)."""
        h = self.conv_1(F.silu(self.norm_1(x))) + self.time(embedding)[:, :, None, None]
        return self.attention(self.skip(x) + self.conv_2(self.dropout(F.silu(self.norm_2(h)))))


class UNet(nn.Module):
    """DDPM's U-Net. The defaults are its CIFAR-10 configuration (35,746,307 parameters; 0.1 dropout in training).

    Args:
        image_size: height and width of the images in pixels.
        image_channels: channels of the images.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each next level has half the resolution.
        blocks: residual blocks per level.
        attention: resolutions, in pixels, at which blocks are followed by self-attention.
        dropout: probability inside the residual blocks.
        groups: groups of the group norms.
        learned_variance: whether to return twice the channels, the second half for variances (Nichol & Dhariwal 2021).
        classes: of labels, which are embedded and added to the time's embedding; None without labels.

    Raises:
        ValueError: when the image size cannot be halved that often, or the groups do not divide a width.
    """

    def __init__(
        self,
        image_size: int = 32,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        dropout: float = 0.0,
        groups: int = 32,
        learned_variance: bool = False,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        if not multipliers or min(channels, blocks, groups, *multipliers) < 1:
            raise ValueError("channels, multipliers, blocks and groups must be positive")
        halvings = len(multipliers) - 1
        if image_size % 2**halvings:
            raise ValueError(
                f"{len(multipliers)} levels halve the image {halvings} times, so its size must be a multiple of "
                f"{2**halvings}; got {image_size}. Use fewer multipliers or another image size"
            )
        if channels % groups:
            raise ValueError(f"groups must divide channels, got {groups} and {channels}")
        if classes is not None and classes < 1:
            raise ValueError(f"classes must be positive, or none, got {classes}")
        self.image_size, self.channels, self.classes = image_size, channels, classes
        embedding, widths = 4 * channels, [channels * m for m in multipliers]
        before, after = [channels, *widths[:-1]], [*widths[1:], widths[-1]]
        attend = [image_size // 2**i in attention for i in range(len(widths))]

        def level(inputs: Sequence[int], outputs: int, attends: Sequence[bool]) -> nn.ModuleList:
            options = (outputs, embedding, groups, dropout)
            return nn.ModuleList(ResidualBlock(i, *options, a) for i, a in zip(inputs, attends, strict=True))

        self.time_1, self.time_2 = _init(nn.Linear(channels, embedding)), _init(nn.Linear(embedding, embedding))
        self.conv_in = _conv(image_channels, channels)
        self.down = nn.ModuleList(
            level([b, *[w] * (blocks - 1)], w, [a] * blocks) for b, w, a in zip(before, widths, attend, strict=True)
        )
        self.shrink = nn.ModuleList(_conv(w, w, stride=2) for w in widths[:-1])
        self.middle = level([widths[-1]] * 2, widths[-1], [True, False])
        # a block on the way up takes what the way down left: the outputs of its level's blocks, then the level's input
        self.up = nn.ModuleList(
            level([n + w, *[2 * w] * (blocks - 1), w + b], w, [a] * (blocks + 1))
            for n, w, b, a in zip(after, widths, before, attend, strict=True)
        )
        self.grow = nn.ModuleList(_conv(w, w) for w in widths[1:])
        if classes is not None:
            self.label = nn.Embedding(classes + 1, embedding)  # the first row is that of no label
        self.norm_out = nn.GroupNorm(groups, channels * multipliers[0], eps=1e-6)
        self.conv_out = _conv(channels * multipliers[0], image_channels * (1 + learned_variance), scale=0)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) from images x (B, C, H, W), times t (B,) and labels int64 (B,), -1 for none.

        Raises:
            ValueError: when the images are not of the size that the network was built for.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"this network takes images of {self.image_size} pixels, got {tuple(x.shape[2:])}")
        embedding = self.time_1(sinusoidal(t, self.channels).to(self.time_1.weight.dtype))
        embedding = self.time_2(F.silu(embedding))
        if self.classes is not None:
            embedding = embedding + self.label(t.new_zeros(len(x), dtype=torch.int64) if labels is None else labels + 1)
        embedding = F.silu(embedding)
        h = self.conv_in(x)
        skips = [h]
        for i, level in enumerate(self.down):
            for block in level.children():
                h = block(h, embedding)
                skips.append(h)
            if i < len(self.shrink):
                # DDPM pads on the right and below only, as TensorFlow does
                h = self.shrink[i](F.pad(h, (0, 1, 0, 1)))
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding)
        for i in reversed(range(len(self.up))):
            for block in self.up[i].children():
                h = block(torch.cat([h, skips.pop()], 1), embedding)
            if i > 0:
                h = self.grow[i - 1](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))
