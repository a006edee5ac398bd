"""Configurations: typed sections, parts from YAML files, key=value words; nothing here knows torch.

A configuration is made of layers, each over the one before: the defaults below, the parts that an experiment lists
(files of configs/<kind>/, of which those of configs/recipe/ hold several sections), the experiment's own values, and
the words of the command line. A word like `data=folder` exchanges a whole section for a file of its kind, a word like
`data.path=DIR` sets one field.
"""

import difflib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from score_lightning.config.schema import Config
from score_lightning.errors import UserError
from score_lightning.runtime.nested import flatten

ROOT = Path(__file__).parents[2]
PART_KINDS = ("data", "net", "schedule", "objective", "sampler", "preview", "features")


@dataclass(frozen=True)
class Resolved:
    """A complete configuration.

    Args:
        config: the values, with attribute access.
        origins: dotted key -> the file, or the command line, that it stands in.
    """

    config: Config
    origins: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """The configuration as dicts, lists, strings and numbers."""
        return to_plain(self.config)


def defaults() -> dict[str, Any]:
    """All settings as they are where nobody sets them, as dicts, lists, strings and numbers."""
    return OmegaConf.to_container(OmegaConf.structured(Config), throw_on_missing=False)  # type: ignore[return-value]


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration as dicts, lists, strings and numbers."""
    return asdict(config)


def to_yaml(plain: Mapping[str, Any]) -> str:
    """A plain configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(plain)))


def load(words: Sequence[str], exp: str) -> Resolved:
    """The configuration of an experiment, changed by key=value words.

    Raises:
        UserError: when the experiment, a part or a key is unknown, or a value is of the wrong type.
    """
    path = find_experiment(exp)
    values = read_yaml(path)
    parts = values.pop("parts", [])
    if not isinstance(parts, list) or not all(isinstance(p, str) and p.count("/") == 1 for p in parts):
        raise UserError(f"{path}: parts must be a list like [data/digits, net/unet], got {parts!r}")
    layers = [_part_layer(kind, name, where=show(path)) for kind, name in (part.split("/") for part in parts)]
    return _merge([*layers, (values, show(path))], ["exp=" + path.stem, *words])


def change(plain: Mapping[str, Any], source: str, words: Sequence[str]) -> Resolved:
    """A resolved configuration, as a checkpoint holds it, changed by key=value words.

    Raises:
        UserError: as `load`.
    """
    return _merge([(dict(plain), source)], words)


def experiments() -> list[str]:
    """Names of all experiments that come with the project."""
    return sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def parts(kind: str) -> list[str]:
    """Names of all parts of a kind."""
    return sorted(path.stem for path in (ROOT / "configs" / _folder(kind)).glob("*.yaml"))


