"""What a constructor's signature says of its keywords, to check a configuration against."""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal


def keyword_types(constructor: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """keyword -> (its type, whether it must be given) of a class or function."""
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    parameters = inspect.signature(constructor).parameters.items()
    return {name: (hints.get(name, Any), p.default is p.empty) for name, p in parameters}


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type; whole numbers are also floats, types that are not plain always fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, type(None)) else True


def hint_name(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(hint_name(argument) for argument in arguments)
    if origin is Sequence:
        return f"a list of {hint_name(arguments[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(hint, str(hint))
