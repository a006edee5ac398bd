"""What our networks' entries are called in each published layout, and how they are stored there.

Here are the layouts whose names follow ours by rules; those that number their modules stand in `numbered`.

An entry of a network here, such as `down.1.0.conv_1.weight`, comes from one entry of a published state dict: its
`Source` says from which, and what is to be done to its numbers. The published files are described by facts of their
layout alone: how modules are numbered and named, and which numbers are stored transposed, joined or in another order.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_lightning.networks import RefineNet, UNet

Change = Callable[[Tensor], Tensor]


def same(value: Tensor) -> Tensor:
    """The numbers as they are."""
    return value


@dataclass(frozen=True)
class Source:
    """Where an entry comes from.

    Args:
        name: in the published state dict.
        take: from the published numbers to ours.
        give: from ours to the published ones; of layouts that are written, too.
    """

    name: str
    take: Change = same
    give: Change = same


Sources = dict[str, Source]
"""Our name -> where it comes from."""

Renames = Sequence[tuple[str, str]]


def refinenet(net: RefineNet) -> Sources:
    """ermongroup/ncsn and ermongroup/ncsnv2."""
    # the stage that only the deepest network has is named after the one before it
    stages = ["1", "2", "3", "31", "4", "5"] if len(net.stages) == 6 else [str(i + 1) for i in range(len(net.stages))]
    shrunk = [i for i, dilation in enumerate(net.dilations) if i > 0 and dilation == 1]
    units = "|".join(("adapt_convs\\.\\d", "output_convs"))
    renames = [
        ("^conv_in", "begin_conv"),
        ("^conv_out", "end_conv"),
        ("^norm_out", "normalizer"),
        *((rf"^stages\.{i}\.0\.(conv_2|skip)", rf"stages.{i}.0.\1.conv") for i in shrunk),
        *((rf"^stages\.{i}\.", f"res{name}.") for i, name in enumerate(stages)),
        *((rf"^refine\.{i}\.", f"refine{name}.") for i, name in enumerate(_refine_names(stages))),
        (r"\.norm_(\d)\.", r".normalize\1."),
        (r"\.conv_(\d)\.", r".conv\1."),
        (r"\.skip\.", ".shortcut."),
        (r"\.fuse_(norm|conv)s", r".msf.\1s"),
        (r"\.pool\.", ".crp."),
        (r"\.adapt\.", ".adapt_convs."),
        (r"\.out\.", ".output_convs."),
        *((rf"({units})\.(norm|conv)s\.{i}\.", rf"\1.{i // 2 + 1}_{i % 2 + 1}_\2.") for i in range(6)),
        (r"\.embedding\.", ".embed."),
    ]
    return {name: Source(_renamed(name, renames)) for name in net.state_dict()}


def _refine_names(stages: Sequence[str]) -> list[str]:
    """The names of the refine blocks, the deepest first: that of the extra stage stands where it is merged."""
    names = [name for name in stages if name != "31"]
    return [*names[:2], "31", *names[2:]] if "31" in stages else names


BLOCK = [(r"\.norm_(\d)\.", r".norm\1."), (r"\.conv_(\d)\.", r".conv\1.")]


def ddim(net: UNet) -> Sources:
    """ermongroup/ddim, and the PyTorch port of DDPM's published weights."""
    renames = [
        (r"^time_1", "temb.dense.0"),
        (r"^time_2", "temb.dense.1"),
        (r"^shrink\.(\d)", r"down.\1.downsample.conv"),
        *((rf"^grow\.{i}\.", f"up.{i + 1}.upsample.conv.") for i in range(len(net.grow))),
        (r"^middle\.0\.attention", "mid.attn_1"),
        (r"^middle\.0", "mid.block_1"),
        (r"^middle\.1", "mid.block_2"),
        (r"^(down|up)\.(\d)\.(\d+)\.attention", r"\1.\2.attn.\3"),
        (r"^(down|up)\.(\d)\.(\d+)\.", r"\1.\2.block.\3."),
        (r"\.time\.", ".temb_proj."),
        (r"\.skip\.", ".nin_shortcut."),
        (r"(attn.*)\.(q)uery\.", r"\1.\2."),
        (r"(attn.*)\.(k)ey\.", r"\1.\2."),
        (r"(attn.*)\.(v)alue\.", r"\1.\2."),
        (r"(attn.*)\.out\.", r"\1.proj_out."),
        *BLOCK,
    ]
    return {name: Source(_renamed(name, renames)) for name in net.state_dict()}


def diffusers(net: UNet, cosines_first: bool = False, former: bool = False) -> Sources:
    """diffusers' UNet2DModel; the `former` names of the attention are those of files from before version 0.18."""
    top, conv = len(net.down) - 1, "" if net.by_blocks else ".conv"
    query, key, value, out = ("query", "key", "value", "proj_attn") if former else ("to_q", "to_k", "to_v", "to_out.0")
    renames = [
        (r"^time_(\d)", r"time_embedding.linear_\1"),
        (r"^label\.", "class_embedding."),
        (r"^norm_out", "conv_norm_out"),
        (r"^shrink\.(\d)", rf"down_blocks.\1.downsamplers.0{conv}"),
        *((rf"^grow\.{i}\.", f"up_blocks.{top - 1 - i}.upsamplers.0{conv}.") for i in range(top)),
        (r"^middle\.0\.attention", "mid_block.attentions.0"),
        (r"^middle\.(\d)", r"mid_block.resnets.\1"),
        (r"^down\.(\d)\.(\d+)\.attention", r"down_blocks.\1.attentions.\2"),
        (r"^down\.(\d)\.(\d+)\.", r"down_blocks.\1.resnets.\2."),
        *((rf"^up\.{i}\.(\d+)\.attention", rf"up_blocks.{top - i}.attentions.\1") for i in range(top + 1)),
        *((rf"^up\.{i}\.(\d+)\.", rf"up_blocks.{top - i}.resnets.\1.") for i in range(top + 1)),
        (r"\.time\.", ".time_emb_proj."),
        (r"\.skip\.", ".conv_shortcut."),
        (r"(attentions.*)\.norm\.", r"\1.group_norm."),
        (r"(attentions.*)\.query\.", rf"\1.{query}."),
        (r"(attentions.*)\.key\.", rf"\1.{key}."),
        (r"(attentions.*)\.value\.", rf"\1.{value}."),
        (r"(attentions.*)\.out\.", rf"\1.{out}."),
        *BLOCK,
    ]
    sources = {}
    for name, entry in net.state_dict().items():
        there = _renamed(name, renames)
        if "attentions" in there and entry.ndim == 4:
            sources[name] = Source(there, take=to_conv, give=lambda value: value.flatten(1))
        elif name == "label.weight":
            sources[name] = Source(there, take=with_none, give=lambda value: value[1:])
        elif name == "time_1.weight" and cosines_first:
            sources[name] = Source(there, take=swap_halves, give=swap_halves)
        else:
            sources[name] = Source(there)
    return sources


def _renamed(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def to_conv(value: Tensor) -> Tensor:
    """(outputs, inputs, 1, 1) of a linear map, or a one-dimensional convolution, over channels."""
    return value.reshape(*value.shape[:2], 1, 1)


def with_none(value: Tensor) -> Tensor:
    """Embedded labels with a row in front for no label, which adds nothing."""
    return torch.cat([torch.zeros_like(value[:1]), value])


def swap_halves(value: Tensor) -> Tensor:
    """(N, 2K) columns, the latter half first."""
    return torch.cat(value.chunk(2, 1)[::-1], 1)
