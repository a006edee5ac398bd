"""Floating-point operations per second of our training step, compared with the peak of the device.

The operations are those of the network's forward and backward passes. The peak is measured with products of large
matrices; on a GPU, the specified peak is also shown.
"""

from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from score_lightning.bench import ours
from score_lightning.bench.settings import Settings, Size, Step, sizes
from score_lightning.bench.tables import Row, Table
from score_lightning.bench.timing import Timing, alternate, drop
from score_lightning.tracking.dashboard import training_flops
from score_lightning.training.module import ScoreModule


@contextmanager
def _tf32(allowed: bool) -> Any:
    """Allows or forbids TensorFloat-32 in matrix products and convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def run(settings: Settings) -> list[Table]:
    """A table of the CIFAR-10 network."""
    size = sizes(settings)[0]
    steps = {}
    for name, (precision, change) in _variants(settings).items():
        module = ours.build_module(size, settings.device)
        change(module)
        steps[name] = _with_tf32(ours.build_step(size, precision, settings.device, module), "tf32" in name)
    timings = alternate(steps, settings.repeats(5), 1 if settings.quick else 3)
    peaks = {kind: _peak(kind, settings) for kind in sorted(set(map(_arithmetic, steps)))}
    work = size.batch * training_flops(ours.build_model(size), size.shape)
    rows = [
        Row(f"products of matrices, {kind}", peak / 1e12, note=_stated(kind, settings)) for kind, peak in peaks.items()
    ]
    rows += [_row(name, timing, work, peaks[_arithmetic(name)], size) for name, timing in timings.items()]
    return [Table(f"Roofline, {size.title}, batch {size.batch}", "TFLOP/s", rows, more=True)]


def _row(name: str, timing: Timing, work: float, peak: float, size: Size) -> Row:
    speed, (low, high) = work / timing.median, timing.quartiles
    note = f"{100 * speed / peak:.0f} % of products of matrices, {size.batch / timing.median:.3g} images/s"
    return Row(name, speed / 1e12, work / high / 1e12, work / low / 1e12, note=note)


def _variants(settings: Settings) -> dict[str, tuple[str, Callable[[ScoreModule], None]]]:
    """Name -> (precision, change to the module)."""
    plain = {"float32": ("32-true", _as_is), "bf16": ("bf16-mixed", _as_is)}
    contiguous = {"float32, channels first": ("32-true", _channels_first)}
    if settings.device == "cpu":
        return {**plain, **contiguous}
    return {
        **plain,
        "tf32": ("32-true", _as_is),
        **contiguous,
        "tf32, channels first": ("32-true", _channels_first),
        "bf16, channels first": ("bf16-mixed", _channels_first),
        "tf32, compiled": ("32-true", _compile),
        "bf16, compiled": ("bf16-mixed", _compile),
    }


def _as_is(_: ScoreModule) -> None:
    """Leaves the module unchanged."""


def _channels_first(module: ScoreModule) -> None:
    for model in (module.model, module.average.model):
        model.to(memory_format=torch.contiguous_format)


def _compile(module: ScoreModule) -> None:
    net: Any = module.model.net
    net.compile()


def _with_tf32(step: Step, allowed: bool) -> Callable[[], None]:
    def call() -> None:
        with _tf32(allowed):
            step()

    return call


def _arithmetic(name: str) -> str:
    """float32, tf32 or bf16, of a variant's name."""
    return name.split(",")[0]


def _peak(kind: str, settings: Settings) -> float:
    """FLOP/s of a product of square matrices, the best of several."""
    n = 256 if settings.quick else 8192 if settings.device == "cuda" else 2048
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=settings.device, dtype=dtype) for _ in range(2))
    with _tf32(kind == "tf32"):
        timing = alternate({"product": lambda: drop(a @ b)}, settings.repeats(10), 2)["product"]
    return 2 * n**3 / min(timing.seconds)


def _stated(kind: str, settings: Settings) -> str:
    """The peak that a GPU's manufacturer states, where Lightning knows it."""
    if settings.device != "cuda":
        return ""
    with suppress(ValueError), _tf32(kind == "tf32"):
        stated = get_available_flops(torch.device("cuda", 0), torch.bfloat16 if kind == "bf16" else torch.float32)
        return f"stated: {stated / 1e12:,.0f}" if stated else ""
    return ""
