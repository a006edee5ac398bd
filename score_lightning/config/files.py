"""Where experiments and parts lie, and how their YAML is read.

Those of the project stand in experiments/ and configs/ at the top of its repository, and in the package of a wheel. A
user's own stand in folders of these names in the working directory, and are found first.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from score_lightning.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = (PACKAGE / "shipped").is_dir()
"""Whether this is an installed wheel; else it is a checkout of the repository, perhaps an editable install."""
ROOT = PACKAGE / "shipped" if INSTALLED else PACKAGE.parent
"""What the project's experiments/ and configs/ lie in."""
PART_KINDS = ("condition", "data", "net", "schedule", "objective", "sampler", "preview", "features")
"""The parts of a configuration that are exchanged by name: folders of configs/."""
Parts = Mapping[str, Mapping[str, Callable[..., Any]]]
"""Parts of a user's own, given in Python: kind -> name in a configuration -> constructor."""


def _places(name: str) -> list[Path]:
    """A folder of the working directory, unless it is the project's or not there, and that of the project."""
    own, ours = Path(name), ROOT / name
    return [own, ours] if own.is_dir() and not (ours.is_dir() and own.samefile(ours)) else [ours]


def experiments() -> list[str]:
    """Names of all experiments, those of the working directory and those that come with the project."""
    return sorted({path.stem for place in _places("experiments") for path in place.glob("*.yaml")})


def own_experiments() -> list[str]:
    """Names of the experiments of the working directory, other than the project's."""
    return sorted(path.stem for place in _places("experiments")[:-1] for path in place.glob("*.yaml"))


def parts(kind: str) -> list[str]:
    """Names of all parts of a kind, those of the working directory and those that come with the project."""
    return sorted({path.stem for place in _places(f"configs/{folder(kind)}") for path in place.glob("*.yaml")})


def find_part(kind: str, name: str) -> Path:
    """The file of a part that `parts` names."""
    paths = [place / f"{name}.yaml" for place in _places(f"configs/{folder(kind)}")]
    return next((path for path in paths if path.is_file()), paths[-1])


def replaced(sources: Iterable[str]) -> list[str]:
    """Of files of the working directory, as `show` names them, those that take the place of one of the project."""
    return sorted(source for source in set(sources) if source.startswith("./") and (ROOT / source).is_file())


def find_experiment(exp: str) -> Path:
    """The file of an experiment, given by name or by path.

    Raises:
        UserError: when there is none.
    """
    for path in (Path(exp), *(place / f"{exp}.yaml" for place in _places("experiments"))):
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
        raise UserError(f"{show(path)} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{show(path)} must hold keys and values, got {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def show(path: Path) -> str:
    """A path as messages name it: relative to the project where it lies inside, after ./ in the working directory."""
    if path.resolve().is_relative_to(ROOT):
        return path.resolve().relative_to(ROOT).as_posix()
    return str(path) if path.is_absolute() or path.parts[0] == ".." else f"./{path.as_posix()}"


def folder(kind: str) -> str:
    """The folder below configs/ with the parts of a kind."""
    return "sampler" if kind == "preview" else kind


def suggest(name: str, known: Iterable[str]) -> str:
    """': did you mean X?' for the known name closest to a typo, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f": did you mean {close[0]}?" if close else ""
