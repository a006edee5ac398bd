"""Where a result comes from: the versions of packages, and the commit of this project."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import score_lightning

CODE = ("score_lightning", "configs", "experiments")
"""What a checkout's results depend on."""

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of each package that results depend on."""
    ours = {"python": platform.python_version(), "score_lightning": score_lightning.__version__}
    return {**ours, **{name: version(name) for name in PACKAGES}}


def commit() -> str | None:
    """Commit of the project's checkout, followed by `+changes` where files of CODE differ from it; None outside one."""
    folder = Path(__file__).parents[2]
    head = _git(folder, "rev-parse", "HEAD")
    if head is None or _git(folder, "ls-files", "--error-unmatch", str(Path(__file__).relative_to(folder))) is None:
        return None
    return f"{head}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no", *CODE) else head


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; None where it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
