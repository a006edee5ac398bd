"""Configurations: typed sections, parts from YAML files, key=value overrides; nothing here knows torch.

A configuration is composed of layers, later ones taking precedence: the defaults of the schema, the parts that an
experiment lists (files in `configs/<kind>/`; those in configs/recipe/ hold several sections), the values in the
experiment's file, and the overrides on the command line. An override like `data=folder` replaces a whole section by a
file of its kind, one like `data.path=DIR` sets a single field.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from score_lightning.config.bounds import out_of_bounds
from score_lightning.config.files import PART_KINDS, find_experiment, find_part, folder, parts, read_yaml, show, suggest
from score_lightning.config.overrides import parse_override
from score_lightning.config.schema import Config, Figure
from score_lightning.errors import UserError
from score_lightning.runtime.nested import flatten


@dataclass(frozen=True)
class Resolved:
    """A complete configuration.

    Args:
        config: the values, with attribute access.
        origins: dotted key -> the file, or the command line, that sets it.
        figure: what a toy experiment draws after its training.
    """

    config: Config
    origins: dict[str, str]
    figure: Figure = field(default_factory=Figure)

    def plain(self) -> dict[str, Any]:
        """The configuration as dicts, lists, strings and numbers."""
        return to_plain(self.config)


def defaults() -> dict[str, Any]:
    """The default of every setting, as dicts, lists, strings and numbers."""
    return OmegaConf.to_container(OmegaConf.structured(Config), throw_on_missing=False)  # type: ignore[return-value]


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration as dicts, lists, strings and numbers."""
    return asdict(config)


def to_yaml(plain: Mapping[str, Any]) -> str:
    """A plain configuration as YAML, which is read as the same values."""
    return OmegaConf.to_yaml(OmegaConf.create(_literal(dict(plain))))


def load(overrides: Sequence[str], exp: str) -> Resolved:
    """The configuration of an experiment, changed by key=value overrides.

    Raises:
        UserError: when the experiment, a part or a key is unknown, or a value is of the wrong type.
    """
    path = find_experiment(exp)
    values = read_yaml(path)
    parts = values.pop("parts", [])
    if not isinstance(parts, list) or not all(isinstance(p, str) and p.count("/") == 1 for p in parts):
        raise UserError(f"{show(path)}: parts must be a list like [data/digits, net/unet], got {parts!r}")
    layers = [_part_layer(kind, name, where=show(path)) for kind, name in (part.split("/") for part in parts)]
    return _merge([*layers, (values, show(path))], ["exp=" + path.stem, *overrides])


def change(plain: Mapping[str, Any], source: str, overrides: Sequence[str]) -> Resolved:
    """A resolved configuration, as a checkpoint holds it, changed by key=value overrides.

    Raises:
        UserError: as `load`.
    """
    return _merge([(_literal(dict(plain)), source)], overrides)


def _part_layer(kind: str, name: str, where: str) -> tuple[dict[str, Any], str]:
    """The layer of one part: {kind: its values}, or the sections of a recipe, and its file."""
    known = parts(kind)
    if name not in known:
        raise UserError(
            f"unknown {kind} {name!r} ({where}){suggest(name, known)}; there are {', '.join(known)}"
            if known
            else f"unknown kind of part {kind!r} ({where})"
        )
    path = find_part(kind, name)
    values = read_yaml(path)
    if kind in PART_KINDS and "name" not in values:
        raise UserError(f"{show(path)} has no name, which says what the {kind} is built by")
    return values if kind == "recipe" else {kind: values}, show(path)


