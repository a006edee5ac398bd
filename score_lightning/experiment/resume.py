"""Where a training starts: from scratch, from averaged weights, or from the newest checkpoint of its experiment."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from score_lightning import config
from score_lightning.config import to_yaml
from score_lightning.data.summary import summarize
from score_lightning.errors import UserError
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.formats import native
from score_lightning.runtime.nested import flatten
from score_lightning.runtime.startup import is_first
from score_lightning.training.stopping import wait_for_others

SHOWN = 30  # differing weights that are listed
SAME_RUN = (
    "seed", "images", "points", "labels", "condition", "data", "net", "schedule", "continuous", "prediction",
    "conditioning", "sigma_data", "objective", "init", "optimizer", "ema", "trainer.batch_size",
)  # fmt: skip
"""What makes a run the same run, which resume=auto continues: these sections and fields, but for the keys of `ANY_RUN`.

And the images, by the names and sizes of their files.
"""
ANY_RUN = ("data.path", "data.conditions", "labels.guidance", "condition.guidance", "net.map_scale", "net.heads_first")
"""Where data are stored, how samples are guided, how weights were before the first step or lie in published files."""


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Args:
        checkpoint: to resume from; None for a new training.
        folder: of the run; None for a new one.
        contents: of the checkpoint.
        done: whether all its steps are done.
    """

    checkpoint: Path | None = None
    folder: Path | None = None
    contents: dict[str, Any] | None = None
    done: bool = False


def resume_from(path: str) -> Start:
    """The start from a named checkpoint, in a new run folder.

    Raises:
        UserError: when it cannot be read.
    """
    return Start(Path(path), None, native.read(path))


def find_newest(experiment: TrainingExperiment) -> Start:
    """The start from the newest checkpoint of the same run, with the same settings and data; else a new training.

    A run that was killed before its first checkpoint is started again in its own folder.
    """
    resolved, c = experiment.resolved, experiment.config
    runs = Path(c.out) / Path(c.exp).stem
    for path in _newest_first(runs):
        try:
            contents = native.read(path)
            theirs = config.change(contents["config"], str(path), [])  # with settings that there were not yet
        except UserError as error:
            print(f"skipped: {error}")
            continue
        differences = _differences(theirs.plain(), resolved.plain()) or _other_data(contents, experiment)
        if differences:
            print(f"skipped: {path} has {differences[0]}")
            continue
        done = contents["global_step"] >= c.trainer.max_steps
        if not done:
            print(f"resuming from {path}")
        return Start(path, path.parent.parent, contents, done)
    text = to_yaml(resolved.plain())
    same = [path.parent for path in runs.glob("*/config.yaml") if path.read_text(encoding="utf-8") == text]
    empty = [folder for folder in same if not list(folder.glob("checkpoints/step_*.ckpt"))]
    return Start(folder=empty[0] if empty else None)


def _newest_first(folder: Path) -> list[Path]:
    """The checkpoints of an experiment's runs, after a training that still writes to the newest run has ended."""
    paths = _by_age(folder)
    if paths and is_first():
        wait_for_others(paths[0].parent.parent)
    return _by_age(folder) if paths else []


def _by_age(folder: Path) -> list[Path]:
    newest = {}
    for path in folder.glob("*/checkpoints/*.ckpt"):
        with suppress(FileNotFoundError):  # another training removes its older ones
            if path.name.startswith(("step_", "last")):
                newest[path.stat().st_ino] = (path.stat().st_mtime_ns, path)
    return [path for _, path in sorted(newest.values(), reverse=True)]


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings in which one run differs from another, as texts; none where they are the same run."""
    theirs, ours = (_identity(plain) for plain in (before, now))
    keys = sorted(theirs.keys() | ours.keys(), key=lambda key: (key != "seed", key))
    return [f"{key} {theirs.get(key)}, not {ours.get(key)}" for key in keys if theirs.get(key) != ours.get(key)]


def _identity(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings that make a run the same run, by dotted name."""
    of_run = lambda key: any(key == part or key.startswith(f"{part}.") for part in SAME_RUN)  # noqa: E731
    return {key: value for key, value in flatten(plain).items() if of_run(key) and key not in ANY_RUN}


def _other_data(contents: dict[str, Any], experiment: TrainingExperiment) -> list[str]:
    """In which way a checkpoint was trained on other images than those of an experiment; empty where on the same.

    Images are known by the names and sizes of their files, arrays by their contents, and where a checkpoint has
    neither, by their path.
    """
    before, now = contents.get("data") or {}, experiment.listed[0].source
    if now.content is None:
        return []  # the settings say which they are
    if before.get("content") is None:
        paths = [contents["config"]["data"].get("path"), experiment.config.data.get("path")]
        theirs, ours = (Path(str(path)).expanduser().resolve() for path in paths)
        return [] if theirs == ours else [f"data.path {paths[0]}, not {paths[1]}"]
    if before["content"] == now.content:
        return []
    return [f"other images than {experiment.config.data.get('path') or 'those given'}"]


