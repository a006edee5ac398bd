"""The model card of exported weights: README.md in the layout of the Hugging Face Hub, with samples.png beside it."""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import score_lightning
from score_lightning import config
from score_lightning.evaluation.report import METRICS
from score_lightning.experiment.catalog import read_comment
from score_lightning.experiment.shared import PICTURE, Shared, describe, entries, hub_data, metric_names
from score_lightning.experiment.training_command import training_command
from score_lightning.formats.licenses import UNKNOWN
from score_lightning.formats.native import run_folder_of
from score_lightning.training.record import RECORD, duration

CARD = "README.md"


def write_card(folder: Path, shared: Shared) -> list[str]:
    """Writes README.md, and samples.png, metrics.json, run.json as far as there are such; returns what is missing.

    Where the card's command needs it, there is the configuration as a file, too.
    """
    missing = []
    for name, contents in ((METRICS, shared.metrics), (RECORD, shared.run)):
        if contents:
            (folder / name).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    if shared.picture is not None:
        shutil.copyfile(shared.picture, folder / PICTURE)
    else:
        missing.append(f"No picture of samples: sample ckpt={shared.path} n=64 out=DIR draws one, samples.png")
    if not shared.metrics and not shared.opened.experiment.config.points:
        where = run_folder_of(shared.path) / METRICS
        of = "is not of these weights" if where.is_file() else "is not there"
        missing.append(f"No metrics in the card: {where} {of}; evaluate with eval ckpt={shared.path}, and export again")
    if shared.terms["license"] == UNKNOWN:
        missing.append("The license of the weights is stated as unknown: export with license=NAME, such as license=mit")
    if training_command(shared.plain) is None:
        (folder / f"{shared.name}.yaml").write_text(config.to_yaml(shared.plain), encoding="utf-8")
    (folder / CARD).write_text(card(shared), encoding="utf-8", errors="backslashreplace")
    return missing


def card(shared: Shared) -> str:
    """The whole text."""
    block = yaml.safe_dump(metadata(shared), sort_keys=False, allow_unicode=True)
    method = _method(shared.name)
    title = f"# {shared.name}" + (f": {method}" if method else "")
    picture = f"![Samples]({PICTURE})" if shared.picture is not None else ""
    parts = [title, picture, _model(shared), _training(shared), _evaluation(shared), _use(shared), _license(shared)]
    return f"---\n{block}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def metadata(shared: Shared) -> dict[str, Any]:
    """The block of metadata that the Hub reads."""
    c = shared.opened.experiment.config
    block: dict[str, Any] = {
        **shared.terms,
        "library_name": "diffusers" if shared.format == "diffusers" else "score_lightning",
    }
    if not c.points:
        block["pipeline_tag"] = _task(shared)
    tags = ["score_lightning", "pytorch", "diffusion", "score-based-generative-model", str(c.schedule["name"])]
    block["tags"] = [*tags, *(["class-conditional"] if c.labels.classes else [])]
    if hub_data(shared.plain["data"]):
        block["datasets"] = [hub_data(shared.plain["data"])]
    results = _results(shared)
    if results:
        block["model-index"] = [{"name": shared.name, "results": results}]
    return block


def _results(shared: Shared) -> list[dict[str, Any]]:
    """The metrics as the Hub has them, one result for each sampler."""
    data = str(shared.plain["data"]["name"])
    images, results = f"{shared.metrics.get('settings', {}).get('n', 0):,} images", []
    for label, entry in entries(shared.metrics):
        listed = [
            {"type": _type(name), "value": entry[name], "name": ", ".join([describe(name), *label, images])}
            for name in metric_names(entry)
        ]
        task = {"type": _task(shared), "name": "Image generation"}
        results.append(
            {"task": task, "dataset": {"type": hub_data(shared.plain["data"]) or data, "name": data}, "metrics": listed}
        )
    return results


def _task(shared: Shared) -> str:
    """The Hub's name for what the model does."""
    return "image-to-image" if shared.opened.experiment.config.condition else "unconditional-image-generation"


def _type(name: str) -> str:
    """A metric's identifier at the Hub: that of the field for Inception's features, else the name in metrics.json."""
    return name.removesuffix("_inception")


def _method(name: str) -> str:
    return read_comment(config.find_experiment(name))[0].partition(":")[0] if name in config.experiments() else ""


def _model(shared: Shared) -> str:
    c = shared.opened.experiment.config
    parameters = sum(p.numel() for p in shared.opened.experiment.model.parameters())
    shape = " x ".join(map(str, shared.opened.experiment.shape))
    rows = [
        ("parameters", f"{parameters:,}"),
        ("network", str(c.net["name"])),
        ("noise schedule", str(c.schedule["name"])),
        ("prediction", c.prediction),
        ("objective", str(c.objective["name"])),
        ("sampler", ", ".join(f"{key} {value}" for key, value in c.sampler.items() if key in ("name", "steps"))),
        ("shape", f"{shape}, pixels in [{c.images.range[0]:g}, {c.images.range[1]:g}]" if not c.points else shape),
        ("data", f"{c.data['name']}" + (f" ({hub_data(c.data)})" if hub_data(c.data) else "")),
    ]
    if c.labels.classes:
        rows.append(("classes", str(c.labels.classes)))
    if c.condition:
        rows.append(("conditioned on", str(c.condition["name"])))
    return f"## Model\n\n{_table(['', ''], rows)}"


