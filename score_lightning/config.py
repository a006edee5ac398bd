"""Configurations: typed sections, parts from YAML files, key=value words; nothing here knows torch.

A configuration is made of layers, each over the one before: the defaults below, the parts that an experiment lists
(files of configs/<kind>/), the experiment's own values, and the words of the command line. A word like `data=folder`
exchanges a whole section for a file of its kind, a word like `data.path=DIR` sets one field.
"""

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from score_lightning.errors import UserError

ROOT = Path(__file__).parent.parent
PART_KINDS = ("data", "net", "schedule", "objective", "sampler", "preview")


def doc(text: str, default: Any = MISSING, factory: Any = None) -> Any:
    """A dataclass field with a word on what it is."""
    return (
        field(default_factory=factory, metadata={"doc": text})
        if factory
        else field(default=default, metadata={"doc": text})
    )


@dataclass
class Images:
    """What the model sees of the data, wherever they come from."""

    size: int = doc("height and width in pixels")
    channels: int = doc("1 for grey, 3 for colour")
    range: list[float] = doc("range of pixels inside the model", factory=lambda: [-1.0, 1.0])
    flip: bool = doc("flip training images left to right at random", False)
    dequantize: bool = doc("add uniform noise below one grey level to training images", False)


@dataclass
class Optimizer:
    """Adam."""

    lr: float = doc("learning rate", 2e-4)
    betas: list[float] = doc("decay of the first and second moments", factory=lambda: [0.9, 0.999])
    eps: float = doc("added to the root of the second moment", 1e-8)
    weight_decay: float = doc("weight decay", 0.0)
    warmup: int = doc("steps over which the learning rate grows from 0", 0)
    decay: bool = doc("let the learning rate fall linearly to 0 at trainer.max_steps", False)
    clip: float | None = doc("largest norm of the gradient (null: no limit)", None)


@dataclass
class Ema:
    """Exponential moving average of the weights: what is validated, sampled and evaluated."""

    decay: float = doc("decay per step (0: the weights themselves)", 0.9999)
    warmup: bool = doc("decay at most (1 + step) / (10 + step)", True)


@dataclass
class Trainer:
    """The run."""

    max_steps: int = doc("optimizer steps")
    batch_size: int = doc("images per step, over all processes", 128)
    accumulate: int = doc("batches whose gradients are added up before a step", 1)
    precision: str = doc("Lightning's precision: 32-true, bf16-mixed, 16-mixed ...", "32-true")
    accelerator: str = doc("auto, cpu, gpu, mps ...", "auto")
    devices: str = doc("number of processes per node (auto: one for each GPU, or 1)", "auto")
    num_nodes: int = doc("number of machines", 1)
    strategy: str = doc("Lightning's strategy: auto, ddp ...", "auto")
    workers: int = doc("processes that load images (pays where they do not fit in memory)", 0)
    log_every: int = doc("steps between logged training losses", 50)
    checkpoint_every: int = doc("steps between checkpoints", 1000)
    progress: bool = doc("show progress bars", True)


@dataclass
class Validation:
    """The loss of held-out images on fixed times with fixed noise."""

    every: int = doc("steps between validations", 1000)
    n: int = doc("number of (image, time, noise) triples", 1000)
    levels: int = doc("noise levels that the loss is reported for", 10)


@dataclass
class Samples:
    """Grids of samples during training."""

    n: int = doc("images in a grid (0: no grids)", 64)
    every: int = doc("steps between grids (the last step always has one)", 5000)


@dataclass
class Evaluation:
    """Fréchet distance and inception score of generated images against the training images."""

    n: int = doc("generated images (0: no evaluation during training)", 1000)
    every: int | None = doc("steps between evaluations during training (null: at the end only)", None)
    features: str = doc("inception, classifier, or auto: inception if its weights can be had, else classifier", "auto")
    weights: str | None = doc("file of the Inception weights (null: torch's cache or a download)", None)
    splits: int = doc("parts that the inception score is averaged over", 10)
    batch_size: int = doc("images generated at once", 256)


@dataclass
class Logger:
    """Where numbers and pictures go besides the run folder."""

    wandb: str = doc("Weights & Biases: auto (online with a key, else offline), online, offline or off", "auto")
    project: str = doc("project at Weights & Biases", "score_lightning")


