"""Compares this project with others: python -m score_lightning.bench [only=NAME,…] [key=value …]."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_lightning import cli
from score_lightning.config import suggest
from score_lightning.errors import StopRequested, UserError

OPTIONS = {"only": str, "quick": bool, "device": str, "out": str, "digits": str, "mnist": str, "n": int}
SUITES = {
    "steps": "the training step, compared with diffusers, denoising-diffusion-pytorch and azula",
    "inference": "the forward pass, compared with the same projects",
    "trainer": "Lightning's training loop against the bare step",
    "sampling": "samplers against bare forward passes, compared with diffusers and azula",
    "quality": "inception score and Fréchet distance of checkpoints against network evaluations",
    "evaluation": "metrics against the feature network; the Fréchet distance of torch-fidelity and torchmetrics",
    "data": "images per second and core, compared with torchvision",
    "trace": "exact and sliced trace of the Jacobian",
    "processes": "DDP on 1, 2 and 4 processes",
    "memory": "peak memory of training, compared with diffusers",
    "startup": "from the command to the first step",
    "roofline": "floating-point operations per second against the peak of the device",
}
ON_GPU = ("steps", "inference", "sampling", "trace", "memory", "roofline")


def usage() -> str:
    """The text of --help."""
    suites = "\n".join(f"  {name:28} {text}" for name, text in SUITES.items())
    return f"""python -m score_lightning.bench [key=value …]

Compares this project with its alternatives and writes docs/benchmarks.md.
  only=NAME,…                  only these suites; the page keeps its results of the others
  quick=true                   tiny networks and one repetition, to test that everything runs
  device=cpu|cuda              on a GPU: {", ".join(ON_GPU)}, written to benchmarks_gpu.md [cpu]
  out=DIR                      folder of the page [docs]
  digits=FILE mnist=FILE       checkpoints of ddpm_digits and ddpm_mnist, for quality
  n=N                          images per point of quality; a quarter of them for mnist [1000]

suites:
{suites}"""


def main(words: Sequence[str]) -> None:
    """Measures what the words say.

    Raises:
        UserError: for an unknown key, suite or device, or when a suite failed.
    """
    own, rest = cli.split_arguments(words, OPTIONS)
    if rest:
        key = rest[0].partition("=")[0]
        raise UserError(f"unknown key {key}{suggest(key, OPTIONS)}; there are {', '.join(OPTIONS)}")
    device = own.get("device", "cpu")
    names = _chosen(own.get("only"), device)
    for key in ("digits", "mnist"):
        if key in own and not Path(own[key]).exists():
            raise UserError(f"{key}={own[key]}: there is no such checkpoint")

    import torch

    from score_lightning.bench.report import Page
    from score_lightning.bench.settings import Settings

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda needs a GPU that torch can use")
    settings = Settings(device, own.get("quick", False), own.get("digits"), own.get("mnist"), own.get("n", 1000))
    page = Page(Path(own.get("out", "docs")), device)
    results = page.earlier()
    failed = []
    for name in names:
        results[name] = _measure(name, settings)
        if (results[name]["left_out"] or "").startswith("it failed"):
            failed.append(name)
        page.write({suite: results[suite] for suite in SUITES if suite in results}, name)
    print(f"Everything is in {page.out / page.name}.md")
    if failed:
        raise UserError(f"failed: {', '.join(failed)} (see above)")


def _chosen(only: str | None, device: str) -> list[str]:
    if device not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu or cuda, got {device!r}")
    names = only.split(",") if only else list(ON_GPU if device == "cuda" else SUITES)
    for name in names:
        if name not in SUITES:
            raise UserError(f"unknown suite {name!r}{suggest(name, SUITES)}; there are {', '.join(SUITES)}")
    return names


def _measure(name: str, settings: Any) -> dict[str, Any]:
    """What a suite found, as plain data; a suite that fails does not stop the others."""
    import gc
    import importlib
    import time

    import torch

    from score_lightning.bench.machine import describe
    from score_lightning.bench.tables import LeftOut

    print(f"{name}: {SUITES[name]} ...", flush=True)
    start, tables, left_out, about = time.monotonic(), [], None, ""
    try:
        suite = importlib.import_module(f"score_lightning.bench.{name}")
        about = str(suite.__doc__).strip()
        tables = suite.run(settings)
    except LeftOut as reason:
        left_out = str(reason)
    except ModuleNotFoundError as error:
        left_out = f"the package {error.name} is not installed"
    except (StopRequested, UserError):
        raise
    except Exception as error:  # whatever goes wrong on a machine never seen before
        traceback.print_exc()
        left_out = f"it failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    for text in [table.markdown() for table in tables] or [f"left out: {left_out}"]:
        print(f"\n{text}\n", flush=True)
    gc.collect()
    torch.cuda.empty_cache()
    return {
        "about": about or SUITES[name],
        "machine": describe(settings.device),
        "seconds": round(time.monotonic() - start, 1),
        "quick": settings.quick,
        "tables": [table.plain() for table in tables],
        "left_out": left_out,
    }


if __name__ == "__main__":
    cli.run(main, usage)
