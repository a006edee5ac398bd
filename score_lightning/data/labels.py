"""Class labels of pictures: by the folders that they lie in, or from a file beside them.

The file, dataset.json, is that of the dataset tools of StyleGAN and EDM: {"labels": [["00000/img00000000.png", 6], …]},
or null in place of the list where the pictures have no labels.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from score_lightning.data.listing import LABELS, SHOWN, Classes, Listing, below_common, find_classes
from score_lightning.errors import UserError
from score_lightning.runtime.memory import check_bytes


def label(roots: Sequence[Path], listings: Sequence[Listing]) -> Classes:
    """The classes of the pictures in all of these folders or zip files, in one numbering.

    Raises:
        UserError: when some have a file of labels and others do not, or it cannot be read or lacks a picture.
    """
    labeled = [listing.labeled for listing in listings]
    if not any(labeled):
        return find_classes([name for listing in listings for name in below_common(listing.names)])
    if not all(labeled):
        have, lack = roots[labeled.index(True)], roots[labeled.index(False)]
        raise UserError(f"{have} has labels in {LABELS}, {lack} has none: label both or neither")
    parts = [_read(root, listing.names) for root, listing in zip(roots, listings, strict=True)]
    known = [part.labels for part in parts if part.labels is not None]
    notes = tuple(note for part in parts for note in part.notes)
    labels = torch.cat(known) if len(known) == len(parts) else None
    return Classes(labels, None, notes, "".join(part.content for part in parts))


def _read(root: Path, names: Sequence[str]) -> Classes:
    """The classes that the file of labels in a folder or a zip file gives to its pictures."""
    place = root / LABELS
    try:
        stored = _contents(root)
        given = json.loads(stored)["labels"]
        numbers = None if given is None else dict(given)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, MemoryError, zipfile.BadZipFile) as error:
        raise UserError(
            f'{place} holds no labels, {{"labels": [[picture, number], …]}} or {{"labels": null}} ({error!r}); move it '
            "away if it is for something else"
        ) from error
    content = hashlib.sha256(stored).hexdigest()
    if numbers is None:
        return Classes(notes=(f"no classes, since {LABELS} says that there are none",), content=content)
    paths = [name.replace("\\", "/") for name in names]
    missing = [path for path in paths if path not in numbers]
    if missing:
        raise UserError(f"{place} has no label of {len(missing):,} of the pictures: {', '.join(missing[:SHOWN])}")
    labels = [numbers[path] for path in paths]
    if wrong := next((path for path, value in zip(paths, labels, strict=True) if not _is_number(value)), None):
        raise UserError(f"{place}: labels must be whole numbers from 0 on, got {numbers[wrong]!r} of {wrong}")
    extra = len(numbers) - len(set(paths))
    notes = (f"labels in {LABELS} of pictures that are not there: {extra:,}",) if extra else ()
    return Classes(torch.tensor(labels, dtype=torch.int64), None, notes, content)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _contents(root: Path) -> bytes:
    if root.is_dir():
        return (root / LABELS).read_bytes()
    with zipfile.ZipFile(root) as archive:
        check_bytes(archive.getinfo(LABELS).file_size, LABELS)
        return archive.read(LABELS)
