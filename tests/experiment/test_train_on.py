"""Trainings on images that are given in Python."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import QUICK, UNET, assert_same_state, state
from torch.testing import assert_close

from score_lightning import sample
from score_lightning import train as command
from score_lightning.data.sources import hold_out
from score_lightning.errors import UserError
from score_lightning.experiment.train import train_on

WORDS = [
    *UNET, *QUICK, "evaluation.n=0", "samples.n=0", "trainer.accelerator=cpu", "trainer.max_steps=6", "validation.n=10",
    "validation.every=6",
]  # fmt: skip


class Bars(torch.utils.data.Dataset):
    """Gray pictures of a bar, whose place is their class."""

    classes = ("left", "right")

    def __len__(self):
        return 60

    def __getitem__(self, i):
        pixels = np.full((8, 8), i, dtype=np.uint8)
        pixels[:, 1 + 4 * (i % 2)] = 255
        return pixels, i % 2


class One(Bars):
    """With one picture changed."""

    def __getitem__(self, i):
        pixels, label = super().__getitem__(i)
        return (255 - pixels if i == 30 else pixels), label


def trained(out, *words, data=None, **options):
    """The run folder of a short training."""
    return train_on(data or Bars(), exp="ddpm_digits", overrides=[*WORDS, f"out={out}", *words], **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"), "trainer.checkpoint_every=3", "labels.classes=2")


def test_data_that_are_given_are_trained_on_as_those_of_a_file(whole, tmp_path):
    images = np.stack([Bars()[i][0] for i in range(60)])
    np.savez(tmp_path / "bars.npz", images=images, labels=np.arange(60) % 2)
    given = ["data=npz", f"data.path={tmp_path / 'bars.npz'}", "labels.classes=2"]
    command.main(["exp=ddpm_digits", *WORDS, *given, f"out={tmp_path}"])
    assert_same_state(state(whole), state(tmp_path / "ddpm_digits/0"))
    assert state(whole)["data"]["classes"] == ["left", "right"]


@pytest.mark.slow
def test_a_training_resumes_bit_for_bit(whole, tmp_path):
    half = trained(tmp_path, "labels.classes=2", "trainer.max_steps=3")
    resumed = trained(tmp_path, "labels.classes=2", resume="auto")
    assert resumed == half
    assert_same_state(state(whole), state(resumed))
    assert trained(tmp_path, "labels.classes=2", resume="auto") == half  # all steps are done
    middle = trained(tmp_path / "new", "labels.classes=2", resume=whole / "checkpoints/step_0000003.ckpt")
    assert_same_state(state(whole), state(middle))


def test_other_images_are_another_run(tmp_path, capsys):
    first = trained(tmp_path, "trainer.max_steps=2")
    second = trained(tmp_path, "trainer.max_steps=3", data=One(), resume="auto")
    assert second != first
    assert "skipped" in (said := capsys.readouterr().out)
    assert "has other images than those given" in said


SCRIPT = """
from test_train_on import Bars, trained
if __name__ == "__main__":
    print(trained(OUT, "trainer.devices=2", "optimizer.clip=null", "labels.classes=2", **OPTIONS))
"""


@pytest.mark.slow
def test_two_processes_equal_one_also_after_resuming(tmp_path):
    """A script that a user starts, which starts itself once more."""
    one = trained(tmp_path / "one", "optimizer.clip=null", "labels.classes=2")
    trained(tmp_path / "two", "optimizer.clip=null", "labels.classes=2", "trainer.max_steps=3")
    (tmp_path / "script.py").write_text(
        SCRIPT.replace("OUT", repr(str(tmp_path / "two"))).replace("OPTIONS", "{'resume': 'auto'}")
    )
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])  # noqa: PTH120
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (two,) = (tmp_path / "two/ddpm_digits").iterdir()
    assert f"resuming from {two}" in done.stdout
    assert state(two)["global_step"] == 6
    assert_close(state(two)["state_dict"], state(one)["state_dict"], rtol=0, atol=2e-5)


def test_validation_is_a_share_or_other_images(tmp_path, capsys):
    words = ["trainer.max_steps=1", "validation.every=1"]
    trained(tmp_path, *words, validation=0)
    assert "python: 60 images, 60 to train on, none held out" in capsys.readouterr().out
    trained(tmp_path, *words, validation=One())
    assert "python: 120 images, 60 to train on, 60 held out" in capsys.readouterr().out


def test_images_that_were_read_before_can_be_given(tmp_path, digits, capsys):
    few, _ = hold_out(digits[0], 0.5)
    trained(tmp_path, "trainer.max_steps=1", data=few, validation=digits[1])
    assert f"{len(few):,} to train on, 180 held out; 10 classes" in capsys.readouterr().out


def test_its_model_samples_and_names_its_classes(whole, tmp_path):
    words = ["n=2", "label=right", "sampler.steps=2", f"out={tmp_path}"]
    sample.main([f"ckpt={whole}/checkpoints/last.ckpt", *words])
    assert np.load(tmp_path / "samples.npz")["images"].shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["data.validation=0.1"], {}, r"leave out data\.validation=0\.1"),
        (["data=folder"], {}, "leave out data=folder"),
        (["labels.classes=3"], {}, "the images have 2 classes"),
        ([], {"validation": 2}, "data.validation must be 0"),
        ([], {"data": [np.zeros((8, 8), np.uint8), "x"]}, "item 1 of the data set cannot be used"),
        ([], {"resume": "none.ckpt"}, r"none\.ckpt"),
    ],
)
def test_mistakes_leave_nothing_behind(words, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        trained(tmp_path / "runs", *words, **options)
    assert not (tmp_path / "runs").exists()


def test_experiments_of_points_and_the_command_are_refused(tmp_path):
    with pytest.raises(UserError, match="is of points"):
        train_on(Bars(), exp="toy_rings")
    with pytest.raises(UserError, match="data=python stands for images that were given to train_on"):
        command.main(["exp=ddpm_digits", *WORDS, "data=python", f"out={tmp_path}"])
