"""What is said before the work, rather than happening in silence: settings without effect, files that replace ours."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from score_lightning.config import Config, Resolved, replaced
from score_lightning.runtime.startup import is_first

Work = Literal["train", "sample", "task", "eval", "images"]
"""What settings are for: training, samples, tasks, the evaluation of a checkpoint or of images that are there."""


@dataclass(frozen=True)
class Rule:
    """Keys, or sections of them, that have no effect where something holds.

    Args:
        keys: dotted names.
        reason: for the message.
        unused: whether they have no effect.
    """

    keys: tuple[str, ...]
    reason: str
    unused: Callable[[Config], bool]


TRAINING = ("optimizer", "ema", "trainer", "samples", "preview", "logger", "init", "images.flip", "images.augment")
UNUSED: dict[Work, tuple[str, ...]] = {
    "train": (),
    "eval": TRAINING,
    "task": (*TRAINING, "validation", "evaluation", "features", "objective", "data"),
}
UNUSED["sample"] = (*UNUSED["task"], "images.resize", "images.background")
UNUSED["images"] = (
    *TRAINING, "labels", "condition", "validation", "objective", "net", "schedule", "sampler", "continuous",
    "prediction", "conditioning", "sigma_data", "points", "images.size", "images.channels", "images.resize",
    "images.range", "images.dequantize", "guide", "guidance", "guidance_interval",
)  # fmt: skip
"""Sections and fields that each kind of work has no use for."""
COMMANDS = {"train": "train", "sample": "sample", "task": "sample", "eval": "eval", "images": "eval images="}
METRICS = (
    "evaluation.every",
    "evaluation.metrics",
    "evaluation.splits",
    "evaluation.kid_subsets",
    "evaluation.kid_subset_size",
    "features",
)
RULES = (
    Rule(("labels.drop",), "labels.classes is not set", lambda c: c.labels.classes is None),
    Rule(("images",), "data are points", lambda c: c.points > 0),
    Rule(("evaluation.n", *METRICS), "points have no metrics", lambda c: c.points > 0),
    Rule(
        ("images.resize", "images.background"),
        "images of an npz file are never resized",
        lambda c: c.data.get("name") == "npz",
    ),
    Rule(("sigma_data",), "prediction is not edm", lambda c: c.prediction != "edm"),
    Rule(("ema.warmup", "ema.ramp"), "ema.decay=0", lambda c: c.ema.decay == 0),
    Rule(("samples.every",), "samples.n=0", lambda c: c.samples.n == 0),
    Rule(METRICS, "evaluation.n=0", lambda c: c.evaluation.n == 0),
    Rule(("preview",), "samples.n=0 and evaluation.n=0", lambda c: c.samples.n == 0 == c.evaluation.n),
    Rule(("logger.project", "logger.artifact"), "logger.wandb=off", lambda c: c.logger.wandb == "off"),
    Rule(("logger.artifact",), "Weights & Biases is offline", lambda c: c.logger.wandb == "offline"),
)
"""What has no effect on a training."""
OF_GUIDANCE = (
    Rule(
        ("guidance_interval",),
        "there is no guidance: set labels.guidance, condition.guidance, or guide and guidance",
        lambda c: c.labels.guidance == 0 == c.guidance and not c.condition.get("guidance"),
    ),
)
"""What has no effect on samples."""
OF_METRICS = (
    Rule(("evaluation.splits",), "evaluation.metrics has no is", lambda c: "is" not in c.evaluation.metrics),
    Rule(
        ("evaluation.kid_subsets", "evaluation.kid_subset_size"),
        "evaluation.metrics has no kid",
        lambda c: "kid" not in c.evaluation.metrics,
    ),
)
"""What has no effect on an evaluation."""


def say_unused(resolved: Resolved, work: Work) -> None:
    """Prints, on the first process, which of the settings on the command line have no effect on the work, and why."""
    given = [key for key, origin in resolved.origins.items() if origin == "command line"]
    parts = list(unused(resolved.config, given, work))
    if parts and is_first():
        print(f"without effect: {', '.join(parts)}")


def say_replaced(resolved: Resolved) -> None:
    """Prints, on the first process, which files of the working directory take the place of one of the project."""
    for source in replaced(resolved.origins.values()) if is_first() else ():
        print(f"{source} is taken in place of the one that comes with score_lightning")


def unused(config: Config, given: Sequence[str], work: Work) -> Iterator[str]:
    """Of the given keys those that have no effect, each with the reason."""
    rules = [Rule(UNUSED[work], f"not used by {COMMANDS[work]}", lambda _: True)]
    rules += RULES if work == "train" else []
    rules += OF_GUIDANCE if work != "images" else []
    rules += OF_METRICS if work in ("train", "eval", "images") else []
    for key in given:
        for rule in rules:
            if any(key == name or key.startswith(f"{name}.") for name in rule.keys) and rule.unused(config):
                yield f"{key} ({rule.reason})"
                break
