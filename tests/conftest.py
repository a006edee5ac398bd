"""What tests share."""

import numpy as np
import pytest
import torch
from PIL import Image

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
