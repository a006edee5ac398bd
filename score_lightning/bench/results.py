"""docs/results.md, by `make results EXP=NAME`: trainings of an experiment with several seeds, and their evaluations."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from score_lightning import cli, config
from score_lightning.bench.results_page import FOLDER, SEEDS, read_record, write_page
from score_lightning.errors import INTERRUPTED, RESUMABLE, UserError
from score_lightning.evaluation.report import METRICS
from score_lightning.experiment.card import CARD
from score_lightning.experiment.sweeping import Training, run_command
from score_lightning.formats.licenses import UNKNOWN, read_license
from score_lightning.runtime.files import write_text
from score_lightning.training.record import RECORD

SAMPLE_SEEDS = [0, 1, 2, 3]  # of samples of each condition, whose spread is evaluated; others take the first one alone
LARGEST = 3_000_000  # bytes of weights that are kept beside the page
PLACES = ("data.path", "data.conditions")  # of which the page shows the last part alone
OPTIONS = {
    "exp": str, "name": str, "seeds": list, "n": int, "out": str, "runs": str, "note": str, "license": str,
}  # fmt: skip


def usage() -> str:
    """The text of --help."""
    return """python -m score_lightning.bench.results exp=NAME [name=NAME seeds=[0,1,2] n=N note=TEXT key=value ...]

Trains an experiment with several seeds, evaluates each, and writes docs/results/NAME.json, NAME.png, NAME/ with the
weights of the first seed where they are small, and docs/results.md of all such files. What is trained already is not
trained again, interrupted trainings continue, and other seeds of the same result are kept. Without exp only the page is
written anew.
  name=NAME    of the result; that of the experiment by default
  seeds=[...]  of the trainings
  n=N          images of each evaluation; evaluation.n of the experiment by default
  note=TEXT    for the page, such as why a published number differs
  license=NAME of the weights that are kept, as export takes it; unknown by default
  out=DIR      folder of the page; docs by default
  runs=DIR     folder of the trainings; runs/results by default
All other key=value are those of the training."""


@dataclass(frozen=True)
class Plan:
    """What a result is of.

    Args:
        name: of the result.
        exp: the experiment.
        overrides: of the trainings.
        runs: folder of the trainings.
        n: images of an evaluation; None for the experiment's own number.
        license: of the weights.
    """

    name: str
    exp: str
    overrides: list[str]
    runs: Path
    n: int | None = None
    license: str = UNKNOWN

    @cached_property
    def config(self) -> config.Resolved:
        """The configuration of the trainings, but for their seeds."""
        return config.load(self.overrides, self.exp)

    def training(self, seed: int) -> Training:
        """The training of one seed, in a folder for these settings alone, since others lead to other metrics."""
        settings = json.dumps([self.config.plain(), self.n], sort_keys=True)
        folder = self.runs / self.name / sha256(settings.encode()).hexdigest()[:8] / f"seed_{seed}"
        return Training(f"{self.name}, seed {seed}", self.exp, [*self.overrides, f"seed={seed}", "logger=off"], folder)

    def train(self, seed: int) -> Path:
        """Trains, or resumes; returns the run folder.

        Raises:
            UserError: when the training failed.
        """
        training = self.training(seed)
        print(f"\n{training.label}", flush=True)
        _check(training.run(), training.label)
        records = (training.out / Path(self.exp).stem).glob(f"*/{RECORD}")
        return max((path.parent for path in records if path.parent.name.isdigit()), key=lambda run: int(run.name))

    def evaluate(self, run: Path) -> dict[str, Any]:
        """The contents of metrics.json in a run folder, of the evaluation, which is made unless it is there already.

        Raises:
            UserError: when the evaluation failed.
        """
        checkpoint, path, c = run / "checkpoints" / "last.ckpt", run / METRICS, self.config.config
        n, seeds = self.n or c.evaluation.n or 1000, SAMPLE_SEEDS if c.condition else SAMPLE_SEEDS[:1]
        there = _read(path)["settings"] if _newer(path, checkpoint) else {}
        asked = {"n": n, "seeds": seeds, "sampler": dict(c.sampler), "weights": "ema"}
        if "checkpoint" not in there or any(there.get(key) != value for key, value in asked.items()):
            options = [f"ckpt={checkpoint}", f"n={n}", f"seeds={seeds}".replace(" ", "")]
            _check(run_command("eval", *options), f"the evaluation of {checkpoint}")
        return _read(path)

    def record(self, seed: int) -> dict[str, Any]:
        """What came out of one seed; trains and evaluates it where that is missing."""
        run = self.train(seed)
        evaluation = _without_places(self.evaluate(run))
        return {"seed": seed, "training": _read(run / RECORD), "evaluation": evaluation}

    def write(self, seeds: Sequence[int], note: str, out: Path) -> None:
        """Writes the files of the result into a folder; runs of other seeds that are in its JSON file stay.

        Only those with the same settings and the same reference images stay.
        """
        shown = {"exp": self.exp, "overrides": [_last_part(override) for override in self.overrides], "n": self.n}
        path = out / f"{self.name}.json"
        earlier = read_record(path) if path.is_file() else {"runs": []}
        runs = {seed: self.record(seed) for seed in seeds}
        same = all(earlier.get(key) == value for key, value in shown.items())
        reference = _reference(runs[seeds[0]])
        for run in earlier["runs"]:
            if same and _reference(run) == reference:
                runs.setdefault(run["seed"], run)
            elif run["seed"] not in runs:
                print(f"{path}: seed {run['seed']} is left out, since it has other settings or data")
        note = note or earlier.get("note", "")
        record = {"name": self.name, **shown, "note": note, "runs": [runs[seed] for seed in sorted(runs)]}
        if min(runs) in seeds:
            self.keep(self.train(min(runs)), out)
        write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def keep(self, run: Path, out: Path) -> None:
        """Copies the picture of a run's evaluation, and its weights where they are small."""
        shutil.copyfile(run / "samples.png", out / f"{self.name}.png")
        checkpoint, weights = run / "checkpoints" / "last.ckpt", run / "exported" / self.name
        if not _newer(weights / CARD, run / METRICS):
            shutil.rmtree(weights, ignore_errors=True)
            options = [f"ckpt={checkpoint}", "format=safetensors", f"license={self.license}", f"out={weights}"]
            _check(run_command("export", *options), f"the export of {checkpoint}")
        shutil.rmtree(out / self.name, ignore_errors=True)
        if sum(path.stat().st_size for path in weights.glob("*.safetensors")) < LARGEST:
            shutil.copytree(weights, out / self.name)


