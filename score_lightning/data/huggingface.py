"""Data sets as the package `datasets` reads them: Parquet and Arrow files, its own folders, and those of its hub."""

import logging
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from score_lightning.data.columns import find_images, find_labels, pixel_type, read_labels
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import LazyImageSet, Source
from score_lightning.data.items import to_picture
from score_lightning.data.pictures import Picture, Shape, naming_picture
from score_lightning.data.sources import Split, hold_out
from score_lightning.errors import UserError, missing_package

FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
"""Endings of single files, and what `datasets` calls their formats."""
VALIDATION = ("validation", "valid", "val", "dev", "test")
"""Splits that are taken for validation, the first that there is."""
SHARE = 0.05  # held out where there is none


@dataclass(frozen=True)
class ColumnFiles(ImageFiles):
    """Pictures in a column of a data set, named by their split and row: their files, or arrays of pixels.

    Args:
        rows: a `datasets.Dataset` of that column alone, in Arrow's format, or of arrays in NumPy's.
        pixels: type of arrays; None where they are files.
    """

    rows: Any = None
    pixels: str | None = None

    @property
    def place(self) -> str:
        """None: their version names the files that the data set lies in."""
        return ""

    @contextmanager
    def open(self, name: str) -> Iterator[Picture]:
        """A picture, as the shape needs it.

        Raises:
            UserError: naming the picture if it cannot be read.
        """
        if self.pixels is None:
            with super().open(name) as picture:
                yield picture
            return
        with naming_picture(self.root / name):
            yield to_picture(self._array(_row(name)), self.shape)

    def _states(self) -> Iterator[tuple[str, int, int]]:
        """(name, size of its file in bytes or checksum of its array, state of the data set's files) of each picture."""
        files = [Path(file["filename"]) for file in self.rows.cache_files]
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        state = zlib.crc32(repr((self.rows.column_names, states or self.rows._fingerprint)).encode())
        if self.pixels is not None:
            for i, name in enumerate(self.names):
                yield name, zlib.crc32(self._array(i).tobytes()), state
            return
        import pyarrow.compute as pc

        chunks = self.rows[:].column(0).chunks
        sizes = chain.from_iterable(pc.binary_length(pc.struct_field(c, "bytes")).to_pylist() for c in chunks)
        for i, (name, size) in enumerate(zip(self.names, sizes, strict=True)):
            if size is not None:
                yield name, size, state
                continue
            path = self._file(i)["path"]
            file = Path(path).stat() if path and Path(path).is_file() else None
            yield name, file.st_size if file else 0, file.st_mtime_ns if file else state

    def _stream(self, name: str) -> IO[bytes]:
        if self.pixels is not None:
            return BytesIO(self._array(_row(name)).tobytes())
        file = self._file(_row(name))
        if file["bytes"] is not None:
            return BytesIO(file["bytes"])
        if not file["path"]:
            raise OSError("the row has no picture")
        return Path(file["path"]).open("rb")

    def _file(self, row: int) -> dict[str, Any]:
        """`bytes` and `path` of a picture's file, one of them None."""
        return self.rows[row].column(0)[0].as_py() or {"bytes": None, "path": None}

    def _array(self, row: int) -> np.ndarray:
        (value,) = self.rows[row].values()
        array = np.asarray(value)
        if array.dtype.kind == "O":
            raise ValueError("it is no array: its rows are of different lengths, or there are none")
        return array.astype(self.pixels)  # `datasets` has made all whole numbers int64


def _row(name: str) -> int:
    return int(name.rpartition("[")[2][:-1])


