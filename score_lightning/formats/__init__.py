"""The layouts of published weights: which networks they hold, and how their entries become ours."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from score_lightning.errors import UserError
from score_lightning.formats import names, numbered
from score_lightning.formats.files import Published, read
from score_lightning.formats.names import Source, Sources
from score_lightning.networks import NCSNpp, RefineNet, UNet

__all__ = [
    "FORMATS", "Format", "Published", "Source", "Sources", "check_origin", "closest", "detect", "read", "translate",
]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A layout.

    Args:
        networks: the classes of our networks that it may hold.
        sources: from such a network to where its entries come from.
        mark: a regular expression that some name in every file of the layout matches, and in no other's.
        ignored: a regular expression of names of entries to ignore.
    """

    networks: tuple[type[nn.Module], ...]
    sources: Callable[..., Sources]
    mark: str
    ignored: str = "^sigmas$"


FORMATS = {
    "ncsn": Format((RefineNet,), names.refinenet, r"^normalizer\.embed\."),
    "ncsnv2": Format((RefineNet,), names.refinenet, r"^normalizer\.alpha"),
    "ddim": Format((UNet,), names.ddim, r"^temb\.dense\."),
    "score_sde": Format((NCSNpp, UNet), numbered.score_sde, r"^all_modules\."),
    "improved-diffusion": Format((UNet,), numbered.improved_diffusion, r"^input_blocks\.\d+\.0\.op\."),
    "guided-diffusion": Format((UNet,), numbered.improved_diffusion, r"^output_blocks\.\d+\.[12]\.in_layers\."),
    "diffusers": Format((UNet,), names.diffusers, r"^down_blocks\."),
    "edm": Format((NCSNpp, UNet), numbered.edm, r"^(model\.)?map_layer0\.", r"\.resample_filter$"),
}
"""The layouts by name."""

FOREIGN = {
    r"^average\.model\.net\.": (
        "holds weights that score_lightning trained: sample, eval, export and train init= take its checkpoints as they "
        "are"
    ),
    r"(^|\.)downs\.\d+\.\d+\.block1\.": (
        "was written by denoising-diffusion-pytorch, whose network, with linear attention and standardized weights, no "
        f"format here holds ({', '.join(FORMATS)}): sample from it there, or train one of the recipes"
    ),
    r"^out\.\d+\.(qkv|c)_proj\.": (
        "holds a classifier of guided-diffusion for classifier guidance, which is not done here: labels.guidance=… "
        "guides by labels, guide=CKPT by a worse model"
    ),
    r"^(first_stage_model|cond_stage_model)\.": (
        "holds a latent diffusion model, whose network makes latents for an autoencoder; the formats here "
        f"({', '.join(FORMATS)}) hold networks that make images"
    ),
}
"""What is said of files that no format reads, by a regular expression of names of entries."""


def origin(state: Mapping[str, Tensor]) -> str:
    """What a state dict is that no format reads, as the end of a sentence; empty where that is not known."""
    return next((what for mark, what in FOREIGN.items() if any(re.search(mark, key) for key in state)), "")


