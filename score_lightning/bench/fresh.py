"""Measurements in new processes, which have nothing in memory and nothing imported."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def ask(module: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Any:
    """The last line that `python -m score_lightning.bench.<module>` prints, read as JSON.

    Raises:
        RuntimeError: with the end of its error output when it fails.
    """
    command = [sys.executable, "-m", f"score_lightning.bench.{module}", *arguments]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, env={**os.environ, **(env or {})}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
