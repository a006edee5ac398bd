"""The text of --help on settings: every key with its help text and default."""

from dataclasses import fields, is_dataclass

from omegaconf import MISSING

from score_lightning.config.files import PART_KINDS, find_part, parts, read_yaml
from score_lightning.config.schema import Config
from score_lightning.errors import UserError


def describe() -> str:
    """Every key with its help text and default, one per line."""
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
            lines += [f"  {key + '=NAME':28} {text}; {key}.KEY=… sets a field", *_describe_parts(f.name)]
            continue
        if default != MISSING:
            text = f"{text} [{'null' if default is None else default}]"
        lines.append(f"  {key:28} {text}")
    return lines


def _describe_parts(kind: str) -> list[str]:
    """The files of a kind of part, each with its keys and their values."""
    if kind == "preview":
        return []
    lines = []
    for name in parts(kind):
        path = find_part(kind, name)
        try:
            values = read_yaml(path)
        except UserError as error:  # a user's own
            lines.append(f"      {name:24} {str(error).splitlines()[0]}")
            continue
        keys = [f"{k} {'null' if value is None else value}" for k, value in values.items() if k != "name"]
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        word = [f" {first}"] if first.startswith("#") else []
        lines.append(f"      {name:24} {' '.join([', '.join(keys), *word]).strip()}")
    return lines
