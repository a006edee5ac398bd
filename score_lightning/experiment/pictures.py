"""From a configuration to the pictures that images are conditioned on, and checks of what goes with them."""

from collections.abc import Mapping
from typing import Any

from score_lightning.conditional import Condition
from score_lightning.config import Config, Parts, Resolved
from score_lightning.config.registry import build_part
from score_lightning.data.sources import Split
from score_lightning.errors import UserError, mistakes_in


def build_condition(resolved: Resolved, shape: tuple[int, ...], tables: Parts) -> Condition | None:
    """The condition of a configuration, for images of a shape (C, H, W); None without.

    Raises:
        UserError: when it does not suit the images or the data.
    """
    c = resolved.config
    check_pairs(c)
    if not c.condition:
        return None
    if c.points:
        raise UserError("condition is of images; the data are points")
    condition: Condition = build_part(resolved, "condition", {}, tables)
    with mistakes_in(f"condition {c.condition['name']}"):
        condition.check(shape)
    return condition


def check_guidance(config: Config, condition: Condition | None) -> None:
    """Refuses guidance away from what a model was never trained without.

    Raises:
        UserError: with the remedy.
    """
    if condition is None:
        return
    if condition.guidance != 0 and condition.drop == 0:
        raise UserError(
            f"condition.guidance={condition.guidance:g} needs a model that was also trained without pictures: train "
            "with condition.drop=0.1"
        )
    labels = config.labels
    if labels.guidance != 0 and labels.drop <= condition.drop:
        raise UserError(
            f"labels.guidance={labels.guidance:g}: this model lost labels only together with pictures; take "
            f"condition.guidance={labels.guidance:g}, or train with labels.drop above condition.drop={condition.drop:g}"
        )


def check_sample(config: Config, condition: Condition | None, options: Mapping[str, Any]) -> None:
    """Refuses pictures that a model does not take, none for one that needs some, and tasks that it is not made for.

    Raises:
        UserError: with the remedy.
    """
    name, task = config.condition.get("name"), options.get("task")
    if condition is None:
        for key in ("image", "mask"):
            if task is None and key in options:
                raise UserError(
                    f"{key}=… goes with task=…, or with a model that is conditioned on pictures, which this one is not"
                )
        return
    if task is not None and task != name:
        keeps = f"; task={name} makes samples keep its picture exactly" if name != "pairs" else ""
        raise UserError(f"task={task}: this model is conditioned on pictures itself (condition={name}){keeps}")
    for key in ("noise", "method"):
        if key in options and options[key] not in (0.0, "projection"):
            raise UserError(f"{key}={options[key]}: a model with a condition keeps its picture by projection alone")
    if "image" not in options and condition.drop == 0:
        raise UserError(f"this model needs pictures (condition={name}): give image=FILE|DIR|NPZ")
    if "image" not in options and (task is not None or "mask" in options):
        raise UserError(f"{'mask=…' if task is None else f'task={task}'} needs image=FILE|DIR|NPZ")


def check_pairs(config: Config) -> None:
    """Refuses pairs of data that are not used as such, and a condition on pairs that the data do not have.

    Raises:
        UserError: with the remedy.
    """
    pairs = {section: getattr(config, section).get("name") == "pairs" for section in ("condition", "data")}
    if pairs["condition"] and not pairs["data"]:
        raise UserError(
            "condition=pairs needs images that come with pictures: data=pairs data.path=DIR data.conditions=DIR, or "
            f"data.path=FILE.npz; data is {config.data.get('name')}"
        )
    if pairs["data"] and not pairs["condition"]:
        raise UserError(
            "data=pairs has pictures to condition on: set condition=pairs, or take the images alone, with data=folder "
            "or data=npz"
        )


def check_pictures(config: Config, condition: Condition, split: Split, shape: tuple[int, ...]) -> None:
    """Refuses pictures that images are paired with where they have another shape than the network takes.

    Raises:
        UserError: with the remedy.
    """
    expected = (condition.shown_channels(shape[0]), *shape[1:])
    for images in split:
        if images.conditions is not None and images.conditions.shape != expected:
            raise UserError(
                f"data {config.data.get('name')} has pictures of shape {images.conditions.shape} to condition on, the "
                f"model takes {expected}: set condition.picture_channels"
            )
