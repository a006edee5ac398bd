"""Sweeps: overrides with lists of values, and the points of their product."""

import itertools
from collections.abc import Callable, Sequence

from score_lightning.config.overrides import listed, split_override
from score_lightning.errors import UserError


def split_sweep(
    overrides: Sequence[str], is_swept: Callable[[str, list[str]], bool]
) -> tuple[list[str], list[list[str]]]:
    """(overrides that all points share, further overrides of each point) of the product of all swept lists.

    Args:
        overrides: key=value.
        is_swept: of a key and the items of a list, whether each is the value of a point, and the list itself no value.

    Raises:
        UserError: when an override is no key=value, or a swept list is empty.
    """
    shared, swept = [], []
    for override in overrides:
        key, items = split_override(override)[0], listed(override)
        if items is None or not is_swept(key, items):
            shared.append(override)
        elif not items:
            raise UserError(f"{key}: the list is empty")
        else:
            swept.append([f"{key}={item}" for item in items])
    return shared, [list(point) for point in itertools.product(*swept)]
