"""Overrides: key=value as it is typed on a command line, and the value that is meant.

The value of a key that takes text is the text itself, whatever YAML makes of it: a folder may be called `my #1 set`,
`0755` or `1.10`. All other values are read as YAML.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from score_lightning.config.schema import Config
from score_lightning.errors import UserError

TEXT_KEYWORDS: dict[str, Any] = {
    **{
        f"{section}.name": str
        for section in ("condition", "data", "net", "schedule", "objective", "sampler", "preview", "features")
    },
    "data.path": str,
    "data.conditions": str | None,
    "data.category": str,
    "data.set": str,
    "data.image": str,
    "data.label": str | None,
    "data.subset": str | None,
    "schedule.start": str,
    "sampler.predictor": str,
    "preview.predictor": str,
    "features.model": str,
    "features.weights": str | None,
}
"""Keywords of parts that are text in all that have them (objective.weight is a number of hybrid), with their types."""


def split_override(override: str) -> tuple[str, str]:
    """(key, text) of a key=value override.

    Raises:
        UserError: when there is no = or no key.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"expected key=value, got {override[:100]!r} (--help lists the keys)")
    return key, text


def parse_override(override: str) -> tuple[str, Any]:
    """(key, value) of a key=value override: the text as it is typed where the key takes text, else read as YAML.

    Raises:
        UserError: when there is no =, or the value is not valid UTF-8 or YAML, or OmegaConf's mark of a missing one.
    """
    key, text = split_override(override)
    if text.strip() == MISSING:
        raise UserError(f"{key}: {MISSING} cannot be a value")
    if any("\ud800" <= c <= "\udfff" for c in text):  # bytes that the locale does not know
        raise UserError(
            f"{key}: {text!r} is not valid UTF-8, as config.yaml must be: rename it, or set LC_ALL to a locale of UTF-8"
        )
    if key not in TEXTS:
        return key, _read(key, text)
    null = text == "null" and TEXTS[key] == str | None
    return key, None if null or not text else text


def listed(override: str) -> list[str] | None:
    """The items of a list in an override, each as it is typed, without quotes where the key takes text.

    None where the value is no list, or not only one.
    """
    key, text = split_override(override)
    try:
        node, rest = _node(text)
    except (yaml.YAMLError, ValueError):
        return None
    if not isinstance(node, yaml.SequenceNode) or rest:
        return None
    return [
        item.value
        if key in TEXTS and isinstance(item, yaml.ScalarNode)
        else f"{PREFIX}{text}"[item.start_mark.index : item.end_mark.index]
        for item in node.value
    ]


def _read(key: str, text: str) -> Any:
    """A value that is read as YAML, and all of it: no part is taken for a comment."""
    if text in ("on", "off", "yes", "no"):
        return text  # booleans in YAML 1.1, but plain text to people: logger=off
    with suppress(ValueError):
        return int(text)  # 0755, an octal number in YAML 1.1
    try:
        node, rest = _node(text)
        value = OmegaConf.to_container(OmegaConf.load(io.StringIO(f"{PREFIX}{text}")))["value"]  # type: ignore
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{key}: the value {text[:100]!r} cannot be read") from error
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and (isinstance(value, str) or ":" in text):  # 1:30 is 90 in YAML 1.1
        return text.strip()
    if rest:
        raise UserError(f"{key}: the value {text[:100]!r} cannot be read: YAML takes {rest[:100]!r} for a comment")
    return value


def _node(text: str) -> tuple[yaml.Node, str]:
    """What YAML sees in a value, with its places in the text behind PREFIX; and what it takes for a comment.

    Raises:
        YAMLError, ValueError: when it is not valid YAML, or more than one value.
    """
    document = f"{PREFIX}{text}"
    ((_, node),) = yaml.compose(document, Loader=yaml.SafeLoader).value
    return node, document[node.end_mark.index :].strip()


def _types(section: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and type of every field of a section."""
    for f in fields(section):
        if is_dataclass(f.type):
            yield from _types(f.type, f"{prefix}{f.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + f.name, f.type


PREFIX = "value: "
TEXTS = {key: kind for key, kind in [*_types(Config), *TEXT_KEYWORDS.items()] if kind in (str, str | None)}
"""Keys that take text, with their types."""