@dataclass
class Config:
    """A whole run."""

    exp: str = doc("experiment: a name in experiments/ or a path to a YAML file")
    seed: int = doc("seed of everything random", 0)
    out: str = doc("folder of runs, or of results for eval and sample", "runs")
    images: Images = doc("", factory=Images)
    data: dict[str, Any] = doc("where images come from", factory=dict)
    net: dict[str, Any] = doc("the network", factory=dict)
    schedule: dict[str, Any] = doc("the noise levels", factory=dict)
    prediction: str = doc("what the network's output means: score, eps, x_0 or v", "eps")
    conditioning: str = doc("what the network is told of the noise: time, level or log_sigma", "time")
    objective: dict[str, Any] = doc("the loss", factory=dict)
    sampler: dict[str, Any] = doc("the sampler", factory=dict)
    preview: dict[str, Any] = doc("the sampler of grids and evaluation during training (none: sampler)", factory=dict)
    optimizer: Optimizer = doc("", factory=Optimizer)
    ema: Ema = doc("", factory=Ema)
    trainer: Trainer = doc("", factory=Trainer)
    validation: Validation = doc("", factory=Validation)
    samples: Samples = doc("", factory=Samples)
    evaluation: Evaluation = doc("", factory=Evaluation)
    logger: Logger = doc("", factory=Logger)


@dataclass(frozen=True)
class Resolved:
    """A complete configuration.

    Args:
        config: the values, with attribute access.
        origins: dotted key -> the file, or the command line, that it stands in.
    """

    config: Config
    origins: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """The configuration as dicts, lists, strings and numbers."""
        return to_plain(self.config)


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration as dicts, lists, strings and numbers."""
    return OmegaConf.to_container(OmegaConf.structured(config), resolve=True)  # type: ignore[return-value]


def to_yaml(plain: Mapping[str, Any]) -> str:
    """A plain configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(plain)))


def load(words: Sequence[str], exp: str) -> Resolved:
    """The configuration of an experiment, changed by key=value words.

    Raises:
        UserError: when the experiment, a part or a key is unknown, or a value is of the wrong type.
    """
    path = find_experiment(exp)
    values = read_yaml(path)
    parts = values.pop("parts", [])
    if not isinstance(parts, list) or not all(isinstance(p, str) and p.count("/") == 1 for p in parts):
        raise UserError(f"{path}: parts must be a list like [data/digits, net/unet], got {parts!r}")
    layers = [_part_layer(kind, name, where=show(path)) for kind, name in (part.split("/") for part in parts)]
    return _merge([*layers, (values, show(path))], ["exp=" + path.stem, *words])


def change(plain: Mapping[str, Any], source: str, words: Sequence[str]) -> Resolved:
    """A resolved configuration, as a checkpoint holds it, changed by key=value words.

    Raises:
        UserError: as `load`.
    """
    return _merge([(dict(plain), source)], words)


def experiments() -> list[str]:
    """Names of all experiments that come with the project."""
    return sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def parts(kind: str) -> list[str]:
    """Names of all parts of a kind."""
    return sorted(path.stem for path in (ROOT / "configs" / _folder(kind)).glob("*.yaml"))


