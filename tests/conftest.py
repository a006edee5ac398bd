"""What tests share. Imported by the process that only deals out tests, too: packages are imported in fixtures."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # several workers share the processor
    os.environ["OMP_NUM_THREADS"] = "1"

SHARED = "needs the folder ../shared of real images beside the project"


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory):
    """No test writes into the user's caches or talks to Weights & Biases; all workers have one cache."""
    root = tmp_path_factory.getbasetemp().parent if WORKER else tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORE_LIGHTNING_CACHE", str(root / "cache"))
        patch.setenv("TORCH_HOME", str(root / "torch"))
        patch.setenv("WANDB_MODE", "disabled")
        yield


@pytest.fixture(autouse=True)
def _seeded():
    """No test depends on another's random numbers."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def pictures(tmp_path):
    """A folder of six pictures of different sizes and kinds in two class folders, and what it holds."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    root = tmp_path / "pictures"
    sizes = {
        "cat/a.png": (12, 8),
        "cat/b.jpg": (8, 8),
        "cat/c.PNG": (20, 30),
        "dog/d.webp": (9, 16),
        "dog/e.bmp": (8, 8),
    }
    for name, (width, height) in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / name)
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / "dog/f.png")
    (root / "notes.txt").write_text("not a picture")
    (root / ".hidden.png").write_text("not a picture either")
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, _environment):
    """The run folder of a short training."""
    from support import run

    return run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def ckpt(trained):
    return trained / "checkpoints/last.ckpt"


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file of random weights of torch-fidelity's Inception, of the old kind like the published one."""
    import torch

    from score_lightning.evaluation.features import extractors

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    weights = extractors._untrained_inception(seed=7).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="session")
def digits():
    """(training, validation) images of the digits."""
    from score_lightning.data import sources
    from score_lightning.data.pictures import Shape

    return sources.digits(Shape(8, 1))


@pytest.fixture(scope="session")
def _fork_server(_environment):
    """The address of a process that has imported what commands need, and forks."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        program = [sys.executable, str(Path(__file__).with_name("forked.py")), address]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "ready\n"
        yield address
        server.stdin.close()
        assert server.wait(60) == 0


@pytest.fixture
def forked(_fork_server, monkeypatch):
    """Python programs are forked instead of started: the same without the seconds that imports take."""
    from forked import ADDRESS, Forked

    monkeypatch.setenv(ADDRESS, _fork_server)
    monkeypatch.setattr(subprocess, "Popen", Forked)
