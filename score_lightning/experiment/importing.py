"""From published weights to a checkpoint: a recipe's network, filled from a file of one of the known layouts."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from score_lightning import config, formats
from score_lightning.config import Resolved
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.unused import say_replaced
from score_lightning.formats import Published, Sources, diffusers, native, scheduler, unet2d
from score_lightning.runtime.files import output_folder, sha256_of_file, sha256_of_folder
from score_lightning.schedules import Schedule


@dataclass(frozen=True)
class Given:
    """Published weights and the recipe that they belong to.

    Args:
        name: of the layout; None where it is none of those known.
        resolved: the recipe; of a folder of diffusers with the network's settings taken from there.
        published: the weights.
        options: of the layout's `sources`.
    """

    name: str | None
    resolved: Resolved
    published: Published
    options: dict[str, Any] = field(default_factory=dict)


def import_weights(resolved: Resolved, path: Path, out: Path, name: str | None = None) -> None:
    """Writes a checkpoint of published weights.

    Args:
        resolved: the recipe, that is its network, noise levels and prediction.
        path: the published file, the index of several, or the folder of a diffusers pipeline; no code in it is run.
        out: the checkpoint.
        name: of the layout in `FORMATS`; detected when None.

    Raises:
        UserError: when the file cannot be read, is not of that layout or of another network, or `out` is no file.
    """
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"out={out} is the published file itself")
    if not out.name or out.is_dir():
        raise UserError(f"out={out} must be a file to write")
    say_replaced(resolved)
    with output_folder(out.parent, [out.name]):
        _translate(_open(resolved, path, name), path, out)


def _translate(given: Given, path: Path, out: Path) -> None:
    """Writes the checkpoint of weights that were read."""
    published, resolved = given.published, given.resolved
    model = Experiment(resolved).model
    net: Any = model.net
    sources = _sources(given, net, path)
    try:
        entries = formats.translate(net, published, sources, str(given.name))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    check_sigmas(published.weights.get("sigmas"), model.schedule, path)
    if given.name in ("diffusers", "improved-diffusion", "guided-diffusion") and resolved.config.labels.classes:
        resolved = config.change(resolved.plain(), str(path), ["labels.drop=0"])  # trained with labels only
    prefixed = {kind: {f"net.{key}": value for key, value in state.items()} for kind, state in entries.items()}
    sha256 = sha256_of_folder(path) if path.is_dir() else sha256_of_file(path)  # an index names its shards only
    imported = {"format": str(given.name), "file": path.name, "sha256": sha256}
    native.write(out, resolved.plain(), prefixed, published.step, imported)
    numbers = sum(value.numel() for value in entries["ema"].values())
    averaged = "averaged" if published.average else "as they are"
    print(f"Imported {numbers:,} numbers in format={given.name}, {averaged}: {out}")


def _open(resolved: Resolved, path: Path, name: str | None) -> Given:
    if path.is_dir():
        if name not in (None, "diffusers"):
            raise UserError(f"{path} is a folder; format={name} is a file")
        return _open_diffusers(resolved, path)
    published = formats.read(path)
    formats.check_origin(published.weights, path)
    if name is None:
        # of an unknown layout the closest is tried, to say what differs
        name = formats.detect(published.weights) or formats.closest(published.weights)
    if name != "diffusers":
        return Given(name, resolved, published)
    if diffusers.is_bare(path):
        print(f"{path} has no config.json beside it: the network's settings are the recipe's")
        return Given(name, resolved, published, {"former": _former(published)})
    return _open_diffusers(resolved, path)


def _sources(given: Given, net: nn.Module, path: Path) -> Sources:
    """Where the network's entries come from.

    Raises:
        UserError: when the layout is not known, or does not hold networks of this class.
    """
    if given.name is None:
        raise UserError(f"{path}: of no known format ({', '.join(formats.FORMATS)})")
    layout = formats.FORMATS[given.name]
    if not isinstance(net, layout.networks):
        kinds = " or ".join(network.__name__ for network in layout.networks)
        raise UserError(
            f"{path}: format={given.name} holds a {kinds}, exp={given.resolved.config.exp} has a "
            f"{type(net).__name__}: take another exp"
        )
    return layout.sources(net, **given.options)


def _open_diffusers(resolved: Resolved, path: Path) -> Given:
    """The weights of a folder, or of a file in one, and the recipe with that folder's network."""
    folder = diffusers.open_folder(path)
    settings = unet2d.net_settings(folder.unet, path)
    plain = resolved.plain()
    _check_recipe(resolved, plain["net"].get("name"), path)
    changes = {
        "images": {"size": settings.pop("image_size"), "channels": settings.pop("image_channels")},
        "labels": {"classes": settings.pop("classes")},
        "net": settings,
    }
    if plain["sampler"].get("name") == "ancestral":
        changes["sampler"] = scheduler.sampler_settings(folder.scheduler or {})
    for section, values in changes.items():
        for key, value in values.items():
            if plain[section].get(key, value) != value:
                print(f"{section}.{key}: {value} by config.json, {plain[section][key]} in the recipe")
        plain[section] |= values
    _check_scheduler(folder.scheduler, resolved, path)
    if path.is_dir():
        _say_what_is_read(folder, path)
    published = formats.read(folder.weights)
    if folder.average is not None:
        published = replace(published, average=formats.read(folder.average).weights)
    options = {"cosines_first": folder.unet["flip_sin_to_cos"], "former": _former(published)}
    return Given("diffusers", config.change(plain, str(path), []), published, options)


