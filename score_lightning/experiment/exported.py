"""What is known of the weights that are exported: metrics, pictures and the training, as far as they are theirs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from score_lightning.evaluation.plots import label_of
from score_lightning.evaluation.report import METRICS
from score_lightning.experiment.loading import Opened
from score_lightning.formats.native import run_folder_of
from score_lightning.runtime.files import sha256_of_state

PICTURE = "samples.png"
NAMES = {
    "fid_infinity": "Fréchet distance for infinitely many images", "fid": "Fréchet distance", "is": "inception score",
    "kid": "kernel distance", "f_score": "F score", "psnr": "PSNR", "psnr_of_mean": "PSNR of the mean", "ssim": "SSIM",
    "cmmd": "CMMD", "bits_per_dim": "bits per dimension",
}  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What is exported.

    Args:
        path: of the checkpoint, as it was given.
        opened: the checkpoint.
        format: of the files, safetensors or diffusers.
        folder: name of the one that is written.
        terms: entries of the metadata for the license.
    """

    path: str
    opened: Opened
    format: str
    folder: str
    terms: Mapping[str, str]

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.opened.experiment.resolved.plain()

    @cached_property
    def name(self) -> str:
        """The experiment's."""
        return Path(self.plain["exp"]).stem

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The contents of the run folder's metrics.json; empty unless it is of these weights."""
        metrics = _read_json(run_folder_of(self.path) / METRICS)
        settings = metrics.get("settings")
        if not isinstance(settings, dict) or not isinstance(settings.get("n"), int):
            return {}
        if settings.get("weights") != "ema":  # raw weights, or images of another program
            return {}
        if "weights_sha256" in settings:
            same = settings["weights_sha256"] == sha256_of_state(self.opened.experiment.model.state_dict())
        else:
            same = settings.get("step") == self.opened.step
        return metrics if same else {}

    @cached_property
    def run(self) -> dict[str, Any]:
        """The record of the training until this checkpoint; empty without one."""
        return self.opened.run

    @cached_property
    def picture(self) -> Path | None:
        """Samples of these weights that are there already."""
        folder = run_folder_of(self.path)
        evaluated = "checkpoint" in self.metrics.get("settings", {}) or Path(self.path).expanduser().is_dir()
        candidates = [folder / PICTURE] if evaluated else []
        candidates.append(folder / "samples" / f"step_{self.opened.step:07d}.png")
        return next((path for path in candidates if path.is_file()), None)


def entries(metrics: Mapping[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
    """(label, metrics) of each sampler of a sweep, and of what is not of a sampler; a single one has no label."""
    if "sweep" not in metrics:
        return [([], dict(metrics))] if metrics else []
    sweep = metrics["sweep"]
    labeled = [([f"{label_of(e['sampler'], sweep)}, {e['evaluations_per_image']:,} evaluations"], e) for e in sweep]
    rest = {name: value for name, value in metrics.items() if name != "sweep"}
    return [*labeled, *([([], rest)] if metric_names(rest) else [])]


def metric_names(entry: Mapping[str, Any]) -> list[str]:
    """The metrics of an entry that are numbers."""
    numbers = [name for name, value in entry.items() if isinstance(value, float) and value - value == 0]  # finite
    return [name for name in numbers if "_std" not in name and name != "images_per_second"]


def describe(name: str) -> str:
    """A metric in words: fid_inception is `Fréchet distance (inception)`."""
    fitting = [start for start in NAMES if name == start or name.startswith(f"{start}_")]
    start = max(fitting, key=len, default=name.partition("_")[0])
    features = name.removeprefix(start).strip("_").replace("_", " ")
    return NAMES.get(start, start) + (f" ({features})" if features else "")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return contents if isinstance(contents, dict) else {}
