"""Files: written whole or not at all, known by their SHA-256, and the folder for what is computed once."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from score_lightning.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def output_folder(folder: Path, names: Iterable[str] = ()) -> Iterator[Path]:
    """A folder that takes files of these names, which is tried before the work whose results they are.

    It is made unless it is there. Where what follows fails, the folders that were made are removed if they are empty.

    Raises:
        UserError: when the folder cannot be made, or a file in it cannot be written.
    """
    missing: list[Path] = []
    try:
        _try_to_write(folder, names, missing)
        yield folder
    except BaseException:
        for path in missing:
            with suppress(OSError):  # others may write there
                path.rmdir()
        raise


def _try_to_write(folder: Path, names: Iterable[str], missing: list[Path]) -> None:
    """Makes a folder, adding what was missing to a list, and writes a file without a name in it."""
    path = folder
    try:
        missing += [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in names):
            if path.exists():
                path.open("ab").close()  # no folder, and not read-only; it stays as it is
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"text")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; change out=") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file, or a folder, in failures to write it that name none, as of a full disk, or its `atomic_path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and str(error.filename) in ("None", str(_partial(path))):
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path`, for a file or a folder that takes its place once all of it is written.

    Whatever goes wrong inside, `path` stays as it was and nothing is left beside it. A process that is killed leaves a
    hidden file named `.{path.name}.{process}`.

    Raises:
        OSError: when it cannot be written.
    """
    partial = _partial(path)
    _remove(partial)  # of a killed process with the same number: it may be another name of a whole file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file, open for writing, that takes the place of `path` once all of it is on the disk.

    Raises:
        OSError: when it cannot be written; `path` stays as it was.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with naming(path), atomic_file(path) as file:
        file.write(text.encode(errors="surrogateescape"))  # names that are no text


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # mostly there is nothing: it has moved to its place
        path.unlink()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(path: Path) -> str:
    """SHA-256 of the names and hashes of all files in a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = "".join(f"{file.relative_to(path)} {sha256_of_file(file)}\n" for file in files)
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def sha256_of_state(state: "Mapping[str, Tensor]") -> str:
    """SHA-256 of a state dict: names, dtypes, shapes and numbers, in its order."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """$SCORE_LIGHTNING_CACHE, else score_lightning in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "score_lightning"
    return Path(os.environ.get("SCORE_LIGHTNING_CACHE", default)).expanduser()
