"""Parts of a configuration to objects: one table per kind of part, from its name to its constructor.

A part's keywords are checked against the constructor's signature, so that a typo is answered with the names it has. A
user's own parts come as objects from Python, never from a name that a file holds.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from score_lightning import conditional, networks, objectives, samplers, schedules
from score_lightning.config import Parts, Resolved, suggest
from score_lightning.config.schema import Config
from score_lightning.data import archives, huggingface, pairs, sources
from score_lightning.data.images import ImageSet
from score_lightning.errors import UserError
from score_lightning.evaluation.features import auto, extractors, pixels
from score_lightning.evaluation.features.base import Features

TABLES: Parts = {
    "net": {
        "unet": networks.UNet,
        "unet_light": networks.LightUNet,
        "ncsnpp": networks.NCSNpp,
        "refinenet": networks.RefineNet,
        "mlp": networks.MLP,
    },
    "schedule": {
        "geometric": schedules.geometric,
        "linear_beta": schedules.linear_beta,
        "cosine": schedules.cosine,
        "ve": schedules.VE,
        "vp": schedules.VP,
        "sub_vp": schedules.SubVP,
        "edm": schedules.EDM,
        "rectified_flow": schedules.RectifiedFlow,
    },
    "objective": objectives.PRESETS,
    "sampler": samplers.PRESETS,
    "condition": {
        "upsample": conditional.LowResolution,
        "colorize": conditional.Grayscale,
        "inpaint": conditional.Masked,
        "pairs": conditional.Paired,
    },
    "data": {
        "digits": sources.digits,
        "mnist": sources.torchvision_source("MNIST"),
        "fashion_mnist": sources.torchvision_source("FashionMNIST"),
        "cifar10": sources.torchvision_source("CIFAR10"),
        "celeba": sources.celeba,
        "lsun": archives.lsun,
        "ffhq": archives.ffhq,
        "imagenet": archives.imagenet,
        "imagenet64": archives.imagenet64,
        "folder": sources.folder,
        "npz": sources.npz,
        "huggingface": huggingface.huggingface,
        "python": sources.python,
        "pairs": pairs.pairs,
        "plane": sources.plane,
    },
    "features": {
        "auto": auto.auto,
        "inception": extractors.inception,
        "classifier": extractors.classifier,
        "dinov2": extractors.dinov2,
        "clip": extractors.clip,
        "vgg16": extractors.vgg16,
        "pixels": pixels.pixels,
        "random": extractors.random,
    },
}
MADE: dict[str, tuple[type, str]] = {
    "condition": (conditional.Condition, "a Condition"),
    "net": (nn.Module, "a torch.nn.Module"),
    "schedule": (schedules.Schedule, "a Schedule"),
    "objective": (objectives.Objective, "an object with check, draw_t, stratified and a call (objectives.Objective)"),
    "sampler": (samplers.Sampler, "a Sampler"),
    "data": (ImageSet, "a tuple of training and validation images, two ImageSet"),
    "features": (Features, "a Features"),
}
"""What the parts of each kind are, and how messages name it; data are two."""


def with_own(parts: Parts) -> Parts:
    """The tables with a user's own parts added.

    Raises:
        UserError: for a kind that there is not, or the name of one of the project's parts.
    """
    for kind, own in parts.items():
        if kind not in TABLES:
            raise UserError(f"parts: unknown kind {kind!r}{suggest(kind, TABLES)}; there are {', '.join(TABLES)}")
        taken = sorted(own.keys() & TABLES[kind].keys())
        if taken:
            raise UserError(f"parts: score_lightning has a {kind} named {taken[0]} itself; give yours another name")
    return {kind: {**table, **parts.get(kind, {})} for kind, table in TABLES.items()}


def part_of(config: Config, section: str) -> dict[str, Any]:
    """The values of a section; `preview` without a name changes those of `sampler`."""
    part: dict[str, Any] = getattr(config, section)
    return part if section != "preview" or "name" in part else {**config.sampler, **part}


def build_part(resolved: Resolved, section: str, given: Mapping[str, Any], tables: Parts = TABLES) -> Any:
    """The object of a section, with those of the given values that its constructor takes.

    Raises:
        UserError: for an unknown name or keyword, a missing keyword, values that the constructor refuses, or an object
            of another kind.
    """
    constructor = find_constructor(resolved, section, tables)
    part, kind = dict(part_of(resolved.config, section)), _kind(section)
    name, hints = part.pop("name"), keyword_types(constructor)
    accepted = [key for key in hints if key not in given]
    for key, value in part.items():
        place = resolved.origins.get(f"{section}.{key}", "the configuration")
        if key not in accepted:
            raise UserError(
                f"{section} {name} has no {key!r} ({place}){suggest(key, accepted)}; it has {', '.join(accepted)}"
            )
        if value is not None and not fits(value, hints[key][0]):
            raise UserError(f"{section}.{key} must be {hint_name(hints[key][0])}, got {value!r} ({place})")
    values = {**{key: value for key, value in given.items() if key in hints}, **part}
    missing = [key for key, (_, required) in hints.items() if required and values.get(key) is None]
    if missing:
        raise UserError(f"{section} {name} needs {', '.join(f'{section}.{key}=…' for key in missing)}")
    try:
        made = constructor(**values)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, LookupError, AttributeError, MemoryError) as error:
        raise UserError(f"{section} {name}: {error}{own_files(resolved, section)}") from error
    parts = made if kind == "data" and isinstance(made, tuple) else (made,)
    if len(parts) != 1 + (kind == "data") or not all(isinstance(part, MADE[kind][0]) for part in parts):
        raise UserError(f"{section} {name} must give {MADE[kind][1]}; it gave {made!r:.100}")
    return made


def find_constructor(resolved: Resolved, section: str, tables: Parts = TABLES) -> Callable[..., Any]:
    """What the part of a section is made by.

    Raises:
        UserError: for an unknown name.
    """
    kind, name = _kind(section), part_of(resolved.config, section).get("name")
    table = tables[kind]
    if not isinstance(name, str) or name not in table:
        place = resolved.origins.get(f"{section}.name", "the configuration")
        own = f". One of your own is given in Python: parts={{{kind!r}: {{{name!r}: …}}}}" if name else ""
        raise UserError(
            f"unknown {section} {name!r} ({place}){suggest(str(name), table)}; there are {', '.join(table)}{own}"
        )
    return table[name]


def own_files(resolved: Resolved, *sections: str) -> str:
    """In parentheses, the files of a user's own that values of sections are from; nothing without any."""
    files = dict.fromkeys(
        origin
        for key, origin in resolved.origins.items()
        if key.partition(".")[0] in sections and origin.startswith(("./", "../", "/"))
    )
    return f" ({', '.join(files)})" if files else ""


def _kind(section: str) -> str:
    return "sampler" if section == "preview" else section


def keyword_types(constructor: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """keyword -> (its type, whether it must be given) of a class or function; *args and **kwargs name none."""
    try:
        signature = inspect.signature(constructor, eval_str=True)
    except NameError:  # types that are imported for type checkers only: any value fits
        signature = inspect.signature(constructor)
    named = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: (Any if p.annotation is p.empty else p.annotation, p.default is p.empty) for p in named}


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type; whole numbers are also floats, types that are not plain always fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, type(None)) else True


def hint_name(hint: Any) -> str:
    """A type as text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(hint_name(argument) for argument in arguments)
    if origin is Sequence:
        return f"a list of {hint_name(arguments[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, str(hint))
