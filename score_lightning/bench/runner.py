"""Runs suites and keeps the page of their results up to date."""

import gc
import importlib
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from score_lightning.bench.machine import describe
from score_lightning.bench.report import Page
from score_lightning.bench.settings import Settings
from score_lightning.bench.suites import SUITES
from score_lightning.bench.tables import LeftOut, Table
from score_lightning.errors import StopRequested, UserError


def measure(suites: Sequence[str], device: str = "cpu", out: str = "docs", **options: Any) -> None:
    """Measures suites and writes the page after each.

    Args:
        suites: their names.
        device: cpu or cuda.
        out: folder of the page.
        options: further fields of `Settings`.

    Raises:
        UserError: when there is no GPU for device=cuda, or a suite failed.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda needs a GPU that torch can use")
    options.pop("only", None)
    settings, page = Settings(device, **options), Page(Path(out), device)
    results, failed = page.earlier(), []
    for name in suites:
        results[name] = _measure(name, settings)
        if (results[name]["left_out"] or "").startswith("it failed"):
            failed.append(name)
        page.write({suite: results[suite] for suite in SUITES if suite in results}, name)
    print(f"Everything is in {page.out / page.name}.md")
    if failed:
        raise UserError(f"failed: {', '.join(failed)} (see above)")


def _measure(name: str, settings: Settings) -> dict[str, Any]:
    """The results of a suite as plain data."""
    print(f"{name}: {SUITES[name]} ...", flush=True)
    start = time.monotonic()
    about, tables, left_out = _run(name, settings)
    for text in [table.markdown() for table in tables] or [f"left out: {left_out}"]:
        print(f"\n{text}\n", flush=True)
    gc.collect()
    torch.cuda.empty_cache()
    return {
        "about": about,
        "machine": describe(settings.device),
        "seconds": round(time.monotonic() - start, 1),
        "quick": settings.quick,
        "tables": [table.plain() for table in tables],
        "left_out": left_out,
    }


def _run(name: str, settings: Settings) -> tuple[str, list[Table], str | None]:
    """(introduction, tables, reason for none): a suite that fails does not stop the others."""
    about = SUITES[name]
    try:
        suite = importlib.import_module(f"score_lightning.bench.{name}")
        about = str(suite.__doc__).strip()
        return about, suite.run(settings), None
    except LeftOut as reason:
        return about, [], str(reason)
    except ModuleNotFoundError as error:
        return about, [], f"the package {error.name} is not installed: pip install 'score_lightning[bench]'"
    except (StopRequested, UserError):
        raise
    except Exception as error:  # anything may go wrong on a new machine
        traceback.print_exc()
        return about, [], f"it failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
