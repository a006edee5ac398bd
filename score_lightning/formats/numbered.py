"""The layouts whose modules are numbered in the order of their calls, or named by their resolution.

In each function `places` maps our modules to theirs, and `parts` the parts of a module.
"""

from collections.abc import Iterator

from torch import Tensor

from score_lightning.formats.names import Change, Source, Sources, same, swap_halves, to_conv, with_none
from score_lightning.networks import NCSNpp, UNet
from score_lightning.networks.ushape import UShape
from score_lightning.networks.ushape import sides as sides_of


def improved_diffusion(net: UNet) -> Sources:
    """openai/improved-diffusion and guided-diffusion: blocks numbered along the way down and up.

    Query, key and value are joined, per head or (`heads_first` is false) as a whole.
    """
    places: dict[str, str] = {"time_1": "time_embed.0", "time_2": "time_embed.2", "label": "label_emb"}
    places |= {"conv_in": "input_blocks.0.0", "norm_out": "out.0", "conv_out": "out.2"}
    n = 0
    for i in range(len(net.attend)):
        for j in range(net.blocks):
            n += 1
            places |= {f"down.{i}.{j}.attention": f"input_blocks.{n}.1", f"down.{i}.{j}": f"input_blocks.{n}.0"}
        if i < len(net.shrink):
            n += 1
            places[f"shrink.{i}"] = f"input_blocks.{n}.0" + ("" if net.by_blocks else ".op")
    places |= {"middle.0.attention": "middle_block.1", "middle.0": "middle_block.0", "middle.1": "middle_block.2"}
    n = -1
    for i in reversed(range(len(net.up))):
        for j in range(net.blocks + 1):
            n += 1
            places |= {f"up.{i}.{j}.attention": f"output_blocks.{n}.1", f"up.{i}.{j}": f"output_blocks.{n}.0"}
        if i > 0:
            places[f"grow.{i - 1}"] = f"output_blocks.{n}.{1 + net.attend[i]}" + ("" if net.by_blocks else ".conv")
    parts = {"norm_1": "in_layers.0", "conv_1": "in_layers.2", "time": "emb_layers.1", "skip": "skip_connection"}
    parts |= {"norm_2": "out_layers.0", "conv_2": "out_layers.3", "norm": "norm", "out": "proj_out"}
    sources = {}
    for name, entry in net.state_dict().items():
        module, part, kind = _split(name, places)
        if part in ("query", "key", "value"):
            which = ("query", "key", "value").index(part)
            heads = net.style.head_count(len(entry)) if net.heads_first else 1
            sources[name] = Source(f"{places[module]}.qkv.{kind}", _part_of_heads(which, heads, entry.ndim))
        else:
            there = f"{places[module]}.{parts[part]}.{kind}" if part else f"{places[module]}.{kind}"
            take = to_conv if module.endswith("attention") and entry.ndim == 4 else same
            sources[name] = Source(there, take)
    if "label.weight" in sources:
        sources["label.weight"] = Source("label_emb.weight", with_none)
    # there the embedding has its cosines first
    sources["time_1.weight"] = Source("time_embed.0.weight", swap_halves)
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
    """Our modules in the order in which score_sde_pytorch calls theirs."""
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


def edm(net: NCSNpp | UNet) -> Sources:
    """NVlabs/edm's SongUNet (NCSN++, DDPM++) or DhariwalUNet (ADM) inside its preconditioning.

    Modules are named by their resolution.
    """
    sides = [sides_of(net.image_size)[0] // 2**i for i in range(len(net.down))]
    places = {"time_1": "map_layer0", "time_2": "map_layer1", "label": "map_label", "augment": "map_augment"}
    places |= {"fourier": "map_noise", "conv_in": f"enc.{sides[0]}x{sides[0]}_conv"}
    if isinstance(net, UNet):
        places |= {"norm_out": "out_norm", "conv_out": "out_conv"}
    else:
        places |= {f"{part}_out": f"dec.{sides[0]}x{sides[0]}_aux_{part}" for part in ("norm", "conv")}
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
    if isinstance(net, UNet):  # there the embedding has its cosines first, and labels are columns
        sources["time_1.weight"] = Source("map_layer0.weight", swap_halves)
        if net.classes is not None:
            sources["label.weight"] = Source("map_label.weight", lambda value: with_none(value.T))
    return {name: Source(f"model.{source.name}", source.take) for name, source in sources.items()}


def _split(name: str, places: dict[str, str]) -> tuple[str, str, str]:
    """(module in `places`, part of it, weight or bias) of an entry's name."""
    module, kind = name.rsplit(".", 1)
    if module in places:
        return module, "", kind
    module, part = module.rsplit(".", 1)
    return module, part, kind


def _transposed(value: Tensor) -> Tensor:
    return to_conv(value.T)


def _part_of_heads(which: int, heads: int, ndim: int) -> Change:
    """Query (0), key (1) or value (2) of rows that hold those three for one head after another."""

    def take(value: Tensor) -> Tensor:
        rows = value.reshape(heads, 3, -1, *value.shape[1:2])[:, which].flatten(0, 1)
        return to_conv(rows) if ndim == 4 else rows

    return take


def _every_third(which: int) -> Change:
    """Query (0), key (1) or value (2) of rows that hold those three in turn."""
    return lambda value: value[which::3]
