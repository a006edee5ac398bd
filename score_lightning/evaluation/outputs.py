"""All that an evaluation leaves behind: numbers, pictures, plots, and one page of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_lightning.evaluation.evaluator import Evaluator, Result
from score_lightning.evaluation.model_losses import Likelihood
from score_lightning.evaluation.plots import plot_levels, plot_sweep
from score_lightning.evaluation.provenance import commit, versions
from score_lightning.evaluation.report import summarize, write_metrics, write_report
from score_lightning.generation.generator import Generator, trajectory
from score_lightning.generation.pictures import save_grid, save_neighbors, save_rows
from score_lightning.models import ScoreModel
from score_lightning.runtime.processes import Rank, device_name

PICTURES = {
    "samples.png": "Samples: The first images of the first seed; a sweep has a row for each sampler, from one noise.",
    "sweep.png": "Sweep: Metrics against network evaluations per image.",
    "neighbours.png": "Nearest neighbors: A sample, then the reference images nearest to it in feature space.",
    "trajectory.png": "Trajectory: From noise to image.",
    "levels.png": "Validation loss: At each noise level, of the weights that were evaluated.",
}


@dataclass(frozen=True)
class Entry:
    """Results of one sampler, or of images that were there.

    Args:
        results: of each seed.
        speed: images per second, drawn and evaluated.
        sampler: its settings.
        evaluations: of the network, per image.
    """

    results: Sequence[Result]
    speed: float
    sampler: dict[str, Any] | None = None
    evaluations: int | None = None

    def plain(self) -> dict[str, Any]:
        """What metrics.json says of it in a sweep."""
        drawn = {"sampler": self.sampler, "evaluations_per_image": self.evaluations}
        found = summarize([result.metrics for result in self.results])
        return {**drawn, **found, "images_per_second": round(self.speed, 3)}


def describe_run(
    n: int, evaluator: Evaluator, rank: Rank, device: torch.device, batch_size: int, drawn: bool = True
) -> dict[str, Any]:
    """What metrics depend on besides the images, and where they were computed.

    Args:
        n: images.
        evaluator: of the metrics.
        rank: this process.
        device: of the networks.
        batch_size: images in a batch.
        drawn: whether the images were drawn from a model.
    """
    return {
        "n": n,
        "quantizer": "clamp to the range of pixels, round to the nearest of 256 levels" if drawn else "none: uint8",
        **evaluator.settings(n),
        "batch_size": batch_size,
        "processes": rank.count,
        "threads_per_process": torch.get_num_threads(),
        "device": device_name(device),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class Outputs:
    """Writes everything of an evaluation into a folder; on the first rank only.

    Args:
        folder: which is there.
        title: of the page.
        evaluator: which made the results.
        settings: for metrics.json.
        entries: the points of a sweep, or one.
        seeds: of the images; none where they were not drawn.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        evaluator: Evaluator,
        settings: dict[str, Any],
        entries: Sequence[Entry],
        seeds: Sequence[int] = (),
    ) -> None:
        self._folder, self._title, self._evaluator = folder, title, evaluator
        self._settings, self._entries, self._seeds = settings, entries, seeds
        self._likelihood = Likelihood({}, {}, {})
        self._drawn: set[str] = set()  # pictures of an earlier evaluation may lie beside them

    def draw_trajectory(self, model: ScoreModel, generator: Generator) -> None:
        """Draws some images on their way from noise."""
        path = trajectory(generator, model, min(6, self._settings["n"]), self._seeds[0])
        save_rows(path, self._place("trajectory.png"))

    def draw_levels(self, ratios: Tensor, losses: Tensor) -> None:
        """Draws the validation loss of each noise level sigma / alpha, both (levels,)."""
        self._settings["validation_levels"] = [float(f"{ratio:.6g}") for ratio in ratios.tolist()]
        self._settings["validation_loss"] = [float(f"{loss:.6g}") for loss in losses.tolist()]
        plot_levels(ratios.tolist(), losses.tolist(), self._place("levels.png"))

    def add(self, likelihood: Likelihood) -> None:
        """Adds likelihoods of the model to the metrics of its images."""
        self._likelihood = likelihood
        self._settings["likelihood"] = likelihood.settings

    def write(self) -> None:
        """Writes pictures, metrics.json and report.html, and prints the metrics."""
        entries = [entry.plain() for entry in self._entries]
        found: dict[str, Any] = dict(self._likelihood.metrics)
        found |= {"unavailable": self._unavailable} if self._unavailable else {}
        found = {"sweep": entries, **found} if len(entries) > 1 else {**entries[0], **found}
        settings = dict(self._settings)
        if len(entries) == 1:  # a point's own settings stand with the others
            for key in ("sampler", "evaluations_per_image", "images_per_second"):
                settings[key] = found.pop(key)
        settings = {**settings, "seeds": list(self._seeds)} if self._seeds else settings
        self._draw(entries)
        path = write_metrics(self._folder, found, settings)
        pictures = {name: text for name, text in PICTURES.items() if name in self._drawn}
        report = write_report(self._folder, self._title, found, settings, pictures)
        self._print(entries)
        print(f"Written: {path}, {report}, {self._folder / 'samples.png'}")

    @property
    def _unavailable(self) -> dict[str, str]:
        return {**self._evaluator.unavailable, **self._likelihood.unavailable}

    def _place(self, name: str) -> Path:
        self._drawn.add(name)
        return self._folder / name

    def _draw(self, entries: Sequence[dict[str, Any]]) -> None:
        results = [entry.results[0] for entry in self._entries]
        if len(results) > 1:
            save_rows(torch.stack([result.shown[:10] for result in results]), self._place("samples.png"))
            names = [name for name in self._entries[0].results[0].metrics if "_std_" not in name]
            plot_sweep(entries, names, self._place("sweep.png"))
        else:
            save_grid(results[0].shown, self._place("samples.png"))
        neighbors, images = results[0].neighbors, self._evaluator.reference.images
        if neighbors is not None and images is not None:
            indices = neighbors[:16]
            near = images[indices.flatten()].unflatten(0, indices.shape)
            save_neighbors(results[0].shown[: len(near)], near, self._place("neighbours.png"))

    def _print(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            if len(entries) > 1:
                print(f"{entry['sampler']} {entry['evaluations_per_image']} evaluations")
            for name in self._entries[0].results[0].metrics:
                spread = entry.get("spread", {}).get(name)
                print(f"  {name:28} {entry[name]:.4f}" + (f" ± {spread['std']:.4f}" if spread else ""))
        for name, value in self._likelihood.metrics.items():
            error = self._likelihood.settings["standard_error"][name]
            print(f"  {name:28} {value:.4f} ± {error:.4f} bits per dimension (standard error)")
        for name, reason in self._unavailable.items():
            print(f"  {name:28} not available: {reason}")
