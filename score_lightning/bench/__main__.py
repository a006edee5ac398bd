"""Compares this project with others: python -m score_lightning.bench [only=NAME,…] [key=value …]."""

from collections.abc import Sequence
from pathlib import Path

from score_lightning import cli
from score_lightning.bench.suites import ON_GPU, SUITES, USUAL
from score_lightning.config import suggest
from score_lightning.errors import UserError

OPTIONS = {"only": str, "quick": bool, "device": str, "out": str, "digits": str, "mnist": str, "n": int, "npz": str}


def usage() -> str:
    """The text of --help."""
    suites = "\n".join(f"  {name:28} {text}" for name, text in SUITES.items())
    return f"""python -m score_lightning.bench [key=value …]

Compares this project with its alternatives and writes docs/benchmarks.md.
  only=NAME,…                  only these suites; the page keeps its results of the others [all but race]
  quick=true                   tiny networks and one repetition, to test that everything runs
  device=cpu|cuda              on a GPU: {", ".join(ON_GPU)}, written to benchmarks_gpu.md [cpu]
  out=DIR                      folder of the page [docs]
  digits=FILE mnist=FILE       checkpoints of ddpm_digits and ddpm_mnist, for quality
  npz=FILE                     images and labels in place of MNIST's, for race
  n=N                          images per point of quality; a quarter of them for mnist [1000]

suites:
{suites}"""


def main(arguments: Sequence[str]) -> None:
    """Measures the suites that key=value arguments choose.

    Raises:
        UserError: for an unknown key, suite or device, or when a suite failed.
    """
    options, rest = cli.split_arguments(arguments, OPTIONS)
    if rest:
        key = rest[0].partition("=")[0]
        raise UserError(f"unknown key {key}{suggest(key, OPTIONS)}; there are {', '.join(OPTIONS)}")
    suites = _chosen(options.get("only"), options.get("device", "cpu"))
    for key in ("digits", "mnist", "npz"):
        if key in options and not Path(options[key]).exists():
            raise UserError(f"{key}={options[key]}: there is no such file")

    from score_lightning.bench.runner import measure

    measure(suites, **options)


def _chosen(only: str | None, device: str) -> list[str]:
    if device not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu or cuda, got {device!r}")
    names = only.split(",") if only else list(ON_GPU if device == "cuda" else USUAL)
    for name in names:
        if name not in SUITES:
            raise UserError(f"unknown suite {name!r}{suggest(name, SUITES)}; there are {', '.join(SUITES)}")
    return names


if __name__ == "__main__":
    cli.run(main, usage)
