"""Parts of a configuration to objects: one table per kind of part, from its name to its constructor.

A part's keywords are checked against the constructor's signature, so that a typo is answered with the names it has.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from score_lightning import conditional, networks, objectives, samplers, schedules
from score_lightning.config import Resolved, suggest
from score_lightning.config.schema import Config
from score_lightning.data import archives, pairs, sources
from score_lightning.errors import UserError
from score_lightning.evaluation.features import extractors

TABLES: dict[str, dict[str, Callable[..., Any]]] = {
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
        "imagenet64": archives.imagenet64,
        "folder": sources.folder,
        "npz": sources.npz,
        "pairs": pairs.pairs,
        "plane": sources.plane,
    },
    "features": {
        "auto": extractors.auto,
        "inception": extractors.inception,
        "classifier": extractors.classifier,
        "dinov2": extractors.dinov2,
        "clip": extractors.clip,
        "vgg16": extractors.vgg16,
        "random": extractors.random,
    },
}


def part_of(config: Config, section: str) -> dict[str, Any]:
    """The values of a section; `preview` without a name changes those of `sampler`."""
    part: dict[str, Any] = getattr(config, section)
    return part if section != "preview" or "name" in part else {**config.sampler, **part}


def build_part(resolved: Resolved, section: str, given: Mapping[str, Any]) -> Any:
    """The object of a section, with those of the given values that its constructor takes.

    Raises:
        UserError: for an unknown name or keyword, a missing keyword, or values that the constructor refuses.
    """
    part = dict(part_of(resolved.config, section))
    table = TABLES["sampler" if section == "preview" else section]
    name = part.pop("name", None)
    if not isinstance(name, str) or name not in table:
        place = resolved.origins.get(f"{section}.name", "the configuration")
        raise UserError(
            f"unknown {section} {name!r} ({place}){suggest(str(name), table)}; there are {', '.join(table)}"
        )
    hints = keyword_types(table[name])
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
        return table[name](**values)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, LookupError, AttributeError, MemoryError) as error:
        raise UserError(f"{section} {name}: {error}") from error


def keyword_types(constructor: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """keyword -> (its type, whether it must be given) of a class or function."""
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    parameters = inspect.signature(constructor).parameters.items()
    return {name: (hints.get(name, Any), p.default is p.empty) for name, p in parameters}


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
