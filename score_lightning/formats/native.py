"""Checkpoints of this project: files of plain data with the resolved configuration inside."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import score_lightning
from score_lightning import formats
from score_lightning.errors import UserError
from score_lightning.formats import files
from score_lightning.runtime.files import atomic_file

WEIGHTS = {"ema": "average.model.", "raw": "model."}  # which weights, and the prefix of their names
KNOWN = ("data", "run", "imported")  # what checkpoints hold beside weights and configuration, if they do
EXPORTED = ("model.safetensors", "config.json")
"""The files of an exported checkpoint: averaged weights, and the configuration."""


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint of this project, on the CPU; no code in the file is run.

    Raises:
        UserError: when the file is missing, damaged or not one of ours.
    """
    path = Path(path).expanduser()
    if (path / EXPORTED[0]).is_file():
        return _read_exported(path)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder without {EXPORTED[0]}: expected a checkpoint or the folder of an exported one. "
            "Of a folder of diffusers, import_weights makes a checkpoint"
        )
    contents = files.load(path)
    parts = [contents.get(key) for key in ("config", "state_dict")] if isinstance(contents, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(
            f"{path} is not a checkpoint of score_lightning: it has no configuration inside{_advice(contents, path)}"
        )
    if not all(isinstance(value, Tensor) for value in contents["state_dict"].values()):
        raise UserError(f"{path} is damaged: not all of its weights are numbers")
    return contents


def _advice(contents: Any, path: Path) -> str:
    """What a file without a configuration is, or what to do with it."""
    try:
        what = formats.origin(files.unpack(contents, path).weights)
    except UserError:  # nothing that could be imported
        return ""
    if what and "score_lightning trained" in what:
        return "; its weights are of this project: give the checkpoint that they were taken from"
    return f"; it {what}" if what else ". If its weights were published elsewhere, import_weights makes one of them"


def write(
    path: Path, config: dict[str, Any], weights: Mapping[str, Mapping[str, Tensor]], step: int, imported: dict[str, str]
) -> None:
    """Writes a checkpoint of weights that were trained elsewhere, whole or not at all.

    Args:
        path: of the checkpoint.
        config: the resolved configuration.
        weights: `ema` and `raw`, each the entries of a `ScoreModel`.
        step: of the training.
        imported: the format, file and hash that they come from.

    Raises:
        UserError: when it cannot be written.
    """
    state = {WEIGHTS[kind] + name: value for kind, values in weights.items() for name, value in values.items()}
    contents = {"config": config, "state_dict": state, "global_step": step, "imported": imported}
    try:
        with atomic_file(path) as file:
            torch.save(contents, file)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def write_exported(
    folder: Path, weights: Mapping[str, Tensor], config: dict[str, Any], step: int, known: Mapping[str, Any]
) -> None:
    """Writes a model's weights as safetensors, with config.json; `read` reads the folder.

    Args:
        folder: which is made.
        weights: of the model.
        config: the resolved configuration.
        step: of the training.
        known: the entries `data`, `run` and `imported` of a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / EXPORTED[0])
    described = {"config": config, **known, "global_step": step, "score_lightning": score_lightning.__version__}
    (folder / EXPORTED[1]).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _read_exported(folder: Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / EXPORTED[1]).read_text(encoding="utf-8"))
        weights = load_file(folder / EXPORTED[0])
        prefixed = {prefix + name: value for prefix in WEIGHTS.values() for name, value in weights.items()}
        config, step = dict(described["config"]), int(described["global_step"])
        known = {name: described.get(name) for name in KNOWN}
        return {"config": config, **known, "state_dict": prefixed, "global_step": step}
    except Exception as error:  # damaged files make their readers raise almost anything
        raise UserError(f"{folder} is no exported checkpoint, or damaged: {error}") from error


def run_folder_of(path: str | Path) -> Path:
    """The run folder that a checkpoint lies in, else its parent folder; for an exported one the folder itself."""
    if Path(path).expanduser().is_dir():
        return Path(path).expanduser()
    folder = Path(path).expanduser().parent
    return folder.parent if folder.name == "checkpoints" else folder


def output_folder_of(path: str | Path) -> Path:
    """Where images and metrics of a checkpoint are written by default: its run folder, for an exported one here.

    What lies in an exported folder is what its model card is of.
    """
    return Path() if Path(path).expanduser().is_dir() else run_folder_of(path)


def load_weights(model: nn.Module, contents: dict[str, Any], path: str | Path, weights: str = "ema") -> None:
    """Puts a checkpoint's averaged or raw weights into a model, and the model in evaluation mode.

    Raises:
        UserError: when the weights do not fit.
    """
    prefix = WEIGHTS[weights]
    state = {name.removeprefix(prefix): v for name, v in contents["state_dict"].items() if name.startswith(prefix)}
    differing = compare(state, model.state_dict())
    if differing:
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise UserError(f"the weights in {path} do not fit its network: {differing[0]}{more}")
    model.load_state_dict(state)
    model.eval().requires_grad_(False)


def compare(have: Mapping[str, Tensor], need: Mapping[str, Tensor]) -> list[str]:
    """The entries whose names or shapes differ between a file and a network, one line each."""
    file, network = ({name: tuple(value.shape) for name, value in state.items()} for state in (have, need))
    return [
        f"{name}: {file.get(name, 'none')} in the file, {network.get(name, 'none')} in the network"
        for name in sorted(file.keys() | network.keys())
        if file.get(name) != network.get(name)
    ]