def _merge(layers: Sequence[tuple[dict[str, Any], str]], overrides: Sequence[str]) -> Resolved:
    config = OmegaConf.structured(Config)
    origins: dict[str, str] = {}
    figure = Figure()
    for values, source in [*layers, *_override_layers(overrides)]:
        figure, values = _take_figure(figure, values, source)
        _check_keys(values, Config, "", source)
        _check_numbers(values, "", source)
        for kind in set(values) & set(PART_KINDS):
            # a part with a name is a new part: nothing of the previous one stays
            if isinstance(values[kind], Mapping) and "name" in values[kind]:
                config[kind] = {}
                origins = {key: o for key, o in origins.items() if not key.startswith(f"{kind}.")}
        try:
            config = OmegaConf.unsafe_merge(config, values)  # nothing else holds it
        except (OmegaConfBaseException, TypeError) as error:  # the latter of keys below a list
            reason = str(getattr(error, "msg", None) or error).splitlines()[0]
            key = getattr(error, "full_key", None) or ", ".join(flatten(values))
            raise UserError(f"{key}: {reason} ({source})") from error
        origins |= dict.fromkeys(flatten(values), source)
    return Resolved(_checked(config, origins, layers[-1][1]), origins, figure)


def _checked(config: Any, origins: Mapping[str, str], last: str) -> Config:
    """The typed configuration, complete and within the bounds of its fields; messages say where values come from."""
    try:
        missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"no value for {', '.join(missing)} ({last}): set {missing[0]}=…")
        typed: Config = OmegaConf.to_object(config)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    for key, mistake in out_of_bounds(typed):
        raise UserError(f"{key} {mistake} ({origins.get(key, 'the default')})")
    return typed


def _take_figure(figure: Figure, values: dict[str, Any], source: str) -> tuple[Figure, dict[str, Any]]:
    """The figure of a toy experiment as a layer changes it, and the layer without it."""
    rest = {key: value for key, value in values.items() if key not in ("figure", "variants")}
    name, variants = values.get("figure", figure.name), values.get("variants", {})
    if name is not None and not isinstance(name, str):
        raise UserError(f"figure must be the name of a figure, or null, got {name!r} ({source})")
    if not isinstance(variants, Mapping) or not all(
        isinstance(overrides, list) and all(isinstance(override, str) for override in overrides)
        for overrides in variants.values()
    ):
        raise UserError(f"variants must map labels to lists of key=value overrides, got {variants!r} ({source})")
    return Figure(name, {**figure.variants, **{str(label): list(v) for label, v in variants.items()}}), rest


def _override_layers(overrides: Sequence[str]) -> list[tuple[dict[str, Any], str]]:
    """Layers of the command line: replaced sections first, then single fields, each in the order given."""
    replaced, single = [], []
    sections = {f.name for f in fields(Config) if f.name in PART_KINDS or is_dataclass(f.type)}
    for override in overrides:
        key, value = parse_override(override)
        if key in sections:
            if not isinstance(value, str):
                raise UserError(f"{override}: {key} takes the name of a file in configs/{folder(key)}/")
            replaced.append(_part_layer(key, value, where="command line"))
        else:
            layer: Any = _literal(value)
            for name in reversed(key.split(".")):
                layer = {name: layer}
            single.append((layer, "command line"))
    return [*replaced, *single]


def _literal(value: Any) -> Any:
    """A value in which OmegaConf sees no reference to another: of ${, which may stand in the name of a folder."""
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _check_keys(values: Mapping[str, Any], section: type, prefix: str, source: str) -> None:
    known = {f.name: f for f in fields(section)}
    for key, value in values.items():
        if key not in known:
            where = f"{prefix.rstrip('.')} has" if prefix else "there are"
            raise UserError(f"unknown key {prefix}{key!s} ({source}){suggest(key, known)}; {where} {', '.join(known)}")
        kind = known[key].type
        if is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UserError(f"{prefix}{key} is a section, got {value!r} ({source})")
            _check_keys(value, kind, f"{prefix}{key}.", source)  # type: ignore[arg-type]


def _check_numbers(value: Any, key: str, source: str) -> None:
    """Refuses numbers that no tensor holds: non-finite ones, and integers of more than 64 bits."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_numbers(item, f"{key}.{name}" if key else str(name), source)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, key, source)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} must be a finite number, got {value} ({source}); null is no limit")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{key} must be below 2^63 in size ({source})")
