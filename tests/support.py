"""What tests of several rooms use; pytest puts this folder on the path."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from score_lightning import cli, train
from score_lightning.errors import UserError, is_of_file, report

GOLDEN = Path(__file__).parent / "golden"

QUICK = [
    "trainer.max_steps=4", "trainer.progress=false", "trainer.log_every=1", "validation.every=2", "validation.n=40",
    "samples.n=5", "samples.every=2", "evaluation.n=30", "preview.steps=3", "sampler.steps=3", "logger=off",
    "optimizer.decay=false", "trainer.batch_size=16",
]  # fmt: skip

UNET = [
    "net=unet_tiny", "prediction=eps", "objective=denoising", "sampler=ancestral", "preview.name=ddim",
    "optimizer.lr=0.002", "optimizer.warmup=100", "optimizer.clip=1.0", "ema.decay=0.995",
]  # fmt: skip
"""DDPM as published, made small: its U-Net, eps-prediction and ancestral sampling, on the digits of ddpm_digits."""


LIGHT = {"ddpm_mnist", "edm_mnist", "flow_mnist", "ncsn_mnist_light", "edm_cifar_light"}
"""Experiments with the light network on data of papers, which are no published recipes."""


def run(out, *words, exp="ddpm_digits"):
    """The run folder of a short training; ddpm_digits with the settings of `UNET`."""
    published = UNET if exp == "ddpm_digits" else []
    train.main([f"exp={exp}", *published, *QUICK, f"out={out}", *words])
    return max((Path(out) / exp).iterdir(), key=lambda p: int(p.name))


def slow_but(fast, values):
    """Parameters of which all but the fast ones belong to `make test-slow`."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


def finish_wandb():
    """Waits until all is written."""
    import wandb

    wandb.finish()
    wandb.teardown()


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


def decoded(pictures, processes=1):
    """Pictures as they are trained on."""
    from score_lightning.data.decoded import decode_split

    return decode_split(pictures, pictures, processes)[0]


def answer(call, words):
    """The message of a command that is refused; None of one that is carried out."""
    try:
        call(words)
    except UserError as error:
        return str(error)
    except OSError as error:
        if not is_of_file(error):
            raise
        return report(error)
    return None


def state(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def assert_same_state(a, b):
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    for one, other in zip(
        a["optimizer_states"][0]["state"].values(), b["optimizer_states"][0]["state"].values(), strict=True
    ):
        for key in one:
            assert torch.equal(one[key], other[key]), key
    assert a["global_step"] == b["global_step"]
    assert a["lr_schedulers"] == b["lr_schedulers"]


SMALL = [
    "net.channels=32", "net.multipliers=[1,1,2,2,4]", "net.blocks=1", "net.attention=[8]", "images.size=16"
]  # fmt: skip


def golden_fill(name, shape):
    """The value that every golden case gives to the entry of that name."""
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return n / np.sqrt(np.prod(shape[1:]))
    return 1 + 0.1 * n if name.endswith("weight") else 0.1 * n


def golden_state(path):
    """(state dict, the other arrays as tensors) of a golden file."""
    arrays = dict(np.load(path))
    shapes = json.loads(str(arrays.pop("state")))
    kept = ("sigmas", "resample_filter")  # not filled
    state = {
        name: torch.ones(shape)
        if name.endswith(kept)
        else torch.from_numpy(np.asarray(golden_fill(name, shape))).float()
        for name, shape in shapes
    }
    return state, {name: torch.from_numpy(array) for name, array in arrays.items()}
