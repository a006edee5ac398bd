"""Turns published weights into a checkpoint: python -m score_lightning.import_weights path=FILE exp=RECIPE out=FILE."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import cli, config
from score_lightning.errors import UserError
from score_lightning.runtime.files import sha256_of_file, sha256_of_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from score_lightning.formats import Published, Sources
    from score_lightning.schedules import Schedule

OPTIONS = {"format": str, "path": str, "exp": str, "out": str}
NAMES = ("ncsn", "ncsnv2", "ddim", "score_sde", "improved-diffusion", "diffusers", "edm")


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.import_weights path=FILE exp=RECIPE [key=value …]

Turns weights that were published elsewhere into a checkpoint for eval, sample, export and train init=.
  path=FILE            the published file, or the folder of a diffusers pipeline; no code in it is run
  exp=RECIPE           experiment that the weights belong to: its network, noise levels and prediction
  format={"|".join(NAMES)}
                       the layout of the file; found out where it is left out
  out=FILE.ckpt        the checkpoint [RECIPE.ckpt]
  KEY=VALUE            changes the recipe, as in train: net.channels=64

Averaged weights are taken where the file has them. Of a diffusers folder the network's settings are taken, too.

experiments: {", ".join(config.experiments())}"""


def main(words: Sequence[str]) -> None:
    """Imports what the words say."""
    own, rest = cli.split_arguments(words, OPTIONS, required=("path", "exp"))
    name, path = own.get("format"), Path(own["path"]).expanduser()
    if name is not None and name not in NAMES:
        raise UserError(f"unknown format {name!r}{config.suggest(name, NAMES)}; there are {', '.join(NAMES)}")
    out = Path(own.get("out", f"{Path(own['exp']).stem}.ckpt")).expanduser()
    resolved = config.load(rest, own["exp"])

    from score_lightning import checkpoint, formats
    from score_lightning.experiment.build import build_model

    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"out={out} is the published file itself")
    if not out.name or out.is_dir():
        raise UserError(f"out={out} must be a file to write")
    published, options = (None, {}) if path.is_dir() else (formats.read(path), {})
    if published is not None and name is None:
        # of a layout that is not known the closest is tried, to say what differs
        name = formats.detect(published.weights) or formats.closest(published.weights)
    if published is None or name == "diffusers":
        if name not in (None, "diffusers"):
            raise UserError(f"{path} is a folder; format={name} is a file")
        name, resolved, published, options = "diffusers", *_open_diffusers(path, resolved, published)
    model = build_model(resolved)
    net: Any = model.net
    sources = _sources(name, net, own["exp"], path, options)
    try:
        entries = formats.translate(net, published, sources, str(name))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    check_sigmas(published.weights.get("sigmas"), model.schedule, path)
    if name in ("diffusers", "improved-diffusion") and resolved.config.labels.classes:
        resolved = config.change(resolved.plain(), str(path), ["labels.drop=0"])  # trained with labels only
    prefixed = {kind: {f"net.{key}": value for key, value in state.items()} for kind, state in entries.items()}
    sha256 = sha256_of_folder(path) if path.is_dir() else sha256_of_file(path)
    imported = {"format": str(name), "file": path.name, "sha256": sha256}
    checkpoint.write(out, resolved.plain(), prefixed, published.step, imported)
    weights = sum(value.numel() for value in entries["ema"].values())
    print(f"Imported {weights:,} numbers in format={name}, {'averaged' if published.average else 'as they are'}: {out}")
    print(f"Next: python -m score_lightning.sample ckpt={out} n=16 out=samples")
    print(f"  or: make eval CKPT={out}")


def _sources(name: str | None, net: "nn.Module", exp: str, path: Path, options: dict[str, Any]) -> "Sources":
    """Where the network's entries come from.

    Raises:
        UserError: when the layout is not known, or holds no such networks.
    """
    from score_lightning import formats

    if name is None:
        raise UserError(f"{path}: of no known format ({', '.join(NAMES)})")
    layout = formats.FORMATS[name]
    if not isinstance(net, layout.networks):
        kinds = " or ".join(network.__name__ for network in layout.networks)
        raise UserError(
            f"{path}: format={name} holds a {kinds}, exp={exp} has a {type(net).__name__}: take another exp"
        )
    return layout.sources(net, **options)


