"""From a checkpoint to its model."""

import hashlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from score_lightning.config import Resolved, change
from score_lightning.errors import UserError
from score_lightning.experiment.build import build_model
from score_lightning.formats.native import WEIGHTS, load_weights, read
from score_lightning.generation.generator import Generator
from score_lightning.models import ScoreModel
from score_lightning.runtime.files import sha256_of_state
from score_lightning.runtime.processes import device_name

IMAGE_PARTS = (
    "sampler",
    "images",
    "labels",
    "schedule",
    "continuous",
    "prediction",
    "conditioning",
    "sigma_data",
    "net",
)


def load(path: str | Path) -> ScoreModel:
    """The model of a checkpoint with its averaged weights, in evaluation mode; `.config` is its configuration.

    Raises:
        UserError: as `read`, and when the weights do not fit the configuration.
    """
    return open_changed(path, [])[0]


def open_changed(path: str | Path, words: Sequence[str], weights: str = "ema") -> tuple[ScoreModel, Resolved, int]:
    """(model as `load` gives it, configuration, training steps) of a checkpoint, changed by key=value words.

    Args:
        path: of the checkpoint.
        words: that change its configuration.
        weights: `ema`, the averaged weights, or `raw`, those of the last step.

    Raises:
        UserError: as `load`, and when a word is wrong.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    contents = read(path)
    resolved = change(contents["config"], str(path), words)
    model = build_model(resolved)
    load_weights(model, contents, path, weights)
    model.config = resolved.plain()
    return model, resolved, contents.get("global_step", 0)


def image_key(model: ScoreModel, resolved: Resolved, generator: Generator, seed: int, device: torch.device) -> str:
    """All that generated images are a function of to the bit, as text; but for the program itself."""
    plain = resolved.plain()
    parts = {name: plain[name] for name in IMAGE_PARTS}
    machine = f"{device_name(device)} {torch.get_num_threads()} {torch.__version__} {version('score_lightning')}"
    known = hashlib.sha256()
    if generator.measurement is not None:
        shown = generator.measurement.project(
            torch.arange(1.0, 1 + math.prod(generator.shape)).view(1, *generator.shape)
        )
        known.update(generator.measurement.y.numpy().tobytes() + shown.numpy().tobytes())
    weights = sha256_of_state(model.state_dict())
    return f"{weights} {parts} {generator.label} {known.hexdigest()} {generator.batch_size} {seed} {machine}"
