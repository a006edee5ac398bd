"""What lies in folders and zip files: the pictures among their files, and their classes by the folders they are in."""

import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from score_lightning.data.pictures import suffixes
from score_lightning.errors import UserError

PARTS = {"train", "training", "val", "valid", "validation", "test", "testing", "extra"}
"""Names of folders that are parts of a data set rather than classes, where all of them are among these."""
LABELS = "dataset.json"  # a file of labels beside pictures, see `labels`
SHOWN = 3  # names of each kind of skipped file


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder or in a zip file.

    Args:
        names: their paths, sorted.
        skipped: why others are not among them -> their paths.
        labeled: whether a file of labels lies beside them.
    """

    names: list[str]
    skipped: dict[str, list[str]] = field(default_factory=dict)
    labeled: bool = False

    @property
    def notes(self) -> list[str]:
        """What was skipped and why, as a text; none without."""
        reasons = [
            f"{len(names):,} {reason} ({', '.join(sorted(names)[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
            for reason, names in sorted(self.skipped.items())
        ]
        return [f"skipped: {', '.join(reasons)}"] if reasons else []


def list_pictures(path: Path) -> Listing:
    """All pictures below a folder or in a zip file, links to folders followed; hidden ones are skipped.

    Raises:
        UserError: when the path does not exist, is no zip, or holds no pictures.
    """
    skipped: dict[str, list[str]] = {}
    if path.is_dir():
        listed: Iterable[str] = _walk(path, PurePosixPath(), (), skipped)
    elif path.is_file() and zipfile.is_zipfile(path):
        listed = _members(path, skipped)
    elif path.is_file():
        raise UserError(f"{path} is neither a folder nor a zip file (or the zip is damaged)")
    else:
        raise UserError(f"{path} does not exist: expected a folder or a zip file of pictures")
    names, labeled = [], False
    for name in listed:
        parts = _path(name).parts
        if name == LABELS:
            labeled = True
        elif not parts or any(part[0] == "." or part == "__MACOSX" for part in parts):
            skipped.setdefault("hidden", []).append(name)
        elif not parts[-1].lower().endswith(suffixes()):
            skipped.setdefault("of unknown format", []).append(name)
        else:
            names.append(name)
    listing = Listing(sorted(names), skipped, labeled)
    if not names:
        raise UserError("; ".join([f"{path} holds no pictures ({', '.join(suffixes())})", *listing.notes]))
    return listing


def _path(name: str) -> PurePosixPath:
    """A name as a path; zip files that were written on Windows may have backslashes."""
    return PurePosixPath(name.replace("\\", "/"))


def _walk(
    folder: Path, below: PurePosixPath, above: tuple[tuple[int, int], ...], skipped: dict[str, list[str]]
) -> Iterator[str]:
    """Paths of the files below a folder, relative to the first one."""
    try:
        state, entries = folder.stat(), sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        skipped.setdefault("unreadable", []).append(f"{below}/")
        return
    above = (*above, (state.st_dev, state.st_ino))
    for entry in entries:
        name = below / entry.name
        kind = _kind(entry)
        if kind == "file":
            yield str(name)
        elif kind != "folder":
            skipped.setdefault("broken", []).append(str(name))
        elif entry.name[0] == "." or entry.name == "__MACOSX":
            skipped.setdefault("hidden", []).append(f"{name}/")
        elif entry.is_symlink() and (entry.stat().st_dev, entry.stat().st_ino) in above:
            skipped.setdefault("linked to a folder above", []).append(f"{name}/")
        else:
            yield from _walk(Path(entry.path), name, above, skipped)


def _kind(entry: os.DirEntry[str]) -> str:
    """Whether a folder's entry is a folder or a file, links followed; empty where it is neither or a link fails."""
    with suppress(OSError):
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    return ""


def _members(path: Path, skipped: dict[str, list[str]]) -> list[str]:
    """Names of the files in a zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UserError(f"{path} is a damaged zip file: {error}") from error
    once = dict.fromkeys(name for name in names if not name.endswith("\\"))
    if len(once) < len(names):
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        skipped |= {"duplicate": repeated} if repeated else {}
    return list(once)


@dataclass(frozen=True)
class Classes:
    """The classes of pictures.

    Args:
        labels: int64 (N,), their numbers; None where there are no classes.
        names: of the classes, by number; None where they have none.
        notes: why there are none, or what else may surprise.
        content: hash of the file that says which they are; empty where the pictures' names do.
    """

    labels: Tensor | None = None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    content: str = ""


def below_common(names: Sequence[str]) -> list[str]:
    """Names below the one folder that holds all of them."""
    folders = [_path(name).parts[:-1] for name in names]
    ends = (min(folders, default=()), max(folders, default=()))
    common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*ends, strict=False))))
    return ["/".join(_path(name).parts[common:]) for name in names]


def find_classes(names: Sequence[str]) -> Classes:
    """The classes of pictures: the first folders below the one that holds all of them.

    Folders inside a class belong to it. Classes are numbered in the order of their names, by value where all are
    numbers. Folders train, test and the like, where there are no others, are no classes; those inside them are.
    """
    folders = [_path(name).parts[:-1] for name in below_common(names)]
    if not any(folders):
        return Classes()
    if all(parts and parts[0].lower() in PARTS for parts in folders):
        first = sorted({parts[0] for parts in folders})
        folders = [parts[1:] for parts in folders]
        if not any(folders):
            return Classes(notes=(f"{' and '.join(first)} are taken as parts of the data, not as classes",))
    loose = [name for name, parts in zip(names, folders, strict=True) if not parts]
    if loose:
        more = f" and {len(loose) - 1:,} more" if len(loose) > 1 else ""
        return Classes(notes=(f"no classes, since pictures lie beside the class folders ({loose[0]}{more})",))
    classes = sorted({parts[0] for parts in folders})
    if all(map(str.isdecimal, classes)):
        classes.sort(key=int)
    number = {name: i for i, name in enumerate(classes)}
    return Classes(torch.tensor([number[parts[0]] for parts in folders]), tuple(classes))
