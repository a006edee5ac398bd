"""Commands as a shell starts them: `python -m score_lightning.X`, in an empty working directory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def start(tmp_path):
    """Starts a command and returns what it prints."""

    def start(command, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", f"score_lightning.{command}", *map(str, arguments)],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


@pytest.mark.slow
def test_sample_writes_into_the_folder_that_it_is_given(start, ckpt, tmp_path):
    assert "Drew 2 images" in start("sample", f"ckpt={ckpt}", "n=2", "sampler.steps=2", "out=drawn")
    assert np.load(tmp_path / "drawn/samples.npz")["images"].shape == (2, 8, 8, 1)


def test_eval_writes_into_the_current_folder(start, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("generated", "real"):
        np.savez(tmp_path / f"{name}.npz", images=rng.integers(0, 256, (4, 8, 8), dtype=np.uint8))
    settings = ["features=random", "evaluation.metrics=[fid]"]
    assert "Written" in start("eval", "images=generated.npz", "reference=real.npz", *settings)
    assert json.loads((tmp_path / "metrics.json").read_text())["fid_random"] > 0