def _open_diffusers(
    path: Path, resolved: config.Resolved, bare: "Published | None"
) -> tuple[config.Resolved, "Published", dict[str, Any]]:
    """The recipe with the folder's network, its weights, and the names that they have.

    Of a bare file of weights the recipe says all the rest.
    """
    from score_lightning import formats
    from score_lightning.formats import diffusers

    if bare is not None and diffusers.is_bare(path):
        print(f"{path} has no config.json beside it: the network's settings are the recipe's")
        return resolved, bare, {"former": _former(bare)}
    folder = diffusers.open_folder(path)
    settings = diffusers.net_settings(folder.unet, path)
    plain = resolved.plain()
    if plain["net"].get("name") != "unet":
        raise UserError(f"{path}: format=diffusers holds a UNet, the recipe has a {plain['net'].get('name')}")
    c = resolved.config
    if c.conditioning != "time" or list(c.images.range) != [-1, 1]:
        raise UserError(
            f"{path}: networks of diffusers are told the time, of pixels in [-1, 1]; the recipe has {c.conditioning}, "
            f"{list(c.images.range)}: add conditioning=time images.range=[-1,1], or take another exp"
        )
    changes = {
        "images": {"size": settings.pop("image_size"), "channels": settings.pop("image_channels")},
        "labels": {"classes": settings.pop("classes")},
        "net": settings,
    }
    if plain["sampler"].get("name") == "ancestral":
        changes["sampler"] = diffusers.sampler_settings(folder.scheduler or {})
    for section, values in changes.items():
        for key, value in values.items():
            if plain[section].get(key, value) != value:
                print(f"{section}.{key}: {value} by config.json, {plain[section][key]} in the recipe")
        plain[section] |= values
    _check_scheduler(folder.scheduler, resolved, path)
    published = formats.read(folder.weights)
    if folder.average is not None:
        published = replace(published, average=formats.read(folder.average).weights)
    options = {"cosines_first": folder.unet["flip_sin_to_cos"], "former": _former(published)}
    return config.change(plain, str(path), []), published, options


def _former(published: "Published") -> bool:
    """Whether the attention has its names from before diffusers 0.18."""
    return any(key.endswith(".proj_attn.weight") for key in published.weights)


def _check_scheduler(scheduler: dict[str, Any] | None, resolved: config.Resolved, path: Path) -> None:
    """Refuses a recipe whose noise levels or prediction are not those of the folder.

    Raises:
        UserError: with the words that change the recipe, where there are any.
    """
    from score_lightning.experiment.build import build_schedule
    from score_lightning.formats import diffusers

    if scheduler is None:
        return
    alpha, prediction = diffusers.levels(scheduler, path)
    if prediction != resolved.config.prediction:
        raise UserError(f"{path}: its scheduler's prediction is {prediction}: add prediction={prediction}")
    schedule = build_schedule(resolved)
    if schedule.levels != len(alpha) or (schedule(schedule.times().flip(0))[0] - alpha).abs().max() > 1e-5:
        raise UserError(
            f"{path}: its scheduler's {len(alpha)} levels ({scheduler.get('beta_schedule')}) are not those of the "
            f"recipe ({resolved.config.schedule}): add schedule=linear_beta or schedule=cosine and their keys"
        )


def check_sigmas(sigmas: "Tensor | None", schedule: "Schedule", path: Path) -> None:
    """Refuses a recipe with other noise levels than those that a file holds, where alpha is 1.

    Raises:
        UserError: naming both.
    """
    # a buffer that was never filled is no ladder
    if (
        sigmas is None
        or sigmas.ndim != 1
        or len(sigmas) < 2
        or not (sigmas.diff() < 0).all()
        or schedule(schedule.t_max)[0] < 1
    ):
        return
    ends = [schedule(t)[1].item() for t in (schedule.t_max, schedule.t_min)]
    theirs = [sigmas[0].item(), sigmas[-1].item()]
    if schedule.levels not in (None, len(sigmas)) or any(
        abs(a / b - 1) > 0.01 for a, b in zip(ends, theirs, strict=True)
    ):
        raise UserError(
            f"{path}: its {len(sigmas)} noise levels go from {theirs[0]:g} to {theirs[1]:g}, those of the recipe "
            f"({schedule.levels or 'continuous'}) from {ends[0]:g} to {ends[1]:g}: take another exp, or add "
            "schedule.sigma_max=… schedule.sigma_min=…"
        )


if __name__ == "__main__":
    cli.run(main, usage)
