"""Sweeps: overrides with lists of values, and the points of their product."""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from score_lightning.config.compose import parse_override
from score_lightning.errors import UserError


def split_sweep(
    overrides: Sequence[str], is_swept: Callable[[str, list[Any]], bool]
) -> tuple[list[str], list[list[str]]]:
    """(overrides that all points share, further overrides of each point) of the product of all swept lists.

    Args:
        overrides: key=value.
        is_swept: of a key and a list, whether the list holds one value for each point and is not a value itself.

    Raises:
        UserError: when an override is no key=value, or a swept list is empty.
    """
    shared, swept = [], []
    for override in overrides:
        key, value = parse_override(override)
        if not isinstance(value, list) or not is_swept(key, value):
            shared.append(override)
        elif not value:
            raise UserError(f"{key}: the list is empty")
        else:
            swept.append([f"{key}={_as_text(item)}" for item in value])
    return shared, [list(point) for point in itertools.product(*swept)]


def _as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | bool) or value is None else str(value)