def initialize(experiment: TrainingExperiment) -> None:
    """Gives a training the averaged weights of the checkpoint `init`, as its weights and as their average.

    Raises:
        UserError: listing the weights that differ in name or shape, or else the settings that would make another
            function of the same weights.
    """
    module, path = experiment.module, str(experiment.config.init)
    contents, prefix = native.read(path), native.WEIGHTS["ema"]
    state = contents["state_dict"]
    have = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    differing = native.compare(have, module.model.state_dict())
    if differing:
        more = [] if len(differing) <= SHOWN else [f"and {len(differing) - SHOWN} more"]
        raise UserError(
            f"init={path} holds another network, {len(differing)} of its weights differ:\n  "
            + "\n  ".join(differing[:SHOWN] + more)
        )
    networks = experiment.tables["net"]
    theirs, ours = (_function(plain, networks) for plain in (contents["config"], experiment.resolved.plain()))
    remedy = [f"{key}={json.dumps(value)}" for key, value in theirs.items() if value != ours.get(key)]
    if remedy:
        raise UserError(f"init={path}: its weights were trained as another function of them: add {' '.join(remedy)}")
    for model in (module.model, module.average.model):
        model.load_state_dict(have)


def _function(plain: dict[str, Any], networks: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """The settings that say which function weights are, by dotted name, with the defaults of the network."""
    settings = {"prediction": plain.get("prediction"), "conditioning": plain.get("conditioning")}
    settings |= {"images.range": plain.get("images", {}).get("range")} if not plain.get("points") else {}
    if settings["prediction"] == "edm":
        settings["sigma_data"] = plain.get("sigma_data")
    net = dict(plain.get("net", {}))
    parameters = signature(networks[net["name"]]).parameters if net.get("name") in networks else {}
    net = {name: p.default for name, p in parameters.items()} | net
    given = {"name", "dropout", "image_size", "image_channels", "levels", "dim", "classes", "augmentation"}
    given |= {"condition_channels", "map_scale", "heads_first"}  # the latter two of ANY_RUN
    return settings | {
        f"net.{key}": list(value) if isinstance(value, tuple) else value
        for key, value in net.items()
        if key not in given
    }


def check_resumed(experiment: TrainingExperiment, path: Path, contents: dict[str, Any]) -> None:
    """Refuses a checkpoint that a run cannot be resumed from.

    Raises:
        UserError: with the remedy.
    """
    c, module = experiment.config, experiment.module
    if "optimizer_states" not in contents:
        raise UserError(f"{path} holds weights without the state of their training: start from it with init={path}")
    _check_order_of_classes(experiment, path, contents)
    step = contents.get("global_step", 0)
    if step >= c.trainer.max_steps:
        raise UserError(f"{path} has done {step} steps: trainer.max_steps must be more, got {c.trainer.max_steps}")
    before = contents["config"].get("trainer", {}).get("accumulate", c.trainer.accumulate)
    if before != c.trainer.accumulate:
        raise UserError(f"{path} accumulates {before} batches: resume with trainer.accumulate={before}")
    have = {name: value.shape for name, value in contents["state_dict"].items()}
    need = {name: value.shape for name, value in module.state_dict().items()}
    differing = sorted(name for name in have.keys() | need.keys() if have.get(name) != need.get(name))
    if differing:
        raise UserError(
            f"{path} belongs to another network: {len(differing)} weights differ in name or shape, the first "
            f"{differing[0]}. Leave exp and net as they were, or leave out exp"
        )
    muon = len(contents["optimizer_states"][0]["param_groups"]) > 1
    if muon != (c.optimizer.muon is not None):
        raise UserError(
            f"{path} was trained {'with' if muon else 'without'} Muon; the two optimizers' states differ: leave "
            f"optimizer.muon as it was, or start anew from the weights with init={path}"
        )
    changed = _differences(config.change(contents["config"], str(path), []).plain(), experiment.resolved.plain())
    changed += _other_data(contents, experiment)
    if changed and is_first():
        print(f"resuming with other settings than {path}: it has {'; '.join(changed)}")


def _check_order_of_classes(experiment: TrainingExperiment, path: Path, contents: dict[str, Any]) -> None:
    """Refuses images whose classes have other numbers than those that a model was conditioned on."""
    ours = experiment.listed[0].source.classes
    if not experiment.config.labels.classes or ours is None:
        return
    # before checkpoints held names, folders were in the order of text, those that are numbers, too
    before = sorted(ours) if all(map(str.isdecimal, ours)) else ours
    theirs = tuple((contents.get("data") or {}).get("classes") or before)
    if theirs != ours:
        raise UserError(f"{path} numbers the classes {summarize(theirs)}, the images {summarize(ours)}: start anew")
