"""Checkpoints: files of plain data with the resolved configuration inside."""

import pickle
from pathlib import Path
from typing import Any

import torch

from score_lightning.errors import UserError
from score_lightning.models import ScoreModel

AVERAGE = "average.model."


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint of this project, on the CPU; no code in the file is run.

    Raises:
        UserError: when the file is missing, damaged or not one of ours.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is truncated, damaged or no checkpoint of score_lightning: {reason}") from error
    if not isinstance(contents, dict) or "config" not in contents or "state_dict" not in contents:
        raise UserError(f"{path} is not a checkpoint of score_lightning: it has no configuration inside")
    return contents


def load(path: str | Path) -> ScoreModel:
    """The model of a checkpoint with its averaged weights, in evaluation mode; `.config` is its configuration.

    Raises:
        UserError: as `read`, and when the weights do not fit the configuration.
    """
    from score_lightning.build import build_model
    from score_lightning.config import change

    contents = read(path)
    model = build_model(change(contents["config"], str(path), []))
    load_average(model, contents, path)
    model.config = contents["config"]
    return model


def load_average(model: ScoreModel, contents: dict[str, Any], path: str | Path) -> None:
    """Puts a checkpoint's averaged weights into a model, and the model in evaluation mode.

    Raises:
        UserError: when the weights do not fit.
    """
    state = contents["state_dict"]
    average = {name.removeprefix(AVERAGE): value for name, value in state.items() if name.startswith(AVERAGE)}
    try:
        model.load_state_dict(average)
    except RuntimeError as error:
        first, *others = [line.strip() for line in str(error).splitlines()[1:]]
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"the weights in {path} do not fit its network: {first}{more}") from error
    model.eval().requires_grad_(False)