def find_experiment(exp: str) -> Path:
    """The file of an experiment, given by name or by path.

    Raises:
        UserError: when there is none.
    """
    for path in (Path(exp), ROOT / "experiments" / f"{exp}.yaml"):
        with suppress(OSError):  # a name that is too long
            if path.is_file():
                return path
    raise UserError(f"unknown experiment {exp!r}{suggest(exp, experiments())}; there are {', '.join(experiments())}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: when it is not valid YAML or not a mapping.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys and values, got {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def show(path: Path) -> str:
    """A path as messages name it: relative to the project where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _folder(kind: str) -> str:
    return "sampler" if kind == "preview" else kind


def _part_layer(kind: str, name: str, where: str) -> tuple[dict[str, Any], str]:
    """The layer of one part: {kind: its values}, or the sections of a recipe, and its file."""
    path, known = ROOT / "configs" / _folder(kind) / f"{name}.yaml", parts(kind)
    if name not in known:
        raise UserError(
            f"unknown {kind} {name!r} ({where}){suggest(name, known)}; there are {', '.join(known)}"
            if known
            else f"unknown kind of part {kind!r} ({where})"
        )
    values = read_yaml(path)
    return values if kind == "recipe" else {kind: values}, show(path)


def _merge(layers: Sequence[tuple[dict[str, Any], str]], words: Sequence[str]) -> Resolved:
    config = OmegaConf.structured(Config)
    origins: dict[str, str] = {}
    for values, source in [*layers, *_word_layers(words)]:
        _check_keys(values, Config, "", source)
        _check_numbers(values, "", source)
        for kind in set(values) & set(PART_KINDS):
            # a part that brings a name is a new part: nothing of the old one stays
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
    try:
        missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"no value for {', '.join(missing)}: set it in the experiment or as {missing[0]}=…")
        return Resolved(OmegaConf.to_object(config), origins)  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error


def _word_layers(words: Sequence[str]) -> list[tuple[dict[str, Any], str]]:
    """Layers of the command line: exchanged sections first, then single fields, each in the order given."""
    exchanged, fields_ = [], []
    sections = {f.name for f in fields(Config) if f.name in PART_KINDS or is_dataclass(f.type)}
    for word in words:
        key, value = parse_word(word)
        if key in sections:
            if not isinstance(value, str):
                raise UserError(f"{key}={value!r}: {key} takes the name of a file in configs/{_folder(key)}/")
            exchanged.append(_part_layer(key, value, where="command line"))
        else:
            layer: Any = value
            for name in reversed(key.split(".")):
                layer = {name: layer}
            fields_.append((layer, "command line"))
    return [*exchanged, *fields_]


def parse_word(word: str) -> tuple[str, Any]:
    """(key, value) of a key=value word, the value read as YAML.

    Raises:
        UserError: when the word has no = or its value is not valid YAML.
    """
    key, separator, text = word.partition("=")
    if not separator or not key:
        raise UserError(f"expected key=value, got {word[:100]!r} (--help lists the keys)")
    if text in ("on", "off", "yes", "no"):
        return key, text  # booleans in YAML 1.1, but words to people: logger=off
    try:
        value = OmegaConf.to_container(OmegaConf.load(io.StringIO(f"value: {text}")))["value"]  # type: ignore
    except (YAMLError, OmegaConfBaseException, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{key}: the value {text[:100]!r} cannot be read") from error
    return key, value


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
    """Refuses numbers that no tensor holds: what is not finite, and whole ones of more than 64 bits."""
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


def suggest(word: str, known: Iterable[str]) -> str:
    """': did you mean X?' for the known word closest to a typo, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), 1)
    return f": did you mean {close[0]}?" if close else ""


def describe() -> str:
    """Every key with its default and a word on it, one a line."""
    return "\n".join(_describe(Config, ""))


def _describe(section: type, prefix: str) -> list[str]:
    lines = []
    for f in fields(section):
        if is_dataclass(f.type):
            lines += _describe(f.type, f"{prefix}{f.name}.")  # type: ignore[arg-type]
            continue
        default = f.default_factory() if callable(f.default_factory) else f.default
        key, text = prefix + f.name, f.metadata["doc"]
        if f.name in PART_KINDS:
            lines += [f"  {key + '=NAME':28} {text}; {key}.KEY=… sets a field", *_describe_parts(f.name)]
            continue
        if default != MISSING:
            text = f"{text} [{'null' if default is None else default}]"
        lines.append(f"  {key:28} {text}")
    return lines


def _describe_parts(kind: str) -> list[str]:
    """The parts of a kind, each with its keys and their values."""
    if kind == "preview":
        return []
    lines = []
    for name in parts(kind):
        path = ROOT / "configs" / kind / f"{name}.yaml"
        keys = [f"{k} {'null' if value is None else value}" for k, value in read_yaml(path).items() if k != "name"]
        first = path.read_text().splitlines()[0]
        word = [f" {first}"] if first.startswith("#") else []
        lines.append(f"      {name:24} {' '.join([', '.join(keys), *word]).strip()}")
    return lines
