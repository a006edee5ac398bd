"""The columns of a `datasets.Dataset`: which one holds images, which one labels, and the numbers of the classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_lightning.errors import UserError

PIXELS = ("uint8", "uint16", "float16", "float32", "float64", "bool")
"""Types of arrays' pixels."""
FIRST = 8  # columns of each kind that are named


def pixel_type(feature: Any) -> str | None:
    """The type of the pixels of a column of arrays (H, W), (H, W, C) or (C, H, W); None of others."""
    kind, depth = type(feature).__name__, 0
    if kind in ("Array2D", "Array3D"):
        return str(feature.dtype)
    while type(feature).__name__ in ("List", "LargeList", "Sequence"):
        feature, depth = feature.feature, depth + 1
    dtype = getattr(feature, "dtype", None)
    return dtype if depth in (2, 3) and dtype in PIXELS else None


def holds_files(feature: Any) -> bool:
    """Whether a column holds pictures' files though it is not marked so: their bytes, or these beside a path."""
    if isinstance(feature, Mapping):
        return set(feature) == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary") and type(feature).__name__ == "Value"


def find_images(features: Mapping[str, Any], asked: str, where: str) -> str:
    """The name of the column of images: the one asked for, or with `auto` the only one there is.

    Raises:
        UserError: when it is not there, holds no images, or is one of several; it names the columns.
    """
    marked = [name for name, feature in features.items() if type(feature).__name__ in ("Image", "Array2D", "Array3D")]
    if asked in features and asked != "auto":
        if asked in marked or pixel_type(features[asked]) or holds_files(features[asked]):
            return asked
        raise UserError(f"{where}: column {asked!r} holds no images: data.image=COLUMN, of {_listed(features)}")
    if asked != "auto":
        raise UserError(f"{where} has no column {asked!r} (data.image); there are {_listed(features)}")
    if len(marked) != 1:
        have = f"several columns of images, {', '.join(marked)}" if marked else "no column that is marked as images"
        raise UserError(f"{where} has {have}: set data.image=COLUMN, of {_listed(features)}")
    return marked[0]


def find_labels(features: Mapping[str, Any], asked: str | None, where: str) -> tuple[str | None, tuple[str, ...]]:
    """(the name of the column of labels, None for none; notes): the one asked for, or the only one of ClassLabel.

    Raises:
        UserError: when it is not there, is of another type, or one of several.
    """
    if asked is None:
        return None, ()
    kinds = {name: _kind(feature) for name, feature in features.items()}
    if asked in features and asked != "auto":
        if kinds[asked] in ("ClassLabel", "string", "large_string", "bool") or "int" in kinds[asked]:
            return asked, ()
        raise UserError(f"{where}: column {asked!r} holds no labels (whole numbers or names), but {kinds[asked]}")
    if asked != "auto":
        raise UserError(f"{where} has no column {asked!r} (data.label); there are {_listed(features)}")
    marked = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if len(marked) > 1:
        raise UserError(
            f"{where} has several columns of classes: set data.label to one of {', '.join(marked)}, or null"
        )
    numbers = [name for name, kind in kinds.items() if "int" in kind]
    if not marked and numbers:
        return None, (f"no classes, since no column is a ClassLabel (data.label={numbers[0]} takes its numbers)",)
    return (marked[0], ()) if marked else (None, ())


def read_labels(
    parts: Sequence[tuple[str, Any]], column: str, where: str
) -> tuple[list[Tensor], tuple[str, ...] | None]:
    """(int64 (N,) of each part, names of the classes or None) of a column of labels; texts are sorted and numbered.

    Args:
        parts: (name, `datasets.Dataset`) of each split.
        column: its name.
        where: the data set is, for messages.

    Raises:
        UserError: naming a row without a label, or with one that is none of the classes.
    """
    feature = parts[0][1].features[column]
    values = [_values(rows, column, f"{where}: {name}") for name, rows in parts]
    names = tuple(feature.names) if _kind(feature) == "ClassLabel" else None
    if "string" in _kind(feature):
        names = tuple(sorted({str(value) for some in values for value in some}))
        number = {name: i for i, name in enumerate(names)}
        return [torch.tensor([number[str(value)] for value in some]) for some in values], names
    numbers = [torch.from_numpy(some.astype(np.int64)) for some in values]
    for (part, _), labels in zip(parts, numbers, strict=True):
        wrong = (labels < 0) | (labels >= len(names) if names is not None else torch.zeros(1, dtype=torch.bool))
        if wrong.any():
            row = int(wrong.nonzero()[0])
            which = f"from 0 to {len(names) - 1}, the classes of" if names is not None else "from 0 on, in"
            raise UserError(
                f"{where}: {part}[{row}] has the label {int(labels[row])}, expected numbers {which} {column!r} (-1 "
                "stands for labels that are not published): set data.label=null for none, or another data.split or "
                "data.validation"
            )
    return numbers, names


def _values(rows: Any, column: str, where: str) -> np.ndarray:
    values = rows.select_columns(column).with_format("arrow")[:].column(0)
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise UserError(f"{where}[{row}] has no {column!r}: set data.label=null, or leave out such rows")
    array: np.ndarray = values.to_numpy()
    return array


def _kind(feature: Any) -> str:
    name = type(feature).__name__
    return str(feature.dtype) if name == "Value" else name


def _listed(features: Mapping[str, Any]) -> str:
    shown = [f"{name} ({_kind(feature)})" for name, feature in list(features.items())[: 2 * FIRST]]
    return ", ".join(shown) + (", …" if len(features) > len(shown) else "")
