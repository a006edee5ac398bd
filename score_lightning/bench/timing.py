"""Durations of alternatives, measured in turn so that other load on the machine affects all of them alike."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Durations of repeated calls, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
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
        functions: by name; one that returns a float has measured itself, in seconds.
        repeats: calls of each that count.
        warmup: calls of each before those.
    """
    durations: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(warmup + repeats):
        for name, function in functions.items():
            durations[name].append(_duration(function))
    return {name: Timing(tuple(seconds[warmup:])) for name, seconds in durations.items()}


def drop(_: object) -> None:
    """Discards a result: a float would be taken for a duration."""


def wait() -> None:
    """Waits for the GPU, if one is in use."""
    if torch.cuda.is_initialized():  # before that no work can be pending; is_available() takes half a millisecond
        torch.cuda.synchronize()


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps the process on one core, where the system allows it, with one thread."""
    threads = torch.get_num_threads()
    cores: set[int] = getattr(os, "sched_getaffinity", lambda _: set())(0)
    torch.set_num_threads(1)
    try:
        if cores:
            os.sched_setaffinity(0, {min(cores)})
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


def _duration(function: Callable[[], Any]) -> float:
    wait()
    start = time.perf_counter()
    result = function()
    wait()
    return result if isinstance(result, float) else time.perf_counter() - start
