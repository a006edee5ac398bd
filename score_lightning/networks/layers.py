"""Layers that compute what torch's do, in less memory or time: group norm with SiLU, dropout, checkpointed blocks."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LARGE = 2**24  # bytes of activations; to compute smaller ones again costs 3 % of a step and saves little


class Block(nn.Module):
    """A part of a network whose activations the backward pass can compute again instead of keeping them.

    Attributes:
        checkpointing: whether it does, in training (Chen et al. 2016). Values and gradients stay the same to the bit.
    """

    checkpointing = False

    def __call__(self, *inputs: Any) -> Any:
        """The output of `forward`."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


class GroupNorm(nn.GroupNorm):
    """torch's, as `group_norm` computes it."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) normalized in each group of channels, in the input's precision."""
        return group_norm(input, self.weight, self.bias, self.num_groups, self.eps)

    def activated(self, input: Tensor) -> Tensor:
        """silu of the normalized input; what lies between is not kept for the backward pass where that is large."""
        if input.nbytes < LARGE or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return F.silu(self(input))
        activated: Tensor = NormSiLU.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return activated


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """torch's, in float32 on the CPU where its kernel for bfloat16 takes longer than that and two conversions."""
    few = x.shape[1] <= 8 * groups  # channels in a group: that kernel takes them 16 at a time
    if few and x.dtype == torch.bfloat16 and x.device.type == "cpu" and weight.dtype == torch.float32:
        return F.group_norm(x.float(), groups, weight, bias, eps).to(torch.bfloat16)
    return F.group_norm(x, groups, weight, bias, eps)


class NormSiLU(torch.autograd.Function):
    """silu(group norm(x)), which keeps x alone: the backward pass normalizes it again.

    Gradients are those of torch's functions to the bit, and second derivatives can be taken.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """(B, C, ...) from x of that shape, weight and bias (C,)."""
        ctx.save_for_backward(x, weight, bias)
        device, ctx.settings, ctx.precision = x.device.type, (groups, eps), nullcontext
        if torch.amp.is_autocast_available(device):
            half, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
            ctx.precision = partial(torch.autocast, device, half, enabled)
        return F.silu(group_norm(x, weight, bias, groups, eps), inplace=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The gradients of x, weight and bias."""
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[:3]
        again = torch.is_grad_enabled()  # for second derivatives
        if not again:
            inputs = [t.detach().requires_grad_(need) for t, need in zip(inputs, wanted, strict=True)]
        with torch.enable_grad(), ctx.precision():
            y = F.silu(group_norm(*inputs, *ctx.settings))
        asked = [t for t, need in zip(inputs, wanted, strict=True) if need]
        computed = iter(torch.autograd.grad(y, asked, gradients[0], create_graph=again))
        return *(next(computed) if need else None for need in wanted), None, None


class Dropout(nn.Dropout):
    """Dropout, whose masks on the CPU take 16 random bits an element, drawn four at once.

    torch's own take five times as long there. The probability, and the scale with it, is a multiple of 2^-16.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input, of which each element is 0 with the probability, and scaled otherwise."""
        dropped = round(self.p * 2**16)
        if not self.training or dropped == 0 or input.device.type != "cpu" or dropped == 2**16:
            return super().forward(input)
        bits = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = (bits >= dropped - 2**15).as_strided(input.shape, torch.empty_like(input).stride())
        return torch.where(kept, input * (2**16 / (2**16 - dropped)), 0.0)
