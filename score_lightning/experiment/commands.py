"""The commands that train a configuration again, and evaluate it as it was evaluated."""

import shlex
from collections.abc import Mapping
from typing import Any

from score_lightning import config
from score_lightning.config.files import PART_KINDS
from score_lightning.errors import UserError
from score_lightning.runtime.nested import flatten

ANY = ("exp", "out", "logger", "trainer.progress", "trainer.workers", "trainer.keep")
"""Settings that change nothing of what is trained."""
MOST = 24  # overrides that a reader can still survey


def training_command(plain: Mapping[str, Any]) -> str | None:
    """`exp=NAME key=value …` that resolves to a configuration; None where its experiment is not there, or far from it.

    Args:
        plain: the resolved configuration.
    """
    try:
        start = config.load([], str(plain["exp"])).plain()
        overrides = _replaced_parts(start, plain)
        start = config.load(overrides, str(plain["exp"])).plain()
        overrides += [f"{key}={_text(value)}" for key, value in _differing(start, plain).items()]
        again = config.load(overrides, str(plain["exp"])).plain()
    except UserError:
        return None
    if _differing(again, plain) or _differing(plain, again) or len(overrides) > MOST:
        return None
    return shlex.join([f"exp={plain['exp']}", *overrides])


def evaluation_overrides(
    plain: Mapping[str, Any], settings: Mapping[str, Any], sampler: Mapping[str, Any] | None
) -> str:
    """The key=value of `eval` with which metrics repeat, besides ckpt and n.

    Args:
        plain: the configuration of the checkpoint.
        settings: those of metrics.json.
        sampler: with which images were drawn; None where it is not known.
    """
    guidance = (settings.get("labels") or {}).get("guidance")
    overrides = []
    if sampler and sampler != plain["sampler"]:
        overrides += [f"sampler={sampler['name']}"]
        overrides += [f"sampler.{key}={_text(value)}" for key, value in sampler.items() if key != "name"]
    if settings.get("seeds") not in (None, [], [0]):
        overrides.append(f"seeds={_text(settings['seeds'])}")
    if guidance is not None and guidance != plain["labels"]["guidance"]:
        overrides.append(f"labels.guidance={guidance}")
    if settings.get("guide") and settings["guide"] != plain["guide"]:
        overrides += [
            f"{key}={_text(settings[key])}" for key in ("guide", "guidance", "guidance_interval") if key in settings
        ]
    if settings.get("continuous") and not plain["continuous"]:
        overrides.append("continuous=true")
    if settings.get("likelihood"):
        overrides.append(f"likelihood={settings['likelihood']['n']}")
    if settings.get("features") and plain["features"]["name"] == "auto":
        overrides.append(f"features={settings['features']}")
    reference = str(settings.get("reference", "")).removesuffix(", held out")
    if reference and reference != plain["data"]["name"]:
        overrides.append(f"reference={reference}")
    return shlex.join(overrides)


def _replaced_parts(start: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """Overrides such as net=unet of the parts that are others by name."""
    names = {kind: (start[kind].get("name"), plain[kind].get("name")) for kind in PART_KINDS}
    return [f"{kind}={name}" for kind, (before, name) in names.items() if name not in (before, None)]


def _differing(start: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration whose values in another one are others."""
    before, after = flatten(start), flatten(plain)
    ignored = tuple(f"{name}." for name in ANY)
    return {
        key: value
        for key, value in after.items()
        if key not in ANY and not key.startswith(ignored) and (key not in before or before[key] != value)
    }


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(_text(item) for item in value)}]" if isinstance(value, list) else str(value)
