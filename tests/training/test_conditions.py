"""Trainings that are conditioned on pictures: what is dropped, what is flipped, what is the same again."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support import QUICK, assert_same_state, fails, run, state
from torch.testing import assert_close

from score_lightning import config, train
from score_lightning.conditional import Downsample, LowResolution, Masked, Paired
from score_lightning.data.augment import augment
from score_lightning.data.pixels import PixelRange
from score_lightning.evaluation.model_losses import ValidationLoss
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.models import ScoreModel
from score_lightning.networks import LightUNet
from score_lightning.objectives import Denoising
from score_lightning.runtime.randomness import BatchNoise
from score_lightning.schedules import linear_beta
from score_lightning.tracking.csv import read_losses
from score_lightning.training.module import Augmentation

IMAGES = torch.randint(256, (1000, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BARE = ["samples.n=0", "evaluation.n=0", "trainer.checkpoint_every=2", "trainer.log_every=1"]
PICTURES = ["upsample", "inpaint"]
UPSAMPLE = ["condition=upsample", "condition.factor=2"]
WORDS = {"upsample": ["condition.factor=2", "condition.drop=0.3"], "inpaint": []}


def trained(out, name, *words):
    return run(out, *BARE, f"condition={name}", *WORDS[name], *words, exp="edm_digits")


def test_pictures_are_dropped_in_a_share_and_labels_with_them():
    c = LowResolution(factor=2, drop=0.2)
    augmentation, labels = Augmentation(PixelRange(), drop=0.5, condition=c), torch.arange(1000) % 10
    after, given = augmentation.given(labels, PixelRange().encode(IMAGES), BatchNoise(0))
    without, unlabeled = ~given.picture[:, 1].bool().any((1, 2)), after == -1
    assert without.float().mean().item() == pytest.approx(0.2, abs=0.05)
    assert unlabeled.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert (unlabeled | ~without).all()  # one draw for both
    assert torch.equal(after[~unlabeled], labels[~unlabeled])
    assert torch.equal(given.picture[~without], c(PixelRange().encode(IMAGES))[~without])
    more = Augmentation(PixelRange(), drop=0.1, condition=c).given(labels, PixelRange().encode(IMAGES), BatchNoise(0))
    assert torch.equal(more[0] == -1, without)


def test_pictures_are_those_of_flipped_images():
    x_0, picture, _ = Augmentation(PixelRange(), flip=True).pair(IMAGES, None, BatchNoise(0))
    assert picture is x_0
    flipped = (x_0 == PixelRange().encode(IMAGES.flip(3))).flatten(1).all(1)
    assert 400 < flipped.sum() < 600


@pytest.mark.parametrize("geometric", [0.0, 0.5])
def test_pairs_are_changed_alike(geometric):
    both = torch.cat([IMAGES[:100], 255 - IMAGES[:100]], 1)
    augmentation = Augmentation(PixelRange(), flip=True, geometric=geometric)
    x_0, picture, changes = augmentation.pair(IMAGES[:100], both, BatchNoise(0))
    assert (x_0.shape, picture.shape) == ((100, 1, 8, 8), (100, 2, 8, 8))
    assert_close(picture[:, :1], x_0, rtol=0, atol=1e-5)
    assert_close(picture[:, 1:], -x_0, rtol=0, atol=1e-5)
    alone, parameters = augmentation(IMAGES[:100], BatchNoise(0))
    assert torch.equal(x_0, alone)
    assert (changes is None) == (geometric == 0)
    if changes is not None:
        assert torch.equal(changes, parameters)


def test_a_picture_is_observed_after_the_geometric_changes():
    x_0, _ = augment(PixelRange().encode(IMAGES[:50]), BatchNoise(1), 0.5)
    seen = Augmentation(PixelRange(), geometric=0.5, condition=LowResolution(factor=2))
    after, picture, _ = seen.pair(IMAGES[:50], None, BatchNoise(1))
    assert_close(after, x_0)
    _, given = seen.given(None, picture, BatchNoise(2))
    assert_close(Downsample(2).forward(given.picture), Downsample(2).forward(LowResolution(factor=2)(x_0)))


def test_masks_are_functions_of_the_step_and_the_place_in_the_global_batch():
    one = Augmentation(PixelRange(), condition=Masked())
    x = PixelRange().encode(IMAGES[:8])
    whole = one.given(None, x, BatchNoise(0, "train", 5))[1].picture
    parts = [
        one.given(None, x[rows], BatchNoise(0, "train", 5, rank=rank, ranks=2))[1].picture
        for rank, rows in enumerate([slice(4), slice(4, 8)])
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(one.given(None, x, BatchNoise(0, "train", 6))[1].picture, whole)


@pytest.mark.parametrize("c", [LowResolution(factor=2), Masked()], ids=PICTURES)
def test_validation_gives_the_same_pictures_every_time(c):
    net = LightUNet(8, 1, (8, 8), condition_channels=c.channels(1))
    torch.nn.init.normal_(net.conv_out.weight, std=0.1)
    model = ScoreModel(net, linear_beta(1e-4, 0.02, 1000), "v")
    loss, numbers = ValidationLoss(Denoising(), model, PixelRange(), 10, 0, c), torch.arange(8)
    with torch.no_grad():
        level, first = loss(model, IMAGES[:8], numbers)
        again = torch.cat([loss(model, IMAGES[i : i + 1], numbers[i : i + 1])[1] for i in range(8)])
        assert_close(again, first)
        assert level.tolist() == list(range(8))
        paired = ValidationLoss(Denoising(), model, PixelRange(), 10, 0, LowResolution(factor=2))
        if isinstance(c, LowResolution):  # a picture that comes with the image takes the place of the image
            assert torch.equal(paired(model, IMAGES[:8], numbers, None, IMAGES[:8])[1], first)
            assert not torch.allclose(paired(model, IMAGES[:8], numbers, None, IMAGES[8:16])[1], first)


@pytest.mark.parametrize("name", PICTURES)
def test_a_resumed_training_is_the_same_to_the_bit(name, tmp_path):
    whole = trained(tmp_path / "whole", name, "trainer.max_steps=4")
    trained(tmp_path / "parts", name, "trainer.max_steps=2")
    parts = trained(tmp_path / "parts", name, "trainer.max_steps=4", "resume=auto")
    assert parts.name == "0"
    assert_same_state(state(whole), state(parts))
    assert (whole / "metrics.csv").read_text() == (parts / "metrics.csv").read_text()


def test_another_condition_is_another_run_and_another_guidance_is_not(tmp_path):
    trained(tmp_path, "upsample", "trainer.max_steps=2")
    assert trained(tmp_path, "upsample", "condition.drop=0.1", "trainer.max_steps=2", "resume=auto").name == "1"
    words = ["condition.drop=0.1", "condition.guidance=1", "trainer.max_steps=3", "resume=auto"]
    assert trained(tmp_path, "upsample", *words).name == "1"


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_see_the_same_images_and_pictures(tmp_path):
    losses = []
    for devices in (1, 2):
        words = ["condition=inpaint", "condition.drop=0.2", f"trainer.devices={devices}", "trainer.accelerator=cpu"]
        command = [sys.executable, "-m", "score_lightning.train", "exp=edm_digits", *QUICK, *BARE, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, f"out={tmp_path}/{devices}"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        losses.append([loss for _, loss in read_losses(tmp_path / f"{devices}/edm_digits/0/metrics.csv")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_grid_shows_what_is_given_samples_and_truths(tmp_path):
    folder = trained(tmp_path, "upsample", "trainer.max_steps=2", "samples.n=5", "validation.every=2")
    grid = np.asarray(Image.open(folder / "samples/step_0000002.png").convert("L"))
    cell = grid.shape[1] // (4 * 9 + 1)  # 4 columns of 8 pixels and a gap of one
    rows = grid[::cell, ::cell][1:].reshape(6, 9, 37)[:, :8, 1:]
    pictures = [row[:, 9 * i : 9 * i + 8] for row in rows for i in range(4)]
    experiment = TrainingExperiment(config.load(["condition=upsample", "condition.factor=2"], "edm_digits"))
    truths = experiment.split[1][:5]
    shown = experiment.pixels.decode(experiment.condition(experiment.pixels.encode(truths)))
    for i, first in enumerate((0, 1, 2, 3, 12)):  # the fifth image stands below the first
        assert np.array_equal(pictures[first], shown[i, 0].numpy())
        assert np.array_equal(pictures[first + 8], truths[i, 0].numpy())
    assert (pictures[17] == 255).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["condition.factor=2"], "unknown condition None"),
        (["condition=upsample", "condition.factor=3"], "factor must divide the sides of the images, 8 x 8, got 3"),
        (["condition=upsample", "condition.factr=3"], "condition upsample has no 'factr' (command line): did you mean"),
        (["condition=upsample", "condition.drop=1"], "condition upsample: drop must lie between 0 and 1"),
        (["condition=upsample", "condition.shrink=area"], "condition.shrink must be one of mean, bicubic"),
        (["condition=inpaint", "condition.masks=holes"], "condition.masks must be one of mixed, free_form, boxes"),
        (["condition=colorize"], "condition colorize: gray images have no colors to find"),
        (["condition=pairs"], "condition=pairs needs images that come with pictures: data=pairs"),
        (["data=pairs", "data.path=x"], "data=pairs has pictures to condition on: set condition=pairs"),
        ([*UPSAMPLE, "condition.guidance=1"], "was also trained without pictures"),
        (
            [*UPSAMPLE, "condition.drop=0.1", "labels.classes=10", "labels.guidance=1"],
            "this model lost labels only together with pictures; take condition.guidance=1",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_the_work(words, message, tmp_path, capsys, monkeypatch):
    given = ["exp=edm_digits", *words, "logger=off", f"out={tmp_path}/runs"]
    assert message in fails(train, given, capsys, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_points_and_networks_of_points_have_no_pictures(tmp_path, capsys, monkeypatch):
    given = ["exp=toy_rings", "condition=upsample", "logger=off", f"out={tmp_path}/runs"]
    assert "condition is of images; the data are points" in fails(train, given, capsys, monkeypatch)
    given = ["exp=edm_digits", "net=mlp", "condition=upsample", "condition.factor=2", f"out={tmp_path}/runs"]
    assert "condition upsample: net mlp cannot take a picture; unet and" in fails(train, given, capsys, monkeypatch)


def test_the_network_takes_what_the_condition_gives():
    channels = {"upsample": 1, "inpaint": 2}
    for name, k in channels.items():
        words = [f"condition={name}", *(["condition.factor=2"] if name == "upsample" else [])]
        experiment = TrainingExperiment(config.load(words, "edm_digits"))
        assert experiment.model.condition_channels == k
        assert experiment.module._augmentation.condition is experiment.condition
    pair = config.load(["data=pairs", "data.path=x", "condition=pairs", "condition.picture_channels=3"], "edm_digits")
    assert TrainingExperiment(pair).model.condition_channels == 3
    assert isinstance(TrainingExperiment(pair).condition, Paired)


def test_an_unconditional_training_draws_what_it_always_drew():
    """Numbers of the noise of a step, in order: flips, times, labels; then eps."""
    noise, again = BatchNoise(0, "train", 3), BatchNoise(0, "train", 3)
    augmentation = Augmentation(PixelRange(), flip=True, drop=0.3)
    x_0, picture, _ = augmentation.pair(IMAGES[:16], None, noise)
    u = noise.rand(16)
    labels, given = augmentation.given(torch.zeros(16, dtype=torch.int64), picture, noise)
    eps = noise.randn_like(x_0)
    flips = again.rand(16) < 0.5
    assert torch.equal(
        x_0, PixelRange().encode(torch.where(flips[:, None, None, None], IMAGES[:16].flip(3), IMAGES[:16]))
    )
    assert torch.equal(u, again.rand(16))
    assert torch.equal(labels == -1, again.rand(16) < 0.3)
    assert torch.equal(eps, again.randn_like(x_0))
    assert given is None
    assert Augmentation(PixelRange()).given(None, picture, noise) == (None, None)
