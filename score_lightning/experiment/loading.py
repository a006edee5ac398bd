"""From a checkpoint to its model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import score_lightning
from score_lightning.config import Parts, change
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.formats.native import WEIGHTS, load_weights, read
from score_lightning.generation.generator import Generator
from score_lightning.models import ScoreModel
from score_lightning.runtime.files import sha256_of_state
from score_lightning.runtime.processes import device_name

IMAGE_PARTS = (
    "sampler",
    "images",
    "labels",
    "condition",
    "schedule",
    "continuous",
    "prediction",
    "conditioning",
    "sigma_data",
    "net",
)


def load(path: str | Path, parts: Parts | None = None) -> ScoreModel:
    """The model of a checkpoint with its averaged weights, in evaluation mode; `.config` is its configuration.

    Args:
        path: of the checkpoint.
        parts: of the user's own that it was trained with. It holds their names only, and nothing is imported by name.

    Raises:
        UserError: as `read`, when one of them is missing, and when the weights do not fit the configuration.
    """
    return open_checkpoint(path, [], parts=parts).experiment.model


@dataclass(frozen=True)
class Opened:
    """What a checkpoint holds.

    Args:
        experiment: with its weights in the model, in evaluation mode.
        step: training steps.
        data: what is known of the images it was trained on (see `Source.plain`).
        run: the record of its training (see `RunRecord`); empty where there is none.
        imported: where weights that were not trained here come from.
    """

    experiment: Experiment
    step: int
    data: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)


def open_checkpoint(
    path: str | Path, overrides: Sequence[str], weights: str = "ema", parts: Parts | None = None
) -> Opened:
    """A checkpoint's experiment, its configuration changed by key=value overrides, and its model with weights.

    Args:
        path: of the checkpoint.
        overrides: that change its configuration.
        weights: `ema`, the averaged weights, or `raw`, those of the last step.
        parts: of the user's own.

    Raises:
        UserError: as `load`, and when an override is wrong.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    contents = read(path)
    known = contents.get("data") or {}
    resolved = change(contents["config"], str(path), overrides)
    experiment = Experiment(resolved, classes=known.get("classes"), parts=parts)
    load_weights(experiment.model, contents, path, weights)
    experiment.model.config = experiment.resolved.plain()
    experiment.guide = _open_guide(experiment, known)
    more = {name: contents.get(name) or {} for name in ("run", "imported")}
    return Opened(experiment, contents.get("global_step", 0), known, **more)


def _open_guide(experiment: Experiment, data: dict[str, Any]) -> ScoreModel | None:
    """The guide that the configuration names.

    Raises:
        UserError: when it does not fit the model, is not of the same data, or there is a weight without a guide.
    """
    c = experiment.config
    if (c.guide is None) != (c.guidance == 0):
        given, missing = (
            ("guidance=W", "guide=CKPT") if c.guide is None else (f"guide={c.guide}", "guidance=W, such as 1")
        )
        labels = "; for labels there is labels.guidance" if c.guide is None else ""
        raise UserError(f"{given} needs {missing}{labels}")
    if c.guide is None:
        return None
    opened = open_checkpoint(c.guide, [], parts=experiment.parts)
    guide, plain = opened.experiment, experiment.resolved.plain()
    if guide.shape != experiment.shape:
        raise UserError(f"guide={c.guide} draws data of shape {guide.shape}, the model {experiment.shape}")
    for key, which in [
        ("schedule", "other noise levels"),
        ("continuous", "other noise levels"),
        ("labels", "other labels"),
        ("condition", "another condition"),
    ]:
        mine, its = (_trained(part[key]) for part in (plain, guide.resolved.plain()))
        if mine != its:
            raise UserError(
                f"guide={c.guide} has {which}, {its}, than the model, {mine}: train it with {key} of the model"
            )
    if guide.model.condition_channels != experiment.model.condition_channels:
        raise UserError(
            f"guide={c.guide} marks what is known of pictures otherwise: train it with the same condition.drop"
        )
    if data.get("content") != opened.data.get("content") or _trained(plain["data"]) != _trained(
        guide.resolved.plain()["data"]
    ):
        raise UserError(f"guide={c.guide} was trained on other data than the model")
    if opened.experiment.config.images.range != c.images.range:
        raise UserError(f"guide={c.guide} has another range of pixels: train it with images.range={c.images.range}")
    return guide.model


def guidance_settings(experiment: Experiment) -> dict[str, Any]:
    """What metrics.json says of guidance; empty without any."""
    c, guide = experiment.config, experiment.guide
    if guide is None and c.labels.guidance == 0:
        return {}
    given = {} if guide is None else {"guide": c.guide, "guide_sha256": sha256_of_state(guide.state_dict())}
    return {**given, "guidance": c.guidance, "guidance_interval": list(c.guidance_interval)}


def condition_settings(experiment: Experiment) -> dict[str, Any]:
    """What metrics.json says of the pictures that images are conditioned on; empty without any."""
    return {"condition": dict(experiment.config.condition)} if experiment.condition is not None else {}


def _trained(part: Any) -> Any:
    """A section without what says where data are stored and how samples are guided."""
    return {k: v for k, v in part.items() if k not in ("path", "guidance", "drop")} if isinstance(part, dict) else part


def image_key(experiment: Experiment, generator: Generator, seed: int, device: torch.device) -> str:
    """All that generated images are a function of to the bit, as text; but for the program itself."""
    plain = experiment.resolved.plain()
    parts = {name: plain[name] for name in IMAGE_PARTS}
    machine = f"{device_name(device)} {torch.get_num_threads()} {torch.__version__} {score_lightning.__version__}"
    known = hashlib.sha256(b"" if generator.conditions is None else generator.conditions.key.encode())
    for part in generator.measurement.fingerprint(generator.shape) if generator.measurement is not None else ():
        known.update(part)
    weights, images = (
        sha256_of_state(experiment.model.state_dict()),
        f"{generator.label} {known.hexdigest()} {generator.sampler.strength} {generator.batch_size}",
    )
    guide = (
        "" if generator.guide is None else f"{sha256_of_state(generator.guide.state_dict())} {generator.autoguidance}"
    )
    return f"{weights} {guide} {generator.guidance} {parts} {images} {seed} {machine}"
