"""Files: written whole or not at all, known by their SHA-256, and the folder for what is computed once."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path`, for a file or a folder that takes its place once all of it is written.

    Whatever goes wrong inside, `path` stays as it was and nothing is left beside it. A process that is killed leaves a
    hidden file named `.{path.name}.{process}`.

    Raises:
        OSError: when it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
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
    with atomic_file(path) as file:
        file.write(text.encode())


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
    return hashlib.sha256(listed.encode()).hexdigest()


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
