"""The folder for what is computed once: fitted classifiers and statistics of reference images."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$SCORE_LIGHTNING_CACHE, else score_lightning in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "score_lightning"
    return Path(os.environ.get("SCORE_LIGHTNING_CACHE", default)).expanduser()