def _check(code: int, what: str) -> None:
    if code in (INTERRUPTED, RESUMABLE):
        raise SystemExit(code)
    if code:
        raise UserError(f"{what} failed; what went wrong stands above")


def _read(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return contents


def _newer(path: Path, other: Path) -> bool:
    return path.is_file() and path.stat().st_mtime > other.stat().st_mtime


def _reference(run: Mapping[str, Any]) -> Any:
    """What tells the images apart that a run was compared with."""
    return run["evaluation"]["settings"].get("reference_sha256")


def _last_part(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}={Path(value).name}" if key in PLACES else override


def _without_places(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The contents of metrics.json without the folders of this machine."""
    settings = evaluation["settings"] | {"checkpoint": Path(evaluation["settings"]["checkpoint"]).name}
    return evaluation | {"settings": settings}


def main(arguments: Sequence[str]) -> None:
    """Trains, evaluates, and writes the page."""
    options, overrides = cli.split_arguments(arguments, OPTIONS)
    out = Path(options.get("out", "docs"))
    if "exp" in options:
        plan, seeds = _plan(options, overrides)
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        plan.write(seeds, options.get("note", ""), out / FOLDER)
    elif overrides:
        raise UserError(f"{overrides[0]} is of a training: exp=NAME is missing")
    out.mkdir(parents=True, exist_ok=True)
    write_page(out)
    print(f"Everything is in {out / 'results.md'}")


def _plan(options: Mapping[str, Any], overrides: list[str]) -> tuple[Plan, list[int]]:
    """(plan, seeds) of the options.

    Raises:
        UserError: when one of them is wrong, before anything is trained.
    """
    seeds, n = options.get("seeds", SEEDS), options.get("n")
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be different whole numbers, got {seeds}")
    if n is not None and n < 2:
        raise UserError(f"n must be at least 2 images, got {n}")
    name = options.get("name", Path(options["exp"]).stem)
    if not name or name != Path(name).name:
        raise UserError(f"name={name} must be the name of a file, without folders")
    license = options.get("license", UNKNOWN)
    read_license(license)
    plan = Plan(name, options["exp"], overrides, Path(options.get("runs", "runs/results")), n, license)
    if plan.config.config.points:
        raise UserError(f"exp={plan.exp} is of points: results are of images; its figure is in docs/theory.md")
    return plan, seeds


if __name__ == "__main__":
    cli.run(main, usage)