def _training(shared: Shared) -> str:
    run, c = shared.run, shared.opened.experiment.config
    intro = f"These are the averaged weights of step {shared.opened.step:,}."
    if shared.opened.imported:
        source = ", ".join(f"{key} {value}" for key, value in shared.opened.imported.items())
        return f"## Training\n\nThe weights were not trained with score_lightning: {source}."
    batch = c.trainer.batch_size * c.trainer.accumulate
    rows = [("steps", f"{shared.opened.step:,}, batches of {batch:,}"), ("precision", c.trainer.precision)]
    if run:
        machine = run["device"] if run["device"] != "cpu" else f"{run['processor']}, {run['cores']} cores"
        rows += [
            ("images", f"{run['training_images']:,}, seen {run['steps'] * batch / run['training_images']:,.1f} times"),
            ("wall time", f"{duration(run['wall_seconds'])}, training alone {duration(run['training_seconds'])}"),
            ("machine", f"{run['processes']} x {machine}"),
            ("date", run["date"]),
            ("commit", run["commit"] or "–"),
            ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ]
    command = f"python -m score_lightning.train {_same(shared)}"
    return f"## Training\n\n{intro}\n\n{_table(['', ''], rows)}\n\n{_shell(command)}"


def _same(shared: Shared) -> str:
    """The words on the command line that stand for the configuration."""
    return training_command(shared.plain) or shlex.quote(f"exp={shared.folder}/{shared.name}.yaml")


def _evaluation(shared: Shared) -> str:
    metrics, folder = shared.metrics, shlex.quote(shared.folder)
    if shared.opened.experiment.config.points:
        return ""  # which have no metrics
    if not metrics:
        command = f"python -m score_lightning.eval ckpt={folder} n=10000 out=evaluation"
        note = "There are no metrics of these weights."
        return f"## Evaluation\n\n{note}" + (f"\n\n{_shell(command)}" if shared.format == "safetensors" else "")
    settings, parts = metrics["settings"], []
    for label, entry in entries(metrics):
        intervals, spread = entry.get("intervals") or {}, entry.get("spread") or {}
        head = ["metric", "value"]
        head += (["standard deviation over seeds"] if spread else []) + (["95 % interval"] if intervals else [])
        rows = []
        for name in metric_names(entry):
            low_high = intervals.get(name)
            between = f"{low_high[0]:z.4f} to {low_high[1]:z.4f}" if low_high else "–"
            deviation = f"{spread[name]['std']:.4f}" if name in spread else "–"
            row = [describe(name), f"{entry[name]:z.4f}"]
            rows.append([*row, *([deviation] if spread else []), *([between] if intervals else [])])
        parts += [*(f"### {text}" for text in label), _table(head, rows)]
    parts.append(f"All settings are in `{METRICS}`.")
    if shared.format == "safetensors":
        parts.append(_shell(f"python -m score_lightning.eval ckpt={folder} n={settings['n']} out=evaluation"))
    return "\n\n".join(["## Evaluation", _circumstances(settings), *parts])


def _circumstances(settings: Mapping[str, Any]) -> str:
    """What the metrics are of, in a sentence."""
    sampler, evaluations = settings.get("sampler") or {}, settings.get("evaluations_per_image")
    text = f"{settings['n']:,} images against {settings.get('reference', 'a reference')}"
    if settings.get("reference_images"):
        text += f" ({settings['reference_images']:,} images)"
    if settings.get("features"):
        text += f", features `{settings['features']}`"
    if sampler:
        text += f"; sampler `{sampler['name']}`"
    if evaluations:
        text += f", {evaluations:,} network evaluations per image"
    labels = (settings.get("labels") or {}).get("guidance")
    if settings.get("guidance") or labels:
        text += f"; guidance {settings.get('guidance') or labels:g}"
        text += f" by {settings['guide']}" if "guide" in settings else " by the classes"
    if settings.get("seeds"):
        text += f"; seeds {', '.join(map(str, settings['seeds']))}"
    return text + "."


def _use(shared: Shared) -> str:
    folder = shlex.quote(shared.folder)
    download = f"hf download OWNER/NAME --local-dir {folder}"
    if shared.format == "diffusers":
        load = f'images = DDPMPipeline.from_pretrained("{shared.folder}")(batch_size=16).images'
        python = f"```python\nfrom diffusers import DDPMPipeline\n\n{load}\n```"
        back = f"python -m score_lightning.import_weights path={folder} {_same(shared)} out=model.ckpt"
        sample = "python -m score_lightning.sample ckpt=model.ckpt n=64 out=samples"
        return f"## Use\n\n{python}\n\n{_shell(download, back, sample)}"
    load = f'model = checkpoint.load("{shared.folder}")  # model(x_t, t) has .score, .eps and .x_0'
    python = f"```python\nfrom score_lightning import checkpoint\n\n{load}\n```"
    given = "image=picture.png n=4" if shared.opened.experiment.config.condition else "n=64"
    sample = f"python -m score_lightning.sample ckpt={folder} {given} out=samples"
    version = f"With score_lightning {score_lightning.__version__}:"
    return f"## Use\n\n{version}\n\n{_shell(download, sample)}\n\n{python}"


def _license(shared: Shared) -> str:
    name = shared.terms.get("license_name", shared.terms["license"])
    if name == UNKNOWN:
        text = "The license of these weights is not stated. The terms of the training data may apply to them."
        return f"## License\n\n{text}"
    return f"## License\n\n{name}, for the weights. The terms of the training data may apply to them, too."


def _shell(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
