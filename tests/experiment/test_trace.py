"""A training builds its objects once, and its first loss is few files away from the command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TRACE = Path(__file__).parents[1] / "trace.py"


@pytest.mark.slow
def test_schedule_model_and_generator_are_built_once_and_the_stack_in_the_loss_is_short():
    printed = subprocess.run([sys.executable, TRACE], capture_output=True, text=True, check=True).stdout
    assert "built: Discrete 1, ScoreModel 1, Generator 1" in printed
    (files,) = re.findall(r"functions in (\d+) files on the stack", printed)
    assert int(files) <= 6
