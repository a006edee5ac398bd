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
from score_lightning.experiment.commands import evaluation_overrides, training_command
from score_lightning.experiment.exported import PICTURE, Exported, describe, entries, metric_names
from score_lightning.experiment.hub import hub_data, metadata
from score_lightning.formats.licenses import UNKNOWN
from score_lightning.formats.native import run_folder_of
from score_lightning.training.record import RECORD, duration

CARD = "README.md"


def write_card(folder: Path, exported: Exported) -> list[str]:
    """Writes README.md, and samples.png, metrics.json, run.json where they exist; returns what is missing.

    Where the card's command needs it, there is the configuration as a file, too.
    """
    missing = []
    for name, contents in ((METRICS, exported.metrics), (RECORD, exported.run)):
        if contents:
            (folder / name).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    if exported.picture is not None:
        shutil.copyfile(exported.picture, folder / PICTURE)
    else:
        missing.append(f"No picture of samples: sample ckpt={exported.path} n=64 out=DIR draws one, samples.png")
    if not exported.metrics and not exported.opened.experiment.config.points:
        where = run_folder_of(exported.path) / METRICS
        of = "is not of these weights" if where.is_file() else "is not there"
        missing.append(
            f"No metrics in the card: {where} {of}; evaluate with eval ckpt={exported.path}, and export again"
        )
    if exported.terms["license"] == UNKNOWN:
        missing.append("The license of the weights is stated as unknown: export with license=NAME, such as license=mit")
    if training_command(exported.plain) is None:
        (folder / f"{exported.name}.yaml").write_text(config.to_yaml(exported.plain), encoding="utf-8")
    (folder / CARD).write_text(card(exported), encoding="utf-8", errors="backslashreplace")
    return missing


def card(exported: Exported) -> str:
    """The whole text."""
    block = yaml.safe_dump(metadata(exported), sort_keys=False, allow_unicode=True)
    method = _method(exported.name)
    title = f"# {exported.name}" + (f": {method}" if method else "")
    picture = f"![Samples]({PICTURE})" if exported.picture is not None else ""
    parts = [
        title,
        picture,
        _model(exported),
        _training(exported),
        _evaluation(exported),
        _use(exported),
        _license(exported),
    ]
    return f"---\n{block}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _method(name: str) -> str:
    return read_comment(config.find_experiment(name))[0].partition(":")[0] if name in config.experiments() else ""


def _model(exported: Exported) -> str:
    c = exported.opened.experiment.config
    parameters = sum(p.numel() for p in exported.opened.experiment.model.parameters())
    shape = " x ".join(map(str, exported.opened.experiment.shape))
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


def _training(exported: Exported) -> str:
    run, c = exported.run, exported.opened.experiment.config
    intro = f"These are the averaged weights of step {exported.opened.step:,}."
    if exported.opened.imported:
        source = ", ".join(f"{key} {value}" for key, value in exported.opened.imported.items())
        return f"## Training\n\nThe weights were not trained with score_lightning: {source}."
    batch = c.trainer.batch_size * c.trainer.accumulate
    rows = [("steps", f"{exported.opened.step:,}, batches of {batch:,}"), ("precision", c.trainer.precision)]
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
    command = f"python -m score_lightning.train {_same(exported)}"
    return f"## Training\n\n{intro}\n\n{_table(['', ''], rows)}\n\n{_shell(command)}"


def _same(exported: Exported) -> str:
    """The overrides that stand for the configuration."""
    return training_command(exported.plain) or shlex.quote(f"exp={exported.folder}/{exported.name}.yaml")


def _evaluation(exported: Exported) -> str:
    metrics, folder = exported.metrics, shlex.quote(exported.folder)
    if exported.opened.experiment.config.points:
        return ""  # which have no metrics
    if not metrics:
        command = f"python -m score_lightning.eval ckpt={folder} n=10000 out=evaluation"
        note = "There are no metrics of these weights."
        return f"## Evaluation\n\n{note}" + (f"\n\n{_shell(command)}" if exported.format == "safetensors" else "")
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
        if exported.format == "safetensors":
            overrides = evaluation_overrides(exported.plain, settings, entry.get("sampler") or settings.get("sampler"))
            command = f"python -m score_lightning.eval ckpt={folder} n={settings['n']} {overrides}".rstrip()
            parts.append(_shell(f"{command} out=evaluation"))
    parts.append(f"All settings are in `{METRICS}`.")
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


def _use(exported: Exported) -> str:
    folder = shlex.quote(exported.folder)
    download = f"hf download OWNER/NAME --local-dir {folder}"
    if exported.format == "diffusers":
        load = f'images = DDPMPipeline.from_pretrained("{exported.folder}")(batch_size=16).images'
        python = f"```python\nfrom diffusers import DDPMPipeline\n\n{load}\n```"
        back = f"python -m score_lightning.import_weights path={folder} {_same(exported)} out=model.ckpt"
        sample = "python -m score_lightning.sample ckpt=model.ckpt n=64 out=samples"
        return f"## Use\n\n{python}\n\n{_shell(download, back, sample)}"
    load = f'model = checkpoint.load("{exported.folder}")  # model(x_t, t) has .score, .eps and .x_0'
    python = f"```python\nfrom score_lightning import checkpoint\n\n{load}\n```"
    given = "image=picture.png n=4" if exported.opened.experiment.config.condition else "n=64"
    sample = f"python -m score_lightning.sample ckpt={folder} {given} out=samples"
    version = f"With score_lightning {score_lightning.__version__}:"
    return f"## Use\n\n{version}\n\n{_shell(download, sample)}\n\n{python}"


def _license(exported: Exported) -> str:
    name = exported.terms.get("license_name", exported.terms["license"])
    if name == UNKNOWN:
        text = "The license of these weights is not stated. The terms of the training data may apply to them."
        return f"## License\n\n{text}"
    return f"## License\n\n{name}, for the weights. The terms of the training data may apply to them, too."


def _shell(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
