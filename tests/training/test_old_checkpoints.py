"""Checkpoints that earlier versions wrote load, resume, are evaluated and sampled."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from support import GOLDEN, state
from torch.testing import assert_close

from score_lightning import checkpoint, sample, train
from score_lightning import eval as evaluate
from score_lightning.evaluation.features import classifier
from score_lightning.training.optimizer import AdamSettings

NEAR = {"rtol": 1e-3, "atol": 1e-5}  # processors round differently
WEIGHTS = [f"{kind}.net.{layer}.weight" for kind in ("model", "average.model") for layer in ("conv_in", "conv_out")]


@pytest.fixture(scope="module")
def expected():
    """What the version that wrote the checkpoint made of it."""
    return dict(np.load(GOLDEN / "checkpoint_0.1.npz"))


@pytest.fixture
def old(tmp_path):
    return shutil.copy(GOLDEN / "checkpoint_0.1.ckpt", tmp_path / "old.ckpt")


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_an_old_checkpoint_loads_and_samples_as_before(old, expected, tmp_path):
    model = checkpoint.load(old)
    weights = torch.load(old, weights_only=True)["state_dict"]
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, weights[f"average.model.net.{name}"]), name
    assert model.config["exp"] == "ddpm_digits"
    sample.main([f"ckpt={old}", "n=3", "sampler=ddim", "sampler.steps=3", f"out={tmp_path}"])
    images = np.load(tmp_path / "samples.npz")["images"]
    assert np.abs(images.astype(int) - expected["images"]).max() <= 1


def test_an_old_checkpoint_resumes_where_it_stopped(old, expected, tmp_path, monkeypatch):
    """Steps, log, optimizer, averages and the best metric so far continue."""
    factor = AdamSettings.factor  # whose warm-up was a step ahead
    monkeypatch.setattr(AdamSettings, "factor", lambda self, step: factor(self, step + 1))
    contents = torch.load(old, weights_only=True)
    contents["callbacks"]["Evaluate"]["fid_classifier_30"] = 1.0  # none of the next steps is better
    torch.save(contents, old)
    train.main([f"resume={old}", "trainer.max_steps=6", f"out={tmp_path}"])
    folder = tmp_path / "ddpm_digits/0"
    contents = state(folder)
    assert contents["global_step"] == 6
    assert losses(folder) == pytest.approx(expected["losses"].tolist(), rel=1e-4)
    for name in WEIGHTS:
        assert_close(contents["state_dict"][name], torch.from_numpy(expected[name]), **NEAR)
    with (folder / "metrics.csv").open() as file:
        fids = [row for row in csv.DictReader(file) if row["eval/fid_classifier_30"]]
    assert [int(row["step"]) for row in fids] == [2, 4, 6]
    assert not (folder / "checkpoints/best_fid.ckpt").exists()


def test_an_old_checkpoint_is_evaluated(old, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "LR", 2e-3)  # as that version fitted it
    monkeypatch.setattr(classifier, "PASSES", 1000)
    evaluate.main([f"ckpt={old}", "n=30", "sampler=ddim", "sampler.steps=3", f"out={tmp_path}"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["settings"]["step"] == 4
    # the classifier is fitted here, and other numbers of threads give one of other digits
    assert metrics["fid_classifier"] == pytest.approx(float(expected["fid"]), rel=0.04)
