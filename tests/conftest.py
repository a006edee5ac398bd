"""What tests share."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from score_lightning import cli, train

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


QUICK = [
    "trainer.max_steps=4", "trainer.progress=false", "trainer.log_every=1", "validation.every=2", "validation.n=40",
    "samples.n=5", "samples.every=2", "evaluation.n=30", "preview.steps=3", "sampler.steps=3", "logger=off",
    "optimizer.decay=false",
]  # fmt: skip


def run(out, *words, exp="ddpm_digits"):
    train.main([f"exp={exp}", *QUICK, f"out={out}", *words])
    return max((Path(out) / exp).iterdir(), key=lambda p: int(p.name))


def finish_wandb():
    """Waits until all is written."""
    import wandb

    wandb.finish()
    wandb.teardown()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The run folder of a short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def ckpt(trained):
    return trained / "checkpoints/last.ckpt"


def fails(entry, words, capsys, monkeypatch):
    """What an entry point prints for a mistake, after checking the exit code."""
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.run(entry.main, entry.usage)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.startswith("score_lightning: ")
    assert len(captured.err.strip().splitlines()) <= 2, captured.err
    return captured.err


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file of random weights of torch-fidelity's Inception, of the old kind like the published one."""
    from score_lightning.evaluation import extractors

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    weights = extractors._untrained_inception(seed=7).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="session")
def digits():
    """(training, validation) images of the digits."""
    from score_lightning import sources
    from score_lightning.images import Shape

    return sources.digits(Shape(8, 1))
