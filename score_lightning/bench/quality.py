"""Inception score and Fréchet distance against network evaluations, for all solvers on trained checkpoints.

The features are those of the project's classifier trained on the data's own labels. The reference is ancestral sampling
with all levels. All points use the same seeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from score_lightning.bench.settings import Settings
from score_lightning.bench.tables import Bound, Curves, LeftOut, Row, Table
from score_lightning.config import Resolved, change
from score_lightning.evaluation.evaluator import Evaluator
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.evaluation import Evaluation
from score_lightning.experiment.loading import open_checkpoint
from score_lightning.likelihood import continuous
from score_lightning.models import ScoreModel
from score_lightning.runtime.processes import Rank

SOLVERS = {
    "ddim": ["sampler=ddim"],
    "heun": ["sampler=heun"],
    "dpm_solver": ["sampler=dpm_solver"],
    "dpm_solver, log_snr": ["sampler=dpm_solver", "sampler.spacing=log_snr"],
    "ancestral": ["sampler=ancestral"],
    "ancestral, small": ["sampler=ancestral", "sampler.variance=small"],
    "reverse_diffusion": ["sampler=reverse_diffusion", "sampler.clip=true"],
    "predictor_corrector": ["sampler=predictor_corrector", "sampler.predictor=ancestral", "sampler.snr=0.1"],
    "euler_maruyama": ["sampler=euler_maruyama", "sampler.clip=true", "continuous=true"],
}
EVALUATIONS = (4, 6, 8, 10, 15, 25, 50)
FEWER = (6, 10, 15)  # for a slow network
FEW = 15  # evaluations that should be enough
METRICS = {"is_classifier": "inception score", "fid_classifier": "Fréchet distance"}


@dataclass(frozen=True)
class Point:
    """Metrics of images that a solver drew with this number of network evaluations each."""

    solver: str
    evaluations: int
    metrics: dict[str, float]


def run(settings: Settings) -> list[Table]:
    """Two tables for each checkpoint, one per metric."""
    given = {"digits": settings.digits, "mnist": settings.mnist}
    paths = {name: path for name, path in given.items() if path}
    if not paths:
        raise LeftOut(
            'it needs a checkpoint: `make train EXP=ddpm_digits`, then `make bench ARGS="only=quality '
            'digits=runs/ddpm_digits/0/checkpoints/last.ckpt"`; `mnist=` takes one of ddpm_mnist'
        )
    return [table for name, path in paths.items() for table in _tables(name, path, settings)]


def _tables(name: str, path: str, settings: Settings) -> Iterator[Table]:
    n = 64 if settings.quick else settings.n if name == "digits" else settings.n // 4
    overrides = [f"evaluation.n={n}", "evaluation.metrics=[is,fid]", "features=classifier"]
    experiment = open_checkpoint(path, overrides).experiment
    model, resolved = experiment.model.to(settings.device), experiment.resolved
    evaluator = Evaluation(experiment, n=n).evaluator
    full = ["sampler=ancestral", *(["sampler.steps=4"] if settings.quick else [])]
    base = _point(model, resolved, evaluator, "ancestral, all levels", full, n)
    counts = (4,) if settings.quick else EVALUATIONS if name == "digits" else FEWER
    points = list(_points(model, resolved, evaluator, n, counts))
    for metric, title in METRICS.items():
        rows = [_row(point, base, metric) for point in [base, *points]]
        if metric == "is_classifier":
            rows = _bounded(rows, points, base)
        lines: dict[str, list[tuple[float, float]]] = {solver: [] for solver in SOLVERS}
        for point in points:
            lines[point.solver].append((point.evaluations, point.metrics[metric]))
        lines["all levels"] = [(point.evaluations, base.metrics[metric]) for point in sorted(points, key=_evaluations)]
        curves = Curves("network evaluations per image", title, lines, log_y=metric.startswith("fid"))
        yield Table(f"{title[0].upper()}{title[1:]} of {name}, {n} images", title, rows, curves=[curves])


def _evaluations(point: Point) -> int:
    return point.evaluations


def _points(
    model: ScoreModel, resolved: Resolved, evaluator: Evaluator, n: int, counts: Sequence[int]
) -> Iterator[Point]:
    for solver, overrides in SOLVERS.items():
        for evaluations in counts:
            per_step = 2 if solver in ("heun", "predictor_corrector") else 1
            steps = max(2, (evaluations + per_step - 1) // per_step)
            yield _point(model, resolved, evaluator, solver, [*overrides, f"sampler.steps={steps}"], n)


def _point(
    model: ScoreModel, resolved: Resolved, evaluator: Evaluator, solver: str, overrides: Sequence[str], n: int
) -> Point:
    changed = change(resolved.plain(), "checkpoint", overrides)
    generator = Experiment(changed).generator()
    scheduled = _with_schedule(model, changed)
    rank = Rank(device=next(model.parameters()).device)
    result = evaluator(generator(scheduled, n, seed=0), rank)
    point = Point(solver, generator.evaluations(scheduled), result.metrics)
    print(
        f"  {solver}, {point.evaluations} evaluations: inception score {point.metrics['is_classifier']:.3f}", flush=True
    )
    return point


def _with_schedule(model: ScoreModel, resolved: Resolved) -> ScoreModel:
    """The model, in continuous time where the solver needs it."""
    return continuous(model) if resolved.config.continuous else model


def _row(point: Point, base: Point, metric: str) -> Row:
    share = point.metrics[metric] / base.metrics[metric]
    return Row(
        f"{point.solver}, {point.evaluations} evaluations", point.metrics[metric], note=f"{share:.3f} of all levels"
    )


def _bounded(rows: list[Row], points: Sequence[Point], base: Point) -> list[Row]:
    """The rows, with the bound at the best one of few evaluations."""
    few = [point for point in points if point.evaluations <= FEW]
    best = max(few, key=lambda point: point.metrics["is_classifier"])
    share = best.metrics["is_classifier"] / base.metrics["is_classifier"]
    i = 1 + points.index(best)
    bound = Bound(f"share of all levels with at most {FEW} evaluations", share, 0.98, least=True)
    return [*rows[:i], replace(rows[i], bounds=(bound,)), *rows[i + 1 :]]
