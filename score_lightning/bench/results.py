"""docs/results.md, by `make results EXP=NAME`: trainings of an experiment with several seeds, and their evaluations."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_lightning import cli, config
from score_lightning.bench.results_page import FOLDER, SEEDS, read_record, write_page
from score_lightning.errors import INTERRUPTED, RESUMABLE, UserError
from score_lightning.evaluation.report import METRICS
from score_lightning.experiment.sweeping import Training
from score_lightning.runtime.files import write_text
from score_lightning.training.record import RECORD

CONDITIONED = "seeds=[0,1,2,3]"  # of samples of each condition, whose spread is evaluated
LARGEST = 3_000_000  # bytes of weights that are kept beside the page
PLACES = ("data.path", "data.conditions")  # of which the page shows the last part alone
OPTIONS = {"exp": str, "name": str, "seeds": list, "n": int, "out": str, "runs": str, "note": str}


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
    """

    name: str
    exp: str
    overrides: list[str]
    runs: Path
    n: int | None = None

    def training(self, seed: int) -> Training:
        """The training of one seed, in its own folder."""
        overrides = [*self.overrides, f"seed={seed}", "logger=off"]
        return Training(f"{self.name}, seed {seed}", self.exp, overrides, self.runs / self.name / f"seed_{seed}")

    def train(self, seed: int) -> Path:
        """Trains, or resumes; returns the run folder.

        Raises:
            UserError: when the training failed.
        """
        training = self.training(seed)
        print(f"\n{training.label}", flush=True)
        code = training.run()
        if code in (INTERRUPTED, RESUMABLE):
            raise SystemExit(code)
        folders = [path.parent for path in (training.out / Path(self.exp).stem).glob(f"*/{RECORD}")]
        if code or not folders:
            raise UserError(f"the training of {training.label} failed; what went wrong stands above")
        return max(folders, key=lambda folder: int(folder.name))

    def evaluate(self, run: Path) -> Path:
        """Evaluates a run unless that is done already; returns the folder of the evaluation.

        Raises:
            UserError: when the evaluation failed.
        """
        checkpoint, folder = run / "checkpoints" / "last.ckpt", run / "evaluation"
        metrics = folder / METRICS
        if metrics.is_file() and metrics.stat().st_mtime > checkpoint.stat().st_mtime:
            return folder
        conditioned = [CONDITIONED] if config.load(self.overrides, self.exp).config.condition else []
        number = [] if self.n is None else [f"n={self.n}"]
        _run("eval", f"ckpt={checkpoint}", f"out={folder}", *number, *conditioned)
        return folder

    def record(self, seed: int) -> dict[str, Any]:
        """What came out of one seed; trains and evaluates it where that is missing."""
        run = self.train(seed)
        evaluation = json.loads((self.evaluate(run) / METRICS).read_text(encoding="utf-8"))
        training = json.loads((run / RECORD).read_text(encoding="utf-8"))
        return {"seed": seed, "training": training, "evaluation": _without_places(evaluation)}

    def write(self, seeds: Sequence[int], note: str, out: Path) -> None:
        """Writes the files of the result into a folder; runs of other seeds that are in its JSON file stay."""
        shown = {"exp": self.exp, "overrides": [_last_part(override) for override in self.overrides], "n": self.n}
        path = out / f"{self.name}.json"
        earlier = read_record(path) if path.is_file() else {"runs": []}
        if not all(earlier.get(key) == value for key, value in shown.items()):
            earlier = {"runs": []}
        runs = {run["seed"]: run for run in [*earlier["runs"], *(self.record(seed) for seed in seeds)]}
        note = note or earlier.get("note", "")
        record = {"name": self.name, **shown, "note": note, "runs": [runs[seed] for seed in sorted(runs)]}
        if min(runs) in seeds:
            self.keep(self.train(min(runs)), out)
        write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def keep(self, run: Path, out: Path) -> None:
        """Copies the picture of a run's evaluation, and its weights where they are small."""
        shutil.copyfile(run / "evaluation" / "samples.png", out / f"{self.name}.png")
        weights = run / "weights"
        if not weights.exists():
            _run(
                "export",
                f"ckpt={run / 'checkpoints' / 'last.ckpt'}",
                "format=safetensors",
                "license=mit",
                f"out={weights}",
            )
        if sum(path.stat().st_size for path in weights.glob("*.safetensors")) < LARGEST:
            shutil.rmtree(out / self.name, ignore_errors=True)
            shutil.copytree(weights, out / self.name)


def _run(command: str, *arguments: str) -> None:
    code = subprocess.run([sys.executable, "-m", f"score_lightning.{command}", *arguments], check=False).returncode
    if code in (INTERRUPTED, RESUMABLE):
        raise SystemExit(code)
    if code:
        raise UserError(f"{command} {' '.join(arguments)} failed; what went wrong stands above")


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
    out, seeds = Path(options.get("out", "docs")), options.get("seeds", SEEDS)
    if "exp" in options:
        if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
            raise UserError(f"seeds must be different whole numbers, got {seeds}")
        name = options.get("name", Path(options["exp"]).stem)
        plan = Plan(name, options["exp"], overrides, Path(options.get("runs", "runs/results")), options.get("n"))
        if config.load([*overrides, "seed=0"], plan.exp).config.points:
            raise UserError(f"exp={plan.exp} is of points: results are of images; its figure is in docs/theory.md")
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        plan.write(seeds, options.get("note", ""), out / FOLDER)
    elif overrides:
        raise UserError(f"{overrides[0]} is of a training: exp=NAME is missing")
    out.mkdir(parents=True, exist_ok=True)
    write_page(out)
    print(f"Everything is in {out / 'results.md'}")


if __name__ == "__main__":
    cli.run(main, usage)
