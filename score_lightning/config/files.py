"""Where experiments and parts lie, and how their YAML is read."""

import difflib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from score_lightning.errors import UserError

ROOT = Path(__file__).parents[2]
PART_KINDS = ("condition", "data", "net", "schedule", "objective", "sampler", "preview", "features")


def experiments() -> list[str]:
    """Names of all experiments that come with the project."""
    return sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def parts(kind: str) -> list[str]:
    """Names of all parts of a kind."""
    return sorted(path.stem for path in (ROOT / "configs" / folder(kind)).glob("*.yaml"))


def find_experiment(exp: str) -> Path:
    """The file of an experiment, given by name or by path.

    Raises:
        UserError: when there is none.
    """
    for path in (Path(exp), ROOT / "experiments" / f"{exp}.yaml"):
        with suppress(OSError):  # a name that is too long
            if path.is_file():
                return path
    raise UserError(f"unknown experiment {exp!r}{suggest(exp, experiments())}; there are {', '.join(experiments())}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: when it is not valid YAML or not a mapping.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys and values, got {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def show(path: Path) -> str:
    """A path as messages name it: relative to the project where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def folder(kind: str) -> str:
    """The folder below configs/ with the parts of a kind."""
    return "sampler" if kind == "preview" else kind


def suggest(name: str, known: Iterable[str]) -> str:
    """': did you mean X?' for the known name closest to a typo, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f": did you mean {close[0]}?" if close else ""