def _say_what_is_read(folder: diffusers.Folder, path: Path) -> None:
    """Prints the files of weights that are read, and those in the same folders that are not."""
    for what, file in {"weights": folder.weights, "their average": folder.average}.items():
        if file is not None:
            others = [other.name for other in diffusers.find_weights(file.parent) if other != file]
            rather = f", rather than {', '.join(others)}" if others else ""
            print(f"{what}: {file.relative_to(path)}{rather}")


def _former(published: Published) -> bool:
    """Whether the attention has its names from before diffusers 0.18."""
    return any(key.endswith(".proj_attn.weight") for key in published.weights)


def _check_recipe(resolved: Resolved, net: object, path: Path) -> None:
    """Refuses a recipe that no network of diffusers belongs to."""
    if net != "unet":
        raise UserError(f"{path}: format=diffusers holds a UNet, the recipe has a {net}")
    c = resolved.config
    if c.conditioning != "time" or list(c.images.range) != [-1, 1]:
        raise UserError(
            f"{path}: networks of diffusers are conditioned on the time and take pixels in [-1, 1]; the recipe has "
            f"{c.conditioning}, {list(c.images.range)}: add conditioning=time images.range=[-1,1], or take another exp"
        )


def _check_scheduler(settings: dict[str, Any] | None, resolved: Resolved, path: Path) -> None:
    """Refuses a recipe whose noise levels or prediction are not those of the folder.

    Raises:
        UserError: with the overrides that change the recipe, where there are any.
    """
    if settings is None:
        return
    alpha, prediction = scheduler.levels(settings, path)
    if prediction != resolved.config.prediction:
        raise UserError(f"{path}: its scheduler's prediction is {prediction}: add prediction={prediction}")
    schedule = Experiment(resolved).schedule
    if schedule.levels != len(alpha) or (schedule(schedule.times().flip(0))[0] - alpha).abs().max() > 1e-5:
        raise UserError(
            f"{path}: its scheduler's {len(alpha)} levels ({settings.get('beta_schedule')}) are not those of the "
            f"recipe ({resolved.config.schedule}): add schedule=linear_beta or schedule=cosine and their keys"
        )


def check_sigmas(sigmas: Tensor | None, schedule: Schedule, path: Path) -> None:
    """Refuses a recipe with other noise levels than those that a file holds, where alpha is 1.

    Raises:
        UserError: naming both.
    """
    if sigmas is None or not _is_ladder(sigmas) or schedule(schedule.t_max)[0] < 1:
        return
    ends = [schedule(t)[1].item() for t in (schedule.t_max, schedule.t_min)]
    theirs = [sigmas[0].item(), sigmas[-1].item()]
    differs = any(abs(a / b - 1) > 0.01 for a, b in zip(ends, theirs, strict=True))
    if schedule.levels not in (None, len(sigmas)) or differs:
        raise UserError(
            f"{path}: its {len(sigmas)} noise levels go from {theirs[0]:g} to {theirs[1]:g}, those of the recipe "
            f"({schedule.levels or 'continuous'}) from {ends[0]:g} to {ends[1]:g}: take another exp, or add "
            "schedule.sigma_max=… schedule.sigma_min=…"
        )


def _is_ladder(sigmas: Tensor) -> bool:
    """Whether noise levels descend; a buffer that was never filled does not."""
    return sigmas.ndim == 1 and len(sigmas) >= 2 and bool((sigmas.diff() < 0).all())
