"""Where a result comes from: versions of the packages, and the commit of this project."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("score_lightning", "torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "numpy")


def versions() -> dict[str, str]:
    """Version of each package that results depend on, and of Python."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> str | None:
    """Commit of the project's checkout, with `+changes` where files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    found = _git(folder, "rev-parse", "HEAD")
    if found is None or _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return f"{found}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else found


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
