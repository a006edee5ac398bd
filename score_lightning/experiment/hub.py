"""What the Hugging Face Hub reads of a model card: the block of metadata at its beginning."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_lightning.experiment.exported import Exported, describe, entries, metric_names

HUB = {
    "cifar10": "uoft-cs/cifar10", "fashion_mnist": "zalando-datasets/fashion_mnist", "imagenet": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
}  # fmt: skip
"""Data sets of this project that are at the Hub."""


def metadata(exported: Exported) -> dict[str, Any]:
    """The block of metadata that the Hub reads."""
    c = exported.opened.experiment.config
    block: dict[str, Any] = {
        **exported.terms,
        "library_name": "diffusers" if exported.format == "diffusers" else "score_lightning",
    }
    if not c.points:
        block["pipeline_tag"] = _task(exported)
    tags = ["score_lightning", "pytorch", "diffusion", "score-based-generative-model", str(c.schedule["name"])]
    block["tags"] = [*tags, *(["class-conditional"] if c.labels.classes else [])]
    if hub_data(exported.plain["data"]):
        block["datasets"] = [hub_data(exported.plain["data"])]
    results = _results(exported)
    if results:
        block["model-index"] = [{"name": exported.name, "results": results}]
    return block


def _results(exported: Exported) -> list[dict[str, Any]]:
    """The metrics as the Hub has them, one result for each sampler."""
    data = str(exported.plain["data"]["name"])
    settings, results = exported.metrics.get("settings", {}), []
    for label, entry in entries(exported.metrics):
        listed = [
            {
                "type": _type(name),
                "value": entry[name],
                "name": ", ".join([describe(name), *label, _images(name, settings)]),
            }
            for name in metric_names(entry)
        ]
        task = {"type": _task(exported), "name": "Image generation"}
        results.append(
            {
                "task": task,
                "dataset": {"type": hub_data(exported.plain["data"]) or data, "name": data},
                "metrics": listed,
            }
        )
    return results


def _images(name: str, settings: Mapping[str, Any]) -> str:
    """Of how many images a metric is."""
    of = settings.get("likelihood", {}) if name.startswith("bits_per_dim") else settings
    return f"{of.get('n', 0):,} images"


def _task(exported: Exported) -> str:
    """The Hub's name for what the model does."""
    return "image-to-image" if exported.opened.experiment.config.condition else "unconditional-image-generation"


def _type(name: str) -> str:
    """A metric's identifier at the Hub: that of the field for Inception's features, else the name in metrics.json."""
    return name.removesuffix("_inception")


def hub_data(data: Mapping[str, Any]) -> str | None:
    """The name of a data set at the Hub."""
    path = str(data.get("path"))
    if data["name"] == "huggingface":
        return path if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not Path(path).exists() else None
    return HUB.get(data["name"])