def check_origin(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuses a file of another project, and one whose network lies inside a larger module.

    Raises:
        UserError: saying what it is, and what can be done.
    """
    if what := origin(state):
        raise UserError(f"{path} {what}")
    if detect(state) is not None:
        return
    parts = [key.split(".") for key in state]
    for prefix in dict.fromkeys(".".join(part[:n]) + "." for part in parts for n in (1, 2) if len(part) > n):
        name = detect({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
        if name is not None:
            raise UserError(
                f"{path}: its entries {prefix}… look like format={name} in a larger module: save them alone, without "
                f"that prefix: {{k.removeprefix({prefix!r}): v for k, v in state.items() if k.startswith({prefix!r})}}"
            )


def detect(state: Mapping[str, Tensor]) -> str | None:
    """The layout that a state dict has; None where it has none of those known."""
    marked = [name for name, layout in FORMATS.items() if any(re.search(layout.mark, key) for key in state)]
    return marked[0] if len(marked) == 1 else None


def translate(net: nn.Module, published: Published, sources: Sources, name: str) -> dict[str, dict[str, Tensor]]:
    """The entries of a network from those of a published file.

    Args:
        net: the network.
        published: what the file holds.
        sources: of the network's entries, in the file's layout.
        name: of the layout.

    Returns:
        `raw` and `ema`, each our name -> float32 numbers; alike where the file has no average.

    Raises:
        UserError: naming the entries that are missing, that nothing here takes, or that have another shape.
    """
    state = _with_prefix(published.weights, sources)
    raw = _take(net, state, sources, name)
    if published.average is None:
        return {"raw": raw, "ema": raw}
    averaged = _with_prefix(_by_name(net, published, sources), sources)
    return {"raw": raw, "ema": _take(net, {**state, **averaged}, sources, name)}


def _with_prefix(state: Mapping[str, Tensor], sources: Sources) -> dict[str, Tensor]:
    """With EDM's prefix of the network inside its preconditioning, which a bare network lacks."""
    wanted = all(source.name.startswith("model.") for source in sources.values())
    lacking = wanted and not any(key.startswith("model.") for key in state)
    return {f"model.{key}" if lacking else key: value for key, value in state.items()}


def _by_name(net: nn.Module, published: Published, sources: Sources) -> Mapping[str, Tensor]:
    """The average by name; a list of it is in the order of the weights that are trained."""
    trained = {sources[name].name for name, parameter in net.named_parameters() if parameter.requires_grad}
    if isinstance(published.average, dict):
        average = _with_prefix(published.average, sources)
        if not trained <= average.keys():
            raise UserError(_some("missing in the file's average", sorted(trained - average.keys())))
        return average
    assert published.average is not None
    order = [key for key in _with_prefix(published.weights, sources) if key in trained]
    if len(order) != len(published.average):
        raise UserError(
            f"the file's average has {len(published.average)} entries, its network {len(order)} that are trained"
        )
    return dict(zip(order, published.average, strict=True))


def _take(net: nn.Module, state: Mapping[str, Tensor], sources: Sources, name: str) -> dict[str, Tensor]:
    wanted = {source.name for source in sources.values()}
    unexpected = [key for key in state if key not in wanted and not re.search(FORMATS[name].ignored, key)]
    missing = [key for key in dict.fromkeys(source.name for source in sources.values()) if key not in state]
    taken: dict[str, Tensor] = {}
    shapes = []
    for ours, value in net.state_dict().items():
        source = sources[ours]
        if source.name not in state:
            continue
        theirs = state[source.name]
        try:
            numbers = source.take(theirs)
        except (RuntimeError, IndexError) as error:
            shapes.append(f"{source.name}, whose shape {tuple(theirs.shape)} does not fit ({error})")
            continue
        if not theirs.is_floating_point():
            shapes.append(f"{source.name}, of {theirs.dtype}")
        elif numbers.shape != value.shape:
            shapes.append(f"{source.name}, of shape {tuple(theirs.shape)}, for one of {tuple(value.shape)}")
        taken[ours] = numbers.to(torch.float32).contiguous()
    problems = [
        _some("missing", missing),
        _some("unexpected", unexpected),
        _some("of another shape", shapes),
    ]
    if any(problems):
        hint = _hint(state, name)
        raise UserError(f"not the recipe's network in format={name}: {'; '.join(filter(None, problems))}.{hint}")
    return taken


def _hint(state: Mapping[str, Tensor], name: str) -> str:
    """A sentence on the layout that a file has, or is closest to, if that is not `name`."""
    state = {key.removeprefix("model."): value for key, value in state.items()}  # of `_with_prefix`
    detected = detect(state)
    if detected is not None:
        return "" if detected == name else f" The file looks like format={detected}."
    nearest = closest(state)
    return f" The closest known format is {nearest}." if nearest else ""


def _some(what: str, entries: Sequence[str]) -> str:
    """'3 entries missing: a, b, c', the first five of them."""
    if not entries:
        return ""
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'} {what}: {', '.join(entries[:5])}{more}"


def closest(state: Mapping[str, Tensor]) -> str | None:
    """The layout whose names share the most parts with those in a state dict."""
    parts = {part for key in state for part in key.split(".") if not part.isdigit()} - {"weight", "bias"}
    examples: dict[str, nn.Module] = {"ncsn": RefineNet(channels=4), "ncsnv2": RefineNet(channels=4, conditional=False)}
    with torch.device("meta"):
        small = UNet(image_size=8, channels=32, multipliers=(1, 1), blocks=1, attention=(4,))
        examples["guided-diffusion"] = UNet(8, 3, 32, (1, 1), 1, (4,), by_blocks=True)
        large = NCSNpp(image_size=8, channels=32, multipliers=(1, 1), blocks=1, attention=(4,))
    shared = {}
    for name, layout in FORMATS.items():
        example = examples.get(name, large if NCSNpp in layout.networks else small)
        known = {part for source in layout.sources(example).values() for part in source.name.split(".")}
        shared[name] = len(parts & known)
    best = max(shared, key=lambda name: shared[name])
    return best if shared[best] else None
