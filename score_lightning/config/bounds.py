"""Fields of a configuration: their help text, their default, and the values that they accept."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING


@dataclass(frozen=True)
class Bounds:
    """The values that a field accepts; None is always accepted, where the field's type allows it."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    def accept(self, value: Any) -> bool:
        """Whether a value of the field's type lies within the bounds."""
        if value is None:
            return True
        if self.choices:
            return value in self.choices
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.choices:
            return f"be {', '.join(self.choices[:-1])} or {self.choices[-1]}"
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if high is not None:
            return f"lie between {low} and {high}{'' if self.below is None else f', {high} excluded'}"
        return "be positive" if self.above == 0 else f"be at least {low}"


def doc(text: str, default: Any = MISSING, factory: Any = None, **bounds: Any) -> Any:
    """A dataclass field with its help text and, as keywords of `Bounds`, the values that it accepts."""
    metadata = {"doc": text, "bounds": Bounds(**bounds)}
    return field(default_factory=factory, metadata=metadata) if factory else field(default=default, metadata=metadata)


def out_of_bounds(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) of each value of a section that lies outside its field's bounds."""
    for f in fields(section):
        value, key = getattr(section, f.name), prefix + f.name
        if is_dataclass(value):
            yield from out_of_bounds(value, f"{key}.")
        elif not f.metadata["bounds"].accept(value):
            null = ", or null" if "None" in str(f.type) else ""
            yield key, f"must {f.metadata['bounds']}{null}, got {value!r}"
