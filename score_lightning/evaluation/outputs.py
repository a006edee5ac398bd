"""Everything that an evaluation writes: numbers, pictures, plots, and one page with all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_lightning.evaluation.evaluator import Evaluator, Result
from score_lightning.evaluation.intervals import Values
from score_lightning.evaluation.model_losses import Likelihood
from score_lightning.evaluation.page import PAGE
from score_lightning.evaluation.plots import plot_levels, plot_sweep
from score_lightning.evaluation.provenance import commit, versions
from score_lightning.evaluation.report import METRICS, show, summarize, write_metrics, write_report
from score_lightning.generation.generator import Generator, trajectory
from score_lightning.generation.pictures import save_aligned, save_grid, save_neighbors, save_rows
from score_lightning.models import ScoreModel
from score_lightning.runtime.files import naming
from score_lightning.runtime.processes import Rank, device_name

PICTURES = {
    "samples.png": "Samples: The first images of the first seed; a sweep has one row per sampler, from the same noise.",
    "sweep.png": "Sweep: Metrics against network evaluations per image.",
    "neighbors.png": "Nearest neighbors: Each sample, then the reference images nearest to it in feature space.",
    "trajectory.png": "Trajectory: From noise to image.",
    "levels.png": "Validation loss: At each noise level, of the weights that were evaluated.",
}
ALIGNED = (
    "Samples: In rows of what images are given, samples of the first seed (of each sampler of a sweep), and truths."
)
FILES = (METRICS, PAGE, *PICTURES)


@dataclass(frozen=True)
class Entry:
    """Results of one sampler, or of existing images.

    Args:
        results: of each seed.
        speed: images per second, generation and evaluation together.
        sampler: its settings; None of existing images.
        evaluations: network evaluations per image.
        pilot: network evaluations of a run that measured the sampler's steps, over all its images.
        across: metrics of all seeds together, or None.
    """

    results: Sequence[Result]
    speed: float
    sampler: dict[str, Any] | None = None
    evaluations: int | None = None
    pilot: int = 0
    across: Values | None = None

    def plain(self) -> dict[str, Any]:
        """The entry of metrics.json for this point of a sweep."""
        summary = summarize([result.values for result in self.results])
        if self.across is not None:
            more = summarize([self.across])
            summary |= {**more, "intervals": summary.get("intervals", {}) | more.get("intervals", {})}
        return {
            "sampler": self.sampler,
            "evaluations_per_image": self.evaluations,
            "pilot_evaluations": self.pilot,
            **summary,
            "images_per_second": round(self.speed, 3),
        }


def describe_run(
    n: int, evaluator: Evaluator, rank: Rank, device: torch.device, batch_size: int, quantizer: str = "none: uint8"
) -> dict[str, Any]:
    """Everything that metrics depend on besides the images, and where they were computed.

    Args:
        n: number of images.
        evaluator: which computed the metrics.
        rank: this process.
        device: of the networks.
        batch_size: images in a batch.
        quantizer: from a model's pixels to gray levels, where the images were drawn from one.
    """
    return {
        "n": n,
        "quantizer": quantizer,
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
        folder: an existing one.
        title: of the page.
        evaluator: which computed the results.
        settings: for metrics.json.
        entries: the points of a sweep, or a single one.
        seeds: of the images; none where they were not drawn from a model.
        captions: of the images that are shown, such as their classes.

    Attributes:
        beside: what stands above and below the images that are shown: pictures that they are given, and truths.
        unavailable: metrics that could not be computed, besides those of the evaluator: name -> reason.
    """

    beside: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        folder: Path,
        title: str,
        evaluator: Evaluator,
        settings: dict[str, Any],
        entries: Sequence[Entry],
        seeds: Sequence[int] = (),
        captions: Sequence[str] | None = None,
    ) -> None:
        self._captions, self._depth = captions, evaluator.depth
        self._folder, self._title, self._evaluator = folder, title, evaluator
        self._settings, self._entries, self._seeds = settings, entries, seeds
        self._likelihood = Likelihood({}, {}, {})
        self._drawn: set[str] = set()  # the folder may also hold pictures of an earlier evaluation
        self.unavailable: dict[str, str] = {}

    def draw_trajectory(self, model: ScoreModel, generator: Generator) -> None:
        """Draws up to six images on their way from noise."""
        path = trajectory(generator, model, min(6, self._settings["n"]), self._seeds[0])
        with naming(self._folder):
            save_rows(path, self._picture("trajectory.png"), depth=self._depth)

    def draw_levels(self, ratios: Tensor, losses: Tensor) -> None:
        """Plots validation losses against noise levels sigma / alpha, both (levels,)."""
        self._settings["validation_levels"] = [float(f"{ratio:.6g}") for ratio in ratios.tolist()]
        self._settings["validation_loss"] = [float(f"{loss:.6g}") for loss in losses.tolist()]
        with naming(self._folder):
            plot_levels(ratios.tolist(), losses.tolist(), self._picture("levels.png"))

    def add(self, likelihood: Likelihood) -> None:
        """Adds bits per dimension of the model to the metrics of its images."""
        self._likelihood = likelihood
        self._settings["likelihood"] = likelihood.settings

    def write(self) -> None:
        """Prints the metrics, and writes pictures, metrics.json and report.html."""
        entries = [entry.plain() for entry in self._entries]
        metrics, settings = self._contents(entries)
        self._print(entries)
        with naming(self._folder):
            self._draw(entries)
        path = write_metrics(self._folder, metrics, settings)
        texts = PICTURES if self.beside is None else PICTURES | {"samples.png": ALIGNED}
        pictures = {name: text for name, text in texts.items() if name in self._drawn}
        report = write_report(self._folder, self._title, metrics, settings, pictures)
        print(f"Written: {path}, {report}, {self._folder / 'samples.png'}")

    def _contents(self, entries: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(metrics, settings) of metrics.json."""
        metrics: dict[str, Any] = dict(self._likelihood.metrics)
        if self._unavailable:
            metrics["unavailable"] = self._unavailable
        metrics = {"sweep": entries, **metrics} if len(entries) > 1 else {**entries[0], **metrics}
        settings = dict(self._settings)
        if len(entries) == 1:  # the settings of a single sampler stand with the others
            for key in ("sampler", "evaluations_per_image", "pilot_evaluations", "images_per_second"):
                settings[key] = metrics.pop(key)
        return metrics, {**settings, "seeds": list(self._seeds)} if self._seeds else settings

    @property
    def _unavailable(self) -> dict[str, str]:
        return {**self._evaluator.unavailable, **self.unavailable, **self._likelihood.unavailable}

    def _picture(self, name: str) -> Path:
        """Where one of PICTURES goes, which the page then shows."""
        self._drawn.add(name)
        return self._folder / name

    def _draw(self, entries: Sequence[dict[str, Any]]) -> None:
        results = [entry.results[0] for entry in self._entries]
        if self.beside is not None:
            given, truths = self.beside
            rows = [given, *(result.shown for result in results), truths]
            save_aligned(rows, self._picture("samples.png"), self._depth)
        elif len(results) > 1:
            shown = torch.stack([result.shown[:10] for result in results])
            save_rows(shown, self._picture("samples.png"), depth=self._depth)
        else:
            save_grid(results[0].shown, self._picture("samples.png"), captions=self._captions, depth=self._depth)
        if len(results) > 1:
            names = [name for name in self._entries[0].results[0].metrics if "_std_" not in name]
            plot_sweep(entries, names, self._picture("sweep.png"))
        self._draw_neighbors(results[0])

    def _draw_neighbors(self, result: Result) -> None:
        images = self._evaluator.reference.images
        if result.neighbors is None or images is None:
            return
        indices = result.neighbors[:16]
        near = images[indices.flatten()].unflatten(0, indices.shape)
        save_neighbors(result.shown[: len(near)], near, self._picture("neighbors.png"), depth=self._depth)

    def _print(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            if len(entries) > 1:
                print(f"{entry['sampler']} {entry['evaluations_per_image']} evaluations")
            for name, value in entry.items():
                if isinstance(value, float) and name != "images_per_second":
                    print(f"  {name:28} {show(entry, name)}")
        if any("intervals" in entry for entry in entries):
            print("  in brackets: 95 % intervals, of the draw of the images")
        for name, value in self._likelihood.metrics.items():
            error = self._likelihood.settings["standard_error"][name]
            print(f"  {name:28} {value:.4f} ± {error:.4f} bits per dimension (standard error)")
        for name, reason in self._unavailable.items():
            print(f"  {name:28} not available: {reason}")
