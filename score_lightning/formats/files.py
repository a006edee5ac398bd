"""Published checkpoint files: read without running code, and unpacked to weights, average and step."""

import codecs
import pickle
import pickletools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from score_lightning.errors import UserError

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of compiled networks

# numbers that optimizers of 2020 hold as NumPy's: constructors of numbers, under the names of then and of now
NUMBERS: list[Any] = [np.dtype, type(np.dtype("float64")), type(np.dtype("float32")), type(np.dtype("int64"))]
NUMBERS += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
NUMBERS += [codecs.encode]

REMEDY = (
    "Where you trust it, turn it into a plain state dict with the project that wrote it; a snapshot of NVlabs/edm, "
    'say, inside its folder: python -c "import pickle, torch; '
    "torch.save(pickle.load(open('SNAPSHOT.pkl', 'rb'))['ema'].state_dict(), 'edm.pt')\""
)


@dataclass(frozen=True)
class Published:
    """What a published file holds.

    Args:
        weights: name -> numbers of the network.
        average: their exponential moving average: by name, or in the order of the trainable weights; None without.
        step: of the training, 0 where the file does not say.
    """

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | list[Tensor] | None = None
    step: int = 0


def read(path: Path) -> Published:
    """The contents of a file; no code in it is run.

    Raises:
        UserError: when it is missing, damaged, holds code, or is no checkpoint.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        if path.suffix == ".safetensors":
            return Published(_plain(load_file(path)))
        with torch.serialization.safe_globals(NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other pickle protocols, whose failure is reported below
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and foreign files make the readers raise almost anything
        if holds_code(path, error):
            raise UserError(
                f"{path} is a pickle that would run code when it is read, so it was not read. {REMEDY}"
            ) from error
        reason = (
            "its contents make no sense" if isinstance(error, pickle.UnpicklingError) else str(error).split("\n")[0]
        )
        raise UserError(f"{path} is truncated, damaged or no checkpoint: {reason or type(error).__name__}") from error
    return _unpack(contents, path)


def holds_code(path: Path, error: Exception) -> bool:
    """Whether a file failed to be read because it names functions or classes to be called; none is called here."""
    if "GLOBAL" in str(error):
        return True
    with path.open("rb") as file:
        try:
            return file.peek(1)[:1] == b"\x80" and any("GLOBAL" in code.name for code, _, _ in pickletools.genops(file))
        except Exception:  # not a pickle
            return False


def _unpack(contents: Any, path: Path) -> Published:
    """Weights, average and step, recognized by the structure of what was saved."""
    # NCSN, NCSNv2 and DDIM: [weights, optimizer, epoch, step, average], those of NCSN the first two only
    if isinstance(contents, Sequence) and contents and _is_state(contents[0]):
        step = _step(contents[3]) if len(contents) > 3 else 0
        average = contents[4] if len(contents) > 4 and _is_state(contents[4]) else None
        return Published(_plain(contents[0]), average and _plain(average), step)
    if _is_state(contents):
        return Published(_plain(contents))
    if isinstance(contents, Mapping):
        # score_sde_pytorch: the average lies in a list; other trainers: under a name
        for key in ("model", "state_dict", "net"):
            if _is_state(contents.get(key)):
                return Published(_plain(contents[key]), _average(contents.get("ema")), _step(contents.get("step")))
        if _is_state(contents.get("ema")):
            return Published(_plain(contents["ema"]))
    raise UserError(f"{path} holds no weights: expected a state dict, or one with its optimizer, average and step")


def _step(step: Any) -> int:
    return int(step) if isinstance(step, int | np.integer) else 0


def _average(ema: Any) -> dict[str, Tensor] | list[Tensor] | None:
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if isinstance(shadow, list) and all(isinstance(value, Tensor) for value in shadow):
        return [value.detach() for value in shadow]
    return _plain(ema) if _is_state(ema) else None


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items())
    )


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefixes that wrappers of the network add."""
    plain = {}
    for name, value in state.items():
        while name.startswith(PREFIXES):
            name = name.partition(".")[2]
        plain[name] = value.detach()
    return plain
