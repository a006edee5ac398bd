"""Where a training begins: from nothing, from averaged weights, or from the newest checkpoint of its experiment."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import config
from score_lightning.errors import UserError
from score_lightning.runtime.nested import flatten
from score_lightning.runtime.startup import is_first

if TYPE_CHECKING:
    from score_lightning.config.schema import Config

SHOWN = 30  # differing weights that are listed


def find_newest(own: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """resume and folder of the newest checkpoint of an experiment that can be read; none where none can.

    Raises:
        UserError: without an experiment.
    """
    if "exp" not in own:
        raise UserError(f"resume=auto needs exp=NAME; experiments: {', '.join(config.experiments())}")
    from score_lightning.formats import native as checkpoint

    resolved = config.load(words, own["exp"])
    c = resolved.config
    for path in _newest_first(Path(c.out) / Path(c.exp).stem):
        try:
            contents = checkpoint.read(path)
        except UserError as error:
            print(f"passed over: {error}")
            continue
        step, differing = contents["global_step"], _differing(contents["config"], resolved.plain())
        if differing:
            print(f"passed over: {path} has {differing}")
            continue
        if step >= c.trainer.max_steps:
            drawn = c.figure is None or (path.parent.parent / "figure.png").exists()
            return {"done": path} if drawn else {"resume": None, "draw": path}
        print(f"going on from {path}")
        return {"resume": str(path), "folder": path.parent.parent}
    # one that was killed before its first checkpoint begins again in its own folder
    choose_precision(c)
    text = config.to_yaml(resolved.plain())
    begun = [path.parent for path in (Path(c.out) / Path(c.exp).stem).glob("*/config.yaml") if path.read_text() == text]
    empty = [folder for folder in begun if not list(folder.glob("checkpoints/step_*.ckpt"))]
    return {"resume": None, "folder": empty[0] if empty else None}


def _newest_first(folder: Path) -> list[Path]:
    """The checkpoints of an experiment's runs, after a training that still writes to the newest run has ended."""
    from score_lightning.training.checkpointing import wait_for_others

    for last in (False, True):
        found = {}
        for path in folder.glob("*/checkpoints/*.ckpt"):
            with suppress(FileNotFoundError):  # another training keeps its last ones only
                if path.name.startswith(("step_", "last")):
                    found[path.stat().st_ino] = (path.stat().st_mtime_ns, path)
        paths = [path for _, path in sorted(found.values(), reverse=True)]
        if last or not paths:
            break
        if is_first():
            wait_for_others(paths[0].parent.parent)
    return paths


OF_A_RUN = (
    "seed", "points", "images", "labels", "data", "net", "schedule", "continuous", "prediction", "conditioning",
    "sigma_data", "objective", "optimizer", "ema",
)  # fmt: skip
"""Settings that make another run; where the data lie, and how labels are exaggerated in samples, are none of them."""


def _differing(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting in which a run differs from another one, in words; nothing where they are the same."""
    sides = [flatten({key: plain.get(key) for key in OF_A_RUN}) for plain in (before, now)]
    for key in sorted(sides[0].keys() | sides[1].keys(), key=lambda key: (key != "seed", key)):
        theirs, ours = (side.get(key) for side in sides)
        if theirs != ours and key not in ("data.path", "labels.guidance"):
            return f"{key} {theirs}, not {ours}"
    return ""


def read_checkpoint(path: str | None) -> dict[str, Any] | None:
    """The contents of a checkpoint, if one is named."""
    if path is None:
        return None
    from score_lightning.formats import native as checkpoint

    return checkpoint.read(path)


def start_from(resolved: config.Resolved, module: Any) -> None:
    """Gives a module the averaged weights of the checkpoint `init`, as its own and as their average.

    Raises:
        UserError: listing the weights that differ in name or shape, or else the settings that would make another
            function of the same weights.
    """
    from score_lightning.formats import native as checkpoint

    path = str(resolved.config.init)
    contents, prefix = checkpoint.read(path), checkpoint.WEIGHTS["ema"]
    state = contents["state_dict"]
    have = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    differing = checkpoint.compare(have, module.model.state_dict())
    if differing:
        more = [] if len(differing) <= SHOWN else [f"and {len(differing) - SHOWN} more"]
        raise UserError(
            f"init={path} holds another network, {len(differing)} of its weights differ:\n  "
            + "\n  ".join(differing[:SHOWN] + more)
        )
    theirs, ours = (_function(plain) for plain in (contents["config"], resolved.plain()))
    words = [f"{key}={json.dumps(value)}" for key, value in theirs.items() if value != ours.get(key)]
    if words:
        raise UserError(f"init={path}: its weights were trained as another function of them: add {' '.join(words)}")
    for model in (module.model, module.average.model):
        model.load_state_dict(have)


def _function(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings that say which function weights are, by dotted name, those of the network that it has by default."""
    from inspect import signature

    from score_lightning.config.registry import TABLES

    settings = {"prediction": plain.get("prediction"), "conditioning": plain.get("conditioning")}
    settings |= {"images.range": plain.get("images", {}).get("range")} if not plain.get("points") else {}
    if settings["prediction"] == "edm":
        settings["sigma_data"] = plain.get("sigma_data")
    net = dict(plain.get("net", {}))
    parameters = signature(TABLES["net"][net["name"]]).parameters if net.get("name") in TABLES["net"] else {}
    net = {name: p.default for name, p in parameters.items()} | net
    told = ("name", "dropout", "image_size", "image_channels", "levels", "dim", "classes", "augmentation")
    return settings | {
        f"net.{key}": list(value) if isinstance(value, tuple) else value
        for key, value in net.items()
        if key not in told
    }


def check_resumed(c: "Config", module: Any, path: str, resumed: dict[str, Any]) -> None:
    """Refuses a checkpoint that the run cannot go on from."""
    if "optimizer_states" not in resumed:
        raise UserError(f"{path} holds weights without the state of their training: start from it with init={path}")
    step = resumed.get("global_step", 0)
    if step >= c.trainer.max_steps:
        raise UserError(f"{path} has done {step} steps: trainer.max_steps must be more, got {c.trainer.max_steps}")
    before = resumed["config"].get("trainer", {}).get("accumulate", c.trainer.accumulate)
    if before != c.trainer.accumulate:
        raise UserError(f"{path} accumulates {before} batches: resume with trainer.accumulate={before}")
    have = {name: value.shape for name, value in resumed["state_dict"].items()}
    need = {name: value.shape for name, value in module.state_dict().items()}
    differing = sorted(name for name in have.keys() | need.keys() if have.get(name) != need.get(name))
    if differing:
        raise UserError(
            f"{path} belongs to another network: {len(differing)} weights differ in name or shape, the first "
            f"{differing[0]}. Leave exp and net as they were, or leave out exp"
        )


def choose_precision(c: "Config") -> None:
    """In the place of `auto` puts bfloat16 where the hardware multiplies it, float32 elsewhere, and says so."""
    if c.trainer.precision != "auto":
        return
    import torch

    from score_lightning.runtime.processes import bf16_units, find_device

    device = torch.device("cpu") if c.trainer.accelerator == "cpu" else find_device("auto")
    unit = bf16_units(device)
    c.trainer.precision = "bf16-mixed" if unit else "32-true"
    print(f"precision: {c.trainer.precision} ({device.type} has {unit or 'no units for bfloat16'})")
