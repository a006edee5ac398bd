"""Configurations: layers, exchanges, and what typos are answered with."""

import pytest

from score_lightning import config
from score_lightning.errors import UserError


def load(*words, exp="ddpm_digits"):
    return config.load(words, exp)


def test_layers_go_over_each_other_in_order():
    c = load("net.channels=16", "trainer.max_steps=7").config
    assert c.net["channels"] == 16  # command line over experiment over part
    assert c.net["name"] == "unet"
    assert c.trainer.max_steps == 7
    assert c.optimizer.betas == [0.9, 0.999]  # default


def test_an_exchanged_part_keeps_nothing_of_the_old_one():
    c = load("data=folder", "data.path=/somewhere", exp="ddpm_cifar").config
    assert c.data == {"name": "folder", "path": "/somewhere", "validation": 0.05}
    assert c.images.size == 32  # what the model sees stays


def test_fields_win_over_exchanges_wherever_they_stand():
    assert load("sampler.steps=50", "sampler=ddim").config.sampler["steps"] == 50


def test_a_part_in_an_experiment_replaces_the_listed_one():
    c = load("preview.steps=10").config
    assert c.preview == {"name": "ddim", "steps": 10}


def test_off_is_a_word():
    assert load("logger=off").config.logger.wandb == load("logger.wandb=off").config.logger.wandb == "off"


def test_every_origin_is_remembered():
    origins = load("net.channels=16").origins
    assert origins["net.channels"] == "command line"
    assert origins["net.groups"] == "configs/net/unet_tiny.yaml"
    assert origins["trainer.max_steps"] == "experiments/ddpm_digits.yaml"


def test_a_plain_configuration_comes_back_the_same():
    resolved = load()
    plain = resolved.plain()
    assert config.change(plain, "checkpoint", []).config == resolved.config
    assert config.change(plain, "checkpoint", ["seed=3"]).config.seed == 3
    assert isinstance(plain["net"], dict)


def test_an_experiment_may_be_a_path(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("parts: [data/digits]\nimages: {size: 8, channels: 1}\ntrainer: {max_steps: 3}\n")
    resolved = load(exp=str(path))
    assert resolved.config.exp == "own"
    assert resolved.config.data["name"] == "digits"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.max_step=3"], r"unknown key trainer.max_step \(command line\): did you mean max_steps\?"),
        (["trainr.max_steps=3"], "unknown key trainr"),
        (["trainer.max_steps=many"], r"trainer.max_steps: .*many.*\(command line\)"),
        (["trainer.max_steps=[1,2]"], "trainer.max_steps"),
        (["trainer=3"], "trainer takes the name of a file in configs/trainer/"),
        (["data=cifar"], r"unknown data 'cifar' \(command line\): did you mean cifar10\?; there are celeba"),
        (["data=[mnist,cifar10]"], "takes the name of a file"),
        (["max_steps"], "expected key=value, got 'max_steps'"),
        (["=3"], "expected key=value"),
        (["seed=[1"], r"seed: the value '\[1' cannot be read"),
        (["images=3"], "images takes the name"),
    ],
)
def test_mistakes_in_words_get_one_message(words, message):
    with pytest.raises(UserError, match=message):
        load(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: data/digits\n", "parts must be a list"),
        ("parts: [digits]\n", "parts must be a list"),
        ("parts: [data/digit]\n", r"unknown data 'digit' \(.*own.yaml\): did you mean digits"),
        ("parts: [date/digits]\n", "unknown kind of part 'date'"),
        ("trainer: {max_stepz: 3}\n", r"unknown key trainer.max_stepz \(.*own.yaml\)"),
        ("trainer: 5\n", "trainer is a section, got 5"),
        ("images: {size: 8}\n", "no value for trainer.max_steps"),
        ("a: [\n", "cannot be read as YAML"),
        ("- 1\n", "must hold keys and values"),
    ],
)
def test_mistakes_in_experiments_name_the_file(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(exp=str(tmp_path / "own.yaml"))


def test_unknown_experiments_are_answered_with_the_known_ones():
    with pytest.raises(
        UserError, match=r"unknown experiment 'ddpm_digit': did you mean ddpm_digits\?; there are ddpm_bedroom"
    ):
        load(exp="ddpm_digit")


def test_help_has_a_word_on_every_key():
    for line in config.describe().splitlines():
        key, text = line.split(maxsplit=1)
        assert len(text.split("[")[0]) > 5, key
    shown = config.describe()
    for part in ("data=NAME", "cifar10 ", "path data", "unet_tiny", "channels 32", "ddim ", "eta 0.0"):
        assert part in shown, part