def huggingface(
    shape: Shape,
    path: str,
    split: str = "train",
    image: str = "auto",
    label: str | None = "auto",
    validation: float | str = "auto",
    subset: str | None = None,
) -> Split:
    """A data set that the package `datasets` reads.

    Args:
        shape: that pictures are brought to.
        path: a folder that `save_to_disk` wrote, a clone of a data set of the hub or another folder that
            `load_dataset` reads, such as an imagefolder; a .parquet, .arrow or .tar file; or OWNER/NAME on the hub.
        split: to train on, also a part of one or several, such as train[:90%] or train+extra.
        image: column of the images; `auto` is the only one.
        label: column of the labels; `auto` is the only one of ClassLabel, None for no labels.
        validation: the share that is held out, or the split for validation; `auto` is a split of a name in `VALIDATION`
            where there is one, else a share of 0.05.
        subset: of a data set that has several, its `configuration`.
    """
    parts = _load(path, subset)
    named = [(split, _rows(parts, split, path, "data.split"))]
    own = next((name for name in VALIDATION if name in parts and name != split), None)
    held = validation if validation != "auto" else (own or SHARE)
    if isinstance(held, str):
        named.append((held, _rows(parts, held, path, "data.validation")))
    column = find_images(named[0][1].features, image, path)
    labeled, notes = find_labels(named[0][1].features, label, path)
    for name, rows in named[1:]:
        for needed in (column, labeled):
            if needed is not None and needed not in rows.features:
                raise UserError(f"{path}: split {name} has no column {needed!r}; there are {', '.join(rows.features)}")
    labels, classes = ([None] * len(named), None) if labeled is None else read_labels(named, labeled, path)
    sets = []
    for (name, rows), numbers in zip(named, labels, strict=True):
        files = _files(path, name, rows, column, shape)
        sets.append(LazyImageSet(files, numbers, Source(classes, files.content, notes)))
    if isinstance(held, str):
        return sets[0], sets[1].noted([f"held out is the split {held}"])
    return hold_out(sets[0], held)


def _files(path: str, name: str, rows: Any, column: str, shape: Shape) -> ColumnFiles:
    from datasets import Image

    rows, names = rows.select_columns(column), [f"{name}[{i}]" for i in range(len(rows))]
    pixels = pixel_type(rows.features[column])
    if pixels is None:
        rows = rows.cast_column(column, Image(decode=False))
    rows = rows.with_format("arrow" if pixels is None else "numpy")
    return ColumnFiles(Path(path).expanduser(), names, shape, rows=rows, pixels=pixels)


def _rows(parts: Mapping[str, Any], asked: str, path: str, key: str) -> Any:
    """The rows of a split, of a part of one, or of several.

    Raises:
        UserError: when it is not there, or empty; it names the splits.
    """
    from datasets import ReadInstruction, concatenate_datasets

    try:
        ranges = ReadInstruction.from_spec(asked).to_absolute({name: len(rows) for name, rows in parts.items()})
    except (ValueError, AssertionError) as error:
        raise UserError(f"{path} has no split {asked!r} ({key}); there are {', '.join(parts)}") from error
    chosen = [parts[part.splitname].select(range(part.from_ or 0, part.to)) for part in ranges]
    rows = chosen[0] if len(chosen) == 1 else concatenate_datasets(chosen)
    if not len(rows):
        raise UserError(f"{path}: split {asked!r} ({key}) has no rows")
    return rows


def _load(path: str, subset: str | None) -> Mapping[str, Any]:
    """Name of each split -> its `datasets.Dataset`.

    Raises:
        UserError: when the package is missing, or the data set cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing_package("data=huggingface", "datasets", "datasets") from error
    place = Path(path).expanduser()
    there, single = place.exists(), place.is_file()
    if not there and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise UserError(f"{path} does not exist: expected a folder or a file of a data set, or OWNER/NAME on the hub")
    if single and place.suffix not in FORMATS:
        raise UserError(f"{path}: expected a folder, or a file that ends in {', '.join(FORMATS)}")
    try:
        with _quiet():
            if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
                loaded = datasets.load_from_disk(str(place))
            elif single:
                loaded = datasets.load_dataset(FORMATS[place.suffix], data_files={"train": str(place)})
            else:
                loaded = datasets.load_dataset(str(place) if there else path, subset)
    except Exception as error:  # damaged files and failing networks make it raise almost anything
        raise UserError(_explain(path, there, error)) from error
    return loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}


def _explain(path: str, there: bool, error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    reason = " ".join(str(error).split())[:400] or type(error).__name__
    if "onfig name" in reason or "BuilderConfig" in reason:
        return f"{path}: {reason}; set data.subset to one of them"
    if there:
        return f"{path} cannot be read as a data set: {reason}"
    return (
        f"{path} is no folder or file here, and cannot be loaded from the Hugging Face Hub: {reason}. Check the name; "
        f"without a network, get it elsewhere (hf download {path} --repo-type dataset --local-dir DIR), copy the "
        "folder here, and set data.path=DIR"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the retries of a missing network and, where nobody sees them move, the progress bars."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels, bars = [logger.level for logger in loggers], not datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
