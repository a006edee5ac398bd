"""Durations of alternatives that are measured in turn, so that whatever else the machine does hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Durations of the repetitions of one thing, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def alternate(functions: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, Timing]:
    """Durations of functions that are called in turn: a b c a b c ...

    Args:
        functions: what to call, by name; one that returns a float has measured itself, in seconds.
        repeats: calls of each that count.
        warmup: calls of each before those.
    """
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(warmup + repeats):
        for name, function in functions.items():
            found[name].append(_duration(function))
    return {name: Timing(tuple(seconds[warmup:])) for name, seconds in found.items()}


def wait() -> None:
    """Waits for the GPU, where one is in use."""
    if torch.cuda.is_initialized():  # before that nothing can be under way; is_available() takes half a millisecond
        torch.cuda.synchronize()


def _duration(function: Callable[[], Any]) -> float:
    wait()
    start = time.perf_counter()
    own = function()
    wait()
    return own if isinstance(own, float) else time.perf_counter() - start
