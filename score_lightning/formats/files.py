"""Published checkpoint files: read without running code, and unpacked to weights, average and step."""

import codecs
import json
import pickle
import pickletools
import re
import warnings
import zipfile
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

# NumPy's numbers and arrays, as optimizers of 2020 and torch-fidelity hold them: their constructors, under the names of
# then and of now
NUMBERS: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(name)) for name in ("f8", "f4", "i8", "u1"))]
for core in ("core", "_core"):
    NUMBERS += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar")]
    NUMBERS += [(np.zeros(1).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct")]
NUMBERS += [codecs.encode]

SNAPSHOT = (
    'a snapshot of NVlabs/edm, say, inside its folder: python -c "import pickle, torch; '
    "torch.save(pickle.load(open('SNAPSHOT.pkl', 'rb'))['ema'].state_dict(), 'edm.pt')\""
)
SAVED = (
    'a checkpoint of Lightning, say: python -c "import torch; '
    "torch.save(torch.load('FILE', weights_only=False)['state_dict'], 'weights.pt')\""
)

WEIGHTS = ("model", "state_dict", "net", "model_state_dict")
AVERAGES = ("ema", "ema_model", "model_ema", "ema_state_dict")
"""The names of weights and of their average in files that hold more than those."""


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
    """The contents of a file, or of all the files that an index of shards names; no code in them is run.

    Raises:
        UserError: when one is missing, damaged, holds code, or is no checkpoint.
    """
    if path.suffix == ".json":
        return Published(_join_shards(path))
    count = re.search(r"-\d{5}-of-(\d{5})\.", path.name)
    if count and int(count[1]) > 1:
        raise UserError(
            f"{path} holds a part of the weights, one of {int(count[1])}: give the index beside it, ….index.json, "
            "or the folder"
        )
    return unpack(load(path), path)


def load(path: Path) -> Any:
    """What was saved in a file, on the CPU; no code in it is run.

    Raises:
        UserError: when it is missing, damaged, holds code, or is no checkpoint.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other pickle protocols, whose failure is reported below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and foreign files make the readers raise almost anything
        if holds_code(path, error):
            raise UserError(
                f"{path} is a pickle that would run code when it is read, so it was not read. Where you trust it, turn "
                "it into a plain state dict with the project that wrote it; "
                + (SAVED if zipfile.is_zipfile(path) else SNAPSHOT)
            ) from error
        reason = (
            "its contents make no sense" if isinstance(error, pickle.UnpicklingError) else str(error).split("\n")[0]
        )
        raise UserError(f"{path} is truncated, damaged or no checkpoint: {reason or type(error).__name__}") from error


def _join_shards(index: Path) -> dict[str, Tensor]:
    """The weights that an index finds in several files beside it: {"weight_map": {entry: file}}.

    Raises:
        UserError: when it is no such index, or a file is missing or cannot be read.
    """
    if not index.is_file():
        raise UserError(f"there is no checkpoint {index}")
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        shards = sorted({index.parent / Path(name).name for name in places.values()})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{index} is no index of files of weights: it has no weight_map of their names") from error
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(
            f"{index} names {len(shards)} files of weights beside it, {len(missing)} of them missing: "
            + ", ".join(missing[:5])
        )
    return {name: value for shard in shards for name, value in unpack(load(shard), shard).weights.items()}


def holds_code(path: Path, error: Exception) -> bool:
    """Whether a file failed to be read because it names functions or classes to be called; none is called here."""
    if "GLOBAL" in str(error):
        return True
    with path.open("rb") as file:
        try:
            return file.peek(1)[:1] == b"\x80" and any("GLOBAL" in code.name for code, _, _ in pickletools.genops(file))
        except Exception:  # not a pickle
            return False


def unpack(contents: Any, path: Path) -> Published:
    """Weights, average and step, recognized by the structure of what was saved.

    Raises:
        UserError: naming what a file holds that has no weights.
    """
    # NCSN, NCSNv2 and DDIM: [weights, optimizer, epoch, step, average], those of NCSN the first two only
    if isinstance(contents, Sequence) and contents and _is_state(contents[0]):
        step = _step(contents[3]) if len(contents) > 3 else 0
        average = contents[4] if len(contents) > 4 and _is_state(contents[4]) else None
        return Published(_plain(contents[0]), average and _plain(average), step)
    if _is_state(contents):
        return Published(_plain(contents))
    if isinstance(contents, Mapping):
        # score_sde_pytorch: the average lies in a list; other trainers: under a name
        averages = [average for average in (_average(contents.get(key)) for key in AVERAGES) if average]
        for key in WEIGHTS:
            if _is_state(contents.get(key)):
                return Published(_plain(contents[key]), next(iter(averages), None), _step(contents.get("step")))
        if averages and isinstance(averages[0], dict):
            return Published(averages[0])
    held = f"; it has {', '.join(map(str, list(contents)[:8])) or 'nothing'}" if isinstance(contents, Mapping) else ""
    raise UserError(
        f"{path} holds no weights: expected a state dict, or one with its optimizer, average and step{held}"
    )


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
