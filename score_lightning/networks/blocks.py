"""Blocks of U-Nets: residual blocks with group norm, self-attention, resampling."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.layers import Block, Dropout, GroupNorm

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)
COPIED = 2**25  # bytes of weights that are joined, at most


def init(layer: Layer, scale: float = 1.0) -> Layer:
    """Uniform weights of variance scale / mean(fan in, fan out), no bias: as in DDPM; scale 0 gives zeros."""
    if scale == 0:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution; on the CPU one product of matrices, whose gradients have less around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, outputs, H, W) from (B, inputs, H, W)."""
        if input.device.type != "cpu" or input.stride(1) != 1:  # not a matrix as it lies in memory
            return super().forward(input)
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def conv(inputs: int, outputs: int, size: int = 3, scale: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the resolution, with DDPM's initial weights."""
    made = Pointwise(inputs, outputs) if size == 1 else nn.Conv2d(inputs, outputs, size, padding=size // 2)
    return init(made, scale)


def halve(x: Tensor, fir: bool) -> Tensor:
    """(B, C, H/2, W/2) by averages of 2 x 2 pixels, or by the filter (1, 3, 3, 1) (Karras et al. 2020a, App. B)."""
    return _filter(x, stride=2, padding=1) if fir else F.avg_pool2d(x, 2)


def double(x: Tensor, fir: bool) -> Tensor:
    """(B, C, 2H, 2W) by repeating pixels, or by the filter (1, 3, 3, 1)."""
    if not fir:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    # that filter is linear interpolation, of an image with zeros around it
    return F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear")[:, :, 2:-2, 2:-2]


def _filter(x: Tensor, stride: int, padding: int) -> Tensor:
    """x filtered by (1, 3, 3, 1) / 8 in both directions, each channel by itself."""
    taps = torch.arange(4, device=x.device).sub(1.5).abs().mul(-2).add(4).to(x) / 8  # 1, 3, 3, 1, made on the device
    weight = taps.outer(taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])


class ShrinkConv(nn.Conv2d):
    """A 3 x 3 convolution that halves the resolution.

    Args:
        fir: whether the filter (1, 3, 3, 1) comes first.
        symmetric: without it, whether to pad on all sides, or on the right and below only, as TensorFlow does.
    """

    def __init__(self, inputs: int, outputs: int, fir: bool = False, symmetric: bool = False) -> None:
        super().__init__(inputs, outputs, 3, stride=2)
        self.fir, self.symmetric = fir, symmetric
        init(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, H/2, W/2) from x (B, inputs, H, W)."""
        if self.fir:
            return super().forward(_filter(x, stride=1, padding=2))
        return super().forward(F.pad(x, (1, 1, 1, 1) if self.symmetric else (0, 1, 0, 1)))


class GrowConv(nn.Conv2d):
    """Pixels repeated to twice the resolution, and a 3 x 3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        init(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, 2H, 2W) from x (B, inputs, H, W)."""
        return super().forward(double(x, fir=False))


@dataclass(frozen=True)
class Style:
    """What all residual blocks of a network have in common.

    Args:
        embedding: width of the conditioning's embedding.
        dropout: probability before the second convolution.
        groups: groups of the group norms.
        group_size: channels in a group, at least, of which there may then be fewer; None for no such limit.
        eps: of the group norms.
        adaptive: whether the embedding scales and shifts the second norm's output (Nichol & Dhariwal 2021, Sec. 3.4);
            else it is added before that norm.
        rescale: whether sums with a skip are divided by the square root of 2 (Song et al. 2021a, App. H.1).
        fir: whether resolution changes by the filter (1, 3, 3, 1) rather than by repeating and averaging.
        project: whether blocks that change the resolution have a 1 x 1 convolution in the skip; not in ADM.
        heads, head_channels: of the attention, their number or the channels that it follows from.
        attention_scale, skip_scale: variance of initial weights before the attention and in skips, relative to others.

    Raises:
        ValueError: when there are fewer channels than a head or a group takes, or they cannot be divided evenly.
    """

    embedding: int
    dropout: float = 0.0
    groups: int = 32
    group_size: int | None = None
    eps: float = 1e-6
    adaptive: bool = False
    rescale: bool = False
    fir: bool = False
    project: bool = True
    heads: int = 1
    head_channels: int | None = None
    attention_scale: float = 1.0
    skip_scale: float = 1.0

    def norm(self, channels: int) -> GroupNorm:
        """The group norm of this number of channels."""
        groups = self.groups if self.group_size is None else min(self.groups, channels // self.group_size)
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide channels, got {groups} and {channels}")
        return GroupNorm(groups, channels, eps=self.eps)

    def head_count(self, channels: int) -> int:
        """The number of heads that attend over this number of channels."""
        heads = self.heads if self.head_channels is None else channels // max(self.head_channels, 1)
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide channels, got {heads} and {channels}")
        return heads

    def join(self, skip: Tensor, h: Tensor) -> Tensor:
        """The sum of two branches."""
        return (skip + h) * math.sqrt(0.5) if self.rescale else skip + h


class Attention(nn.Module):
    """x + self-attention over all pixels."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.heads, self.join = style.head_count(channels), style.join
        self.norm = style.norm(channels)
        self.query, self.key, self.value = (conv(channels, channels, 1, style.attention_scale) for _ in range(3))
        self.out = conv(channels, channels, size=1, scale=0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W)."""
        # pixels by channels: a view where memory has channels last, and one product for the three
        h = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        maps = (self.query, self.key, self.value)
        weight = torch.cat([f.weight.flatten(1) for f in maps])
        bias = torch.cat([f.bias for f in maps if f.bias is not None])
        # (B x heads, pixels, channels) each
        q, k, v = F.linear(h, weight, bias).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)
        # written out: PyTorch's fused CPU kernel has no second derivative, which score matching needs
        zero = q.new_zeros(1, 1, 1)
        weights = torch.baddbmm(zero, q, k.transpose(1, 2), beta=0, alpha=1 / math.sqrt(q.shape[2])).softmax(-1)
        h = (weights @ v).unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)
        h = F.linear(h, self.out.weight.flatten(1), self.out.bias)
        return self.join(x, h.transpose(1, 2).unflatten(2, x.shape[2:]))


Resample = Literal["halve", "double"]
RESAMPLE: dict[Resample, Callable[[Tensor, bool], Tensor]] = {"halve": halve, "double": double}


class ResidualBlock(Block):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))), with a 1x1 convolution on x where the width changes.

    Both branches may `resample` first (Brock et al. 2019, Fig. 15), and self-attention may follow.
    """

    def __init__(
        self, inputs: int, outputs: int, style: Style, attend: bool = False, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.style, self.resample = style, resample
        self.norm_1 = style.norm(inputs)
        self.conv_1 = conv(inputs, outputs)
        self.time = init(nn.Linear(style.embedding, outputs * (1 + style.adaptive)))
        self.norm_2 = style.norm(outputs)
        self.dropout = Dropout(style.dropout)
        self.conv_2 = conv(outputs, outputs, scale=0)
        changes = inputs != outputs or (resample is not None and style.project)
        self.skip = conv(inputs, outputs, 1, style.skip_scale) if changes else nn.Identity()
        self.attention = Attention(outputs, style) if attend else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, outputs, H, W) from x (B, inputs, H, W) and what `project` made for it of the embedding."""
        h = self.norm_1.activated(x)
        if self.resample is not None:
            h, x = (RESAMPLE[self.resample](branch, self.style.fir) for branch in (h, x))
        h, time = self.conv_1(h), time[:, :, None, None]
        if self.style.adaptive:
            scale, shift = time.chunk(2, 1)
            h = F.silu(torch.addcmul(shift, self.norm_2(h), 1 + scale))
        else:
            h = self.norm_2.activated(h + time)
        return self.attention(self.style.join(self.skip(x), self.conv_2(self.dropout(h))))


def project(embedding: Tensor, blocks: Sequence[ResidualBlock]) -> dict[nn.Module, Tensor]:
    """What each block adds of the activated embedding (B, style.embedding): (B, its `time.out_features`).

    One product for all: a small one costs more around it than in it, but a copy of large weights costs more than both.
    The layers `time` are not called.
    """
    layers = [block.time for block in blocks]
    if sum(layer.weight.nbytes for layer in layers) > COPIED:
        return {b: F.linear(embedding, layer.weight, layer.bias) for b, layer in zip(blocks, layers, strict=True)}
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    parts = F.linear(embedding, weight, bias).split([layer.out_features for layer in layers], dim=1)
    return dict(zip(blocks, parts, strict=True))
