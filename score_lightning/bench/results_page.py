"""docs/results.md, of the results that docs/results/*.json hold."""

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from score_lightning import config
from score_lightning.bench.scaling import PEAK, SHARE, cost_of
from score_lightning.errors import UserError
from score_lightning.evaluation.report import show
from score_lightning.experiment.catalog import describe, read_comment
from score_lightning.experiment.exported import metric_names
from score_lightning.runtime.files import write_text
from score_lightning.training.record import duration

SEEDS = [0, 1, 2]
"""Of the trainings where none are given."""

FOLDER = "results"
"""Of the files that the page is made of, beside it."""


def write_page(out: Path) -> None:
    """Writes results.md into a folder, from the files in its folder `results`.

    Raises:
        UserError: when one of them is damaged.
    """
    records = [read_record(path) for path in sorted((out / FOLDER).glob("*.json"))]
    sections = "\n\n".join("\n\n".join(_section(record, out)) for record in records)
    contents = "\n".join(_summary(record) for record in records)
    missing = "\n".join(_not_trained({Path(record["exp"]).stem for record in records}))
    text = PAGE.format(
        contents=contents, sections=sections, missing=missing, peak=f"{PEAK / 1e12:.0f}", share=f"{SHARE:.0%}"
    )
    write_text(out / "results.md", text)


def read_record(path: Path) -> dict[str, Any]:
    """The contents of a result's JSON file.

    Raises:
        UserError: when it is damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lacking = {"name", "exp", "overrides", "n", "note", "runs"} - record.keys()
        if lacking or not record["runs"]:
            raise ValueError(f"it lacks {', '.join(sorted(lacking)) or 'runs'}")
        for run in record["runs"]:
            run["seed"], run["training"]["wall_seconds"], run["evaluation"]["settings"]["n"]
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error!r}. Remove it, and run make results EXP=… again") from error


def _summary(record: Mapping[str, Any]) -> str:
    """The row of a result in the first table."""
    evaluation = record["runs"][0]["evaluation"]
    time = duration(statistics.fmean(run["training"]["wall_seconds"] for run in record["runs"]))
    names = [next((n for n in evaluation if n.startswith(k) and "_std" not in n), None) for k in ("fid_", "is_")]
    fid, score = ("–" if name is None else _of_seeds(record, name) for name in names)
    return (
        f"| [{record['name']}](#{record['name']}) | {_data(record)} | {len(record['runs'])} | {time} "
        f"| {evaluation['settings']['evaluations_per_image']} | {fid} | {score} |"
    )


def _data(record: Mapping[str, Any]) -> str:
    """The file that was trained on, or the name of the data set."""
    path = next((one.partition("=")[2] for one in record["overrides"] if one.startswith("data.path=")), None)
    return path or str(record["runs"][0]["training"]["data"])


def _of_seeds(record: Mapping[str, Any], name: str) -> str:
    """The mean of a metric over the trainings, and its standard deviation where there are several."""
    values = [run["evaluation"][name] for run in record["runs"] if name in run["evaluation"]]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def _section(record: Mapping[str, Any], out: Path) -> Iterator[str]:
    """The paragraphs of a result."""
    name, path = record["name"], config.find_experiment(record["exp"])
    method, published = read_comment(path)
    yield f"## {name}"
    yield f"{method}."
    yield "\n".join(f"| {a} | {b} |" for a, b in [("", ""), ("---", "---"), *_facts(record)])
    yield "\n".join(_metrics(record["runs"]))
    yield " ".join(
        ["Published:", f"{published or 'no number'}.", *_comparison(record, published), record["note"]]
    ).rstrip()
    yield f"![Images of {name}, the first ones of seed 0 of the evaluation as they come]({FOLDER}/{name}.png)"
    seeds = [run["seed"] for run in record["runs"]]
    options = [*record["overrides"], *([] if seeds == SEEDS else [f"seeds={seeds}".replace(" ", "")])]
    options += [f"n={record['n']}"] if record["n"] else []
    overrides = f' ARGS="{" ".join(options)}"' if options else ""
    given = ("" if name == record["exp"] else f" NAME={name}") + overrides
    commands = [f"make results EXP={record['exp']}{given}"]
    if (out / FOLDER / name).is_dir() and "condition" not in record["runs"][0]["evaluation"]["settings"]:
        commands.append(f"python -m score_lightning.sample ckpt={out.name}/{FOLDER}/{name} n=64 out=samples")
    yield "\n".join(["```sh", *commands, "```"])


def _comparison(record: Mapping[str, Any], published: str) -> Iterator[str]:
    """How a published FID compares with the record; nothing where there is none."""
    number = re.search(r"FID (\d+\.\d+)", published)
    if number:
        values = [run["evaluation"].get("fid_inception") for run in record["runs"]]
        if None in values:
            yield f"Metrics of the features {_settings(record)['features']} cannot be compared with it."
        else:
            yield f"The difference is {statistics.fmean(values) - float(number[1]):+.2f}."


def _settings(record: Mapping[str, Any]) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = record["runs"][0]["evaluation"]["settings"]
    return settings


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    trainings, settings = [run["training"] for run in record["runs"]], _settings(record)
    training = trainings[0]
    seconds = {
        key: [one[key] for one in trainings] for key in ("wall_seconds", "training_seconds", "processor_seconds")
    }
    mean = {key: statistics.fmean(values) for key, values in seconds.items()}
    yield "data", f"{_data(record)}, {training['training_images']:,} images"
    yield "network", f"{training['parameters']:,} parameters"
    yield "training", f"{training['steps']:,} steps of {training['batch_size']} images, {training['precision']}"
    yield (
        "time",
        f"{duration(mean['wall_seconds'])} with validation, grids and evaluation, {duration(mean['training_seconds'])} "
        f"without; {duration(mean['processor_seconds'])} of processor time"
        + (f" (means of {len(trainings)})" if len(trainings) > 1 else ""),
    )
    for machine in dict.fromkeys(_machine(one) for one in trainings):
        yield "machine", machine
    sampler = settings["sampler"]
    yield (
        "evaluation",
        f"{settings['n']:,} images against {settings['reference']} ({settings['reference_images']:,}), features "
        f"{settings['features']}; {sampler['name']}, {settings['evaluations_per_image']} network evaluations per image",
    )
    for commit in dict.fromkeys(str(one["commit"]) for one in trainings):
        yield "commit", f"`{commit}`"


def _machine(training: Mapping[str, Any]) -> str:
    processes, threads = training["processes"], training["threads_per_process"]
    parallel = f"{threads} {'thread' if threads == 1 else 'threads'}"
    if processes > 1:
        parallel = f"{processes} processes with {parallel} each"
    where = training["processor"] if training["device"] == "cpu" else f"{training['device']}, {training['processor']}"
    return f"{where}, {parallel}, PyTorch {training['versions']['torch']}"


def _metrics(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows of a table: each metric with its interval, by seed, and over the seeds."""
    evaluations = [run["evaluation"] for run in runs]
    several = len(runs) > 1
    yield "| metric | " + " | ".join(f"seed {run['seed']}" for run in runs) + (" | mean ± std |" if several else " |")
    yield "|---" * (1 + len(runs) + several) + "|"
    for name in dict.fromkeys(name for one in evaluations for name in metric_names(one)):
        cells = [show({**one, "spread": {}}, name) if name in one else "–" for one in evaluations]
        values = [one[name] for one in evaluations if name in one]
        over = f"{statistics.fmean(values):z.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else "–"
        yield f"| {name} | " + " | ".join([*cells, *([over] if several else [])]) + " |"