def find_experiment(exp: str) -> Path:
    """The file of an experiment, given by name or by path.

    Raises:
        UserError: when there is none.
    """
    for path in (Path(exp), ROOT / "experiments" / f"{exp}.yaml"):
        if path.is_file():
            return path
    raise UserError(f"unknown experiment {exp!r}{_hint(exp, experiments())}; there are {', '.join(experiments())}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: when it is not valid YAML or not a mapping.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys and values, got {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def show(path: Path) -> str:
    """A path as messages name it: relative to the project where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _folder(kind: str) -> str:
    return "sampler" if kind == "preview" else kind


def _part_layer(kind: str, name: str, where: str) -> tuple[dict[str, Any], str]:
    """The layer of one part: {kind: its values}, and its file."""
    path = ROOT / "configs" / _folder(kind) / f"{name}.yaml"
    if not path.is_file():
        known = parts(kind)
        raise UserError(
            f"unknown {kind} {name!r} ({where}){_hint(name, known)}; there are {', '.join(known)}"
            if known
            else f"unknown kind of part {kind!r} ({where})"
        )
    return {kind: read_yaml(path)}, show(path)


def _merge(layers: Sequence[tuple[dict[str, Any], str]], words: Sequence[str]) -> Resolved:
    config = OmegaConf.structured(Config)
    origins: dict[str, str] = {}
    for values, source in [*layers, *_word_layers(words)]:
        _check_keys(values, Config, "", source)
        for kind in set(values) & set(PART_KINDS):
            # a part that brings a name is a new part: nothing of the old one stays
            if isinstance(values[kind], Mapping) and "name" in values[kind]:
                config[kind] = {}
                origins = {key: o for key, o in origins.items() if not key.startswith(f"{kind}.")}
        try:
            config = OmegaConf.merge(config, values)
        except OmegaConfBaseException as error:
            reason = str(error.msg if hasattr(error, "msg") and error.msg else error).splitlines()[0]
            raise UserError(f"{error.full_key or 'configuration'}: {reason} ({source})") from error
        origins |= dict.fromkeys(_dotted(values), source)
    missing = sorted(str(key) for key in OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"no value for {', '.join(missing)}: set it in the experiment or as {missing[0]}=…")
    return Resolved(OmegaConf.to_object(config), origins)  # type: ignore[arg-type]


def _word_layers(words: Sequence[str]) -> list[tuple[dict[str, Any], str]]:
    """Layers of the command line: exchanged sections first, then single fields, each in the order given."""
    exchanged, fields_ = [], []
    sections = {f.name for f in fields(Config) if f.name in PART_KINDS or is_dataclass(f.type)}
    for word in words:
        key, value = parse_word(word)
        if key in sections:
            if not isinstance(value, str):
                raise UserError(f"{key}={value!r}: {key} takes the name of a file in configs/{_folder(key)}/")
            exchanged.append(_part_layer(key, value, where="command line"))
        else:
            layer: Any = value
            for name in reversed(key.split(".")):
                layer = {name: layer}
            fields_.append((layer, "command line"))
    return [*exchanged, *fields_]


def parse_word(word: str) -> tuple[str, Any]:
    """(key, value) of a key=value word, the value read as YAML.

    Raises:
        UserError: when the word has no = or its value is not valid YAML.
    """
    key, separator, text = word.partition("=")
    if not separator or not key:
        raise UserError(f"expected key=value, got {word!r} (--help lists the keys)")
    if text in ("on", "off", "yes", "no"):
        return key, text  # booleans in YAML 1.1, but words to people: logger=off
    try:
        value = OmegaConf.to_container(OmegaConf.load(io.StringIO(f"value: {text}")))["value"]  # type: ignore
    except (YAMLError, OmegaConfBaseException, TypeError, KeyError) as error:
        raise UserError(f"{key}: the value {text!r} cannot be read") from error
    return key, value


def _check_keys(values: Mapping[str, Any], section: type, prefix: str, source: str) -> None:
    known = {f.name: f for f in fields(section)}
    for key, value in values.items():
        if key not in known:
            where = f"{prefix.rstrip('.')} has" if prefix else "there are"
            raise UserError(f"unknown key {prefix}{key!s} ({source}){_hint(key, known)}; {where} {', '.join(known)}")
        kind = known[key].type
        if is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UserError(f"{prefix}{key} is a section, got {value!r} ({source})")
            _check_keys(value, kind, f"{prefix}{key}.", source)  # type: ignore[arg-type]


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys


def _hint(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(word), list(known), 1)
    return f": did you mean {close[0]}?" if close else ""


def suggest(word: str, known: Sequence[str]) -> str:
    """': did you mean X?' for the known word closest to a typo, or nothing."""
    return _hint(word, known)


def describe() -> str:
    """Every key with its default and a word on it, one a line."""
    return "\n".join(_describe(Config, ""))


def _describe(section: type, prefix: str) -> list[str]:
    lines = []
    for f in fields(section):
        if is_dataclass(f.type):
            lines += _describe(f.type, f"{prefix}{f.name}.")  # type: ignore[arg-type]
            continue
        default = f.default_factory() if callable(f.default_factory) else f.default
        key, text = prefix + f.name, f.metadata["doc"]
        if f.name in PART_KINDS:
            key, text = f"{key}=NAME", f"{text}: {', '.join(parts(f.name))}; {f.name}.KEY=… sets a field"
        elif default != MISSING:
            text = f"{text} [{'null' if default is None else default}]"
        lines.append(f"  {key:28} {text}")
    return lines
