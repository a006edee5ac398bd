"""Weights of published networks: located or downloaded, verified by SHA-256, and read without running any code."""

import pickle
import socket
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from score_lightning.errors import UserError
from score_lightning.runtime.files import sha256_of_file


def published(url: str, sha256: str, weights: str | None, name: str | None = None) -> Path:
    """The verified file of published weights: `weights`, else the one in torch's cache, else a download.

    Args:
        url: where it is published.
        sha256: of the file.
        weights: path of the file, if the user has it.
        name: of the file in torch's cache; the last part of the URL when None.

    Raises:
        UserError: when there is none, or its SHA-256 is another.
    """
    if weights is not None:
        return verify(Path(weights).expanduser(), sha256)
    path = Path(torch.hub.get_dir()) / "checkpoints" / (name or url.rsplit("/", 1)[1])
    if path.is_file():
        return verify(path, sha256)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), sha256)  # verifies before the file gets its name
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"the weights {path.name} cannot be downloaded ({error}). Put the file from {url} at {path}, give "
            "features.weights=FILE, or take features=classifier (the data's own labels) or features=random (untrained)"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def verify(path: Path, sha256: str) -> Path:
    """The path, after a check of its contents' SHA-256.

    Raises:
        UserError: when they have another one, or there is no such file.
    """
    actual = file_sha256(path)
    if actual != sha256:
        raise UserError(
            f"{path} is not the published file of weights: its SHA-256 is {actual[:16]}…, expected {sha256[:16]}…. "
            "Remove it to download it anew; other weights of TensorFlow's Inception go with features=random "
            "features.weights=FILE"
        )
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        UserError: when there is no such file.
    """
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read (features.weights): {error.strerror}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a PyTorch file of a state dict or of a TorchScript module; none of its code is run.

    Raises:
        UserError: when it is neither, is damaged, or holds anything that would need code.
    """
    try:
        state = _read_script(path) if _is_script(path) else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist (features.weights)") from error
    except Exception as error:  # foreign files make PyTorch's readers raise almost anything
        raise UserError(f"{path} is not a file of plain weights, or damaged: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a file of plain weights: expected tensors by name")
    return state


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_script(path: Path) -> bool:
    return zipfile.is_zipfile(path) and any(n.endswith("/constants.pkl") for n in zipfile.ZipFile(path).namelist())


def _read_script(path: Path) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive: its data.pkl names them, its folder data/ holds their bytes."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
        with archive.open(name) as file:
            module = _Reader(file, archive, name.removesuffix(".pkl")).load()
    return dict(_tensors(module, ""))


class _Module:
    """Stands in for every class that a TorchScript archive defines: its attributes, none of its code."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


STORAGES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "BoolStorage": torch.bool,
}  # fmt: skip


class _Reader(pickle.Unpickler):
    """An unpickler that accepts tensors, plain containers and `_Module`, and refuses everything else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle":
            return lambda values, *_: values  # lists of numbers
        raise pickle.UnpicklingError(f"{module}.{name} would need code")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        raw = bytearray(self._archive.read(f"{self._folder}/{key}"))
        return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if not isinstance(value, _Module):
        return []
    prefix = f"{name}." if name else ""
    return [tensor for key, part in value.attributes.items() for tensor in _tensors(part, prefix + key)]