def _not_trained(done: set[str]) -> Iterator[str]:
    """Rows of the project's experiments of images without a result."""
    for name in sorted({*config.experiments()} - {*config.own_experiments()}):
        resolved = config.load([], name)
        if name not in done and not resolved.config.points:
            row = describe(name)
            yield f"| {name} | {row.data} | {row.published or '–'} | {cost_of(resolved).hours(SHARE):,.1f} |"


PAGE = """# Results

What this project's own trainings reach, with the commands that repeat them. `make results EXP=NAME` trains an
experiment with three seeds, evaluates each, and writes this page; nothing on it is written by hand. In brackets are
95 % intervals, of the draw of the images ([Evaluation](evaluation.md#intervals)); ± is the standard deviation over
trainings with different seeds. Metrics of the features `classifier` compare results of the same data with each other,
and with nothing else.

On the same kind of processor, with the same number of threads, the commands repeat the numbers to the last digit.

| result | data | seeds | training | evaluations per image | Fréchet distance | inception score |
|---|---|---|---|---|---|---|
{contents}

{sections}

## Not trained here

Recipes that need GPUs, and others without a result yet. GPU hours are computed, not measured, for {peak} TFLOP/s (an
A100 in bfloat16), of which training reaches {share} ([Scaling](scaling.md)).

| experiment | data | published | GPU hours |
|---|---|---|---|
{missing}
"""
