"""What our networks' entries are called in each published layout, and how they are stored there.

An entry of a network here, such as `down.1.0.conv_1.weight`, comes from one entry of a published state dict: its
`Source` says from which, and what is to be done to its numbers. The published files are described by facts of their
layout alone: how modules are numbered and named, and which numbers are stored transposed, joined or in another order.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_lightning.networks import NCSNpp, RefineNet, UNet
from score_lightning.networks.ushape import UShape

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
    top = len(net.down) - 1
    query, key, value, out = ("query", "key", "value", "proj_attn") if former else ("to_q", "to_k", "to_v", "to_out.0")
    renames = [
        (r"^time_(\d)", r"time_embedding.linear_\1"),
        (r"^label\.", "class_embedding."),
        (r"^norm_out", "conv_norm_out"),
        (r"^shrink\.(\d)", r"down_blocks.\1.downsamplers.0.conv"),
        *((rf"^grow\.{i}\.", f"up_blocks.{top - 1 - i}.upsamplers.0.conv.") for i in range(top)),
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
            sources[name] = Source(there, take=_to_conv, give=lambda value: value.flatten(1))
        elif name == "label.weight":
            sources[name] = Source(there, take=_with_none, give=lambda value: value[1:])
        elif name == "time_1.weight" and cosines_first:
            sources[name] = Source(there, take=_swap_halves, give=_swap_halves)
        else:
            sources[name] = Source(there)
    return sources


def improved_diffusion(net: UNet) -> Sources:
    """openai/improved-diffusion: blocks numbered along the way down and up, query, key and value joined per head."""
    places: dict[str, str] = {"time_1": "time_embed.0", "time_2": "time_embed.2", "label": "label_emb"}
    places |= {"conv_in": "input_blocks.0.0", "norm_out": "out.0", "conv_out": "out.2"}
    n = 0
    for i in range(len(net.attend)):
        for j in range(net.blocks):
            n += 1
            places |= {f"down.{i}.{j}.attention": f"input_blocks.{n}.1", f"down.{i}.{j}": f"input_blocks.{n}.0"}
        if i < len(net.shrink):
            n += 1
            places[f"shrink.{i}"] = f"input_blocks.{n}.0.op"
    places |= {"middle.0.attention": "middle_block.1", "middle.0": "middle_block.0", "middle.1": "middle_block.2"}
    n = -1
    for i in reversed(range(len(net.up))):
        for j in range(net.blocks + 1):
            n += 1
            places |= {f"up.{i}.{j}.attention": f"output_blocks.{n}.1", f"up.{i}.{j}": f"output_blocks.{n}.0"}
        if i > 0:
            places[f"grow.{i - 1}"] = f"output_blocks.{n}.{1 + net.attend[i]}.conv"
    parts = {"norm_1": "in_layers.0", "conv_1": "in_layers.2", "time": "emb_layers.1", "skip": "skip_connection"}
    parts |= {"norm_2": "out_layers.0", "conv_2": "out_layers.3", "norm": "norm", "out": "proj_out"}
    sources = {}
    for name, entry in net.state_dict().items():
        module, part, kind = _split(name, places)
        if part in ("query", "key", "value"):
            which, heads = ("query", "key", "value").index(part), net.style.head_count(len(entry))
            sources[name] = Source(f"{places[module]}.qkv.{kind}", _part_of_heads(which, heads, entry.ndim))
        else:
            there = f"{places[module]}.{parts[part]}.{kind}" if part else f"{places[module]}.{kind}"
            take = _to_conv if module.endswith("attention") and entry.ndim == 4 else same
            sources[name] = Source(there, take)
    if "label.weight" in sources:
        sources["label.weight"] = Source("label_emb.weight", _with_none)
    # there the embedding has its cosines first
    sources["time_1.weight"] = Source("time_embed.0.weight", _swap_halves)
    return sources


def score_sde(net: UShape) -> Sources:
    """yang-song/score_sde_pytorch: one list of modules in the order in which they are called."""
    pyramid = "Conv2d_0" if net.pyramid_kinds[0] == "residual" and net.style.fir else "Conv_0"
    whole = {"shrink": "Conv_0", "grow": "Conv_0", "pyramid_in": pyramid}
    parts = {"norm_1": "GroupNorm_0", "conv_1": "Conv_0", "time": "Dense_0", "norm_2": "GroupNorm_1"}
    parts |= {"conv_2": "Conv_1", "skip": "Conv_2" if isinstance(net, NCSNpp) else "NIN_0", "norm": "GroupNorm_0"}
    parts |= {"query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"}
    places = {name: f"all_modules.{n}" for n, name in enumerate(_in_order(net))}
    sources = {}
    for name in net.state_dict():
        module, part, kind = _split(name, places)
        if name == "fourier.frequencies":
            sources[name] = Source(f"{places['fourier']}.W")
            continue
        there = parts[part] if part else whole.get(module.split(".")[0], "")
        in_network = there.startswith("NIN")
        kind = {"weight": "W", "bias": "b"}[kind] if in_network else kind
        take = _transposed if in_network and kind == "W" else same
        sources[name] = Source(".".join(filter(None, (places[module], there, kind))), take)
    return sources


def _in_order(net: UShape) -> Iterator[str]:
    """Our modules in the order in which score_sde_pytorch calls its own."""
    if isinstance(net, NCSNpp) and net.fourier is not None:
        yield "fourier"
    yield from ("time_1", "time_2", "conv_in")
    for i in range(len(net.attend)):
        for j in range(net.blocks):
            yield f"down.{i}.{j}"
            if net.attend[i]:
                yield f"down.{i}.{j}.attention"
        if i < len(net.shrink):
            yield f"shrink.{i}"
            if net.pyramid_kinds[0] != "none":
                yield f"pyramid_in.{i}"
    yield from ("middle.0", "middle.0.attention", "middle.1")
    for i in reversed(range(len(net.up))):
        for j in range(net.blocks + 1):
            yield f"up.{i}.{j}"
            if net.attend[i] and (j == net.blocks or not net.attend_last):
                yield f"up.{i}.{j}.attention"
        if i > 0 and net.pyramid_kinds[1] == "skip":
            yield from (f"pyramid_out.{i - 1}.0", f"pyramid_out.{i - 1}.2")
        if i > 0:
            yield f"grow.{i - 1}"
    yield from ("norm_out", "conv_out")


def edm(net: NCSNpp) -> Sources:
    """NVlabs/edm's SongUNet inside its preconditioning: modules named by their resolution."""
    sides = [net.image_size // 2**i for i in range(len(net.down))]
    places = {"time_1": "map_layer0", "time_2": "map_layer1", "label": "map_label", "augment": "map_augment"}
    places |= {"fourier": "map_noise", "conv_in": f"enc.{sides[0]}x{sides[0]}_conv"}
    places |= {"norm_out": f"dec.{sides[0]}x{sides[0]}_aux_norm", "conv_out": f"dec.{sides[0]}x{sides[0]}_aux_conv"}
    for i, side in enumerate(sides):
        s = f"{side}x{side}"
        places |= {f"down.{i}.{j}": f"enc.{s}_block{j}" for j in range(net.blocks)}
        places |= {f"up.{i}.{j}": f"dec.{s}_block{j}" for j in range(net.blocks + 1)}
        if i > 0:
            places |= {f"shrink.{i - 1}": f"enc.{s}_down", f"pyramid_in.{i - 1}": f"enc.{s}_aux_{net.pyramid_kinds[0]}"}
            places |= {f"pyramid_out.{i - 1}.0": f"dec.{s}_aux_norm", f"pyramid_out.{i - 1}.2": f"dec.{s}_aux_conv"}
        if i < len(sides) - 1:
            places[f"grow.{i}"] = f"dec.{s}_up"
    last = f"{sides[-1]}x{sides[-1]}"
    places |= {"middle.0": f"dec.{last}_in0", "middle.1": f"dec.{last}_in1"}
    parts = {"norm_1": "norm0", "conv_1": "conv0", "time": "affine", "norm_2": "norm1", "conv_2": "conv1"}
    parts |= {"skip": "skip", "norm": "norm2", "out": "proj"}
    sources = {}
    for name in net.state_dict():
        module, part, kind = _split(name.replace(".attention.", "."), places)
        if name == "fourier.frequencies":
            sources[name] = Source("map_noise.freqs")
        elif part in ("query", "key", "value"):
            sources[name] = Source(f"{places[module]}.qkv.{kind}", _every_third(("query", "key", "value").index(part)))
        else:
            sources[name] = Source(".".join(filter(None, (places[module], parts.get(part, ""), kind))))
    return {name: Source(f"model.{source.name}", source.take) for name, source in sources.items()}


def _renamed(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _split(name: str, places: dict[str, str]) -> tuple[str, str, str]:
    """(module that has a place of its own, part of it, weight or bias) of an entry's name."""
    module, kind = name.rsplit(".", 1)
    if module in places:
        return module, "", kind
    module, part = module.rsplit(".", 1)
    return module, part, kind


def _to_conv(value: Tensor) -> Tensor:
    """(outputs, inputs, 1, 1) of a linear map, or a one-dimensional convolution, over channels."""
    return value.reshape(*value.shape[:2], 1, 1)


def _transposed(value: Tensor) -> Tensor:
    return _to_conv(value.T)


def _with_none(value: Tensor) -> Tensor:
    """Embedded labels with a row in front for no label, which adds nothing."""
    return torch.cat([torch.zeros_like(value[:1]), value])


def _swap_halves(value: Tensor) -> Tensor:
    """(N, 2K) columns, the latter half first."""
    return torch.cat(value.chunk(2, 1)[::-1], 1)


def _part_of_heads(which: int, heads: int, ndim: int) -> Change:
    """Query (0), key (1) or value (2) of rows that hold those three for one head after another."""

    def take(value: Tensor) -> Tensor:
        rows = value.reshape(heads, 3, -1, *value.shape[1:2])[:, which].flatten(0, 1)
        return _to_conv(rows) if ndim == 4 else rows

    return take


def _every_third(which: int) -> Change:
    """Query (0), key (1) or value (2) of rows that hold those three in turn."""
    return lambda value: value[which::3]
