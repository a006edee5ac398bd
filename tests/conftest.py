"""What tests share."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from support import run

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the processor
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

SHARED = "needs the folder ../shared of real images beside the project"


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory, monkeypatch):
    """No test writes into the user's caches, talks to Weights & Biases or depends on another's random numbers."""
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch"))
    torch.manual_seed(0)


@pytest.fixture
def pictures(tmp_path):
    """A folder of six pictures of different sizes and kinds in two class folders, and what it holds."""
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
def trained(tmp_path_factory):
    """The run folder of a short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def ckpt(trained):
    return trained / "checkpoints/last.ckpt"


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file of random weights of torch-fidelity's Inception, of the old kind like the published one."""
    from score_lightning.evaluation.features import extractors

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    weights = extractors._untrained_inception(seed=7).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="session")
def digits():
    """(training, validation) images of the digits."""
    from score_lightning.data import sources
    from score_lightning.data.images import Shape

    return sources.digits(Shape(8, 1))
