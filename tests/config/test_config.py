"""Configurations: layers, exchanges, and what typos are answered with."""

import pytest

from score_lightning import config
from score_lightning.config.overrides import TEXT_KEYWORDS
from score_lightning.config.registry import TABLES, keyword_types
from score_lightning.errors import UserError


def load(*words, exp="ddpm_digits"):
    return config.load(words, exp)


def test_layers_go_over_each_other_in_order():
    c = load("net.blocks=2", "trainer.max_steps=7").config
    assert c.net["blocks"] == 2  # command line over experiment over part
    assert c.net["name"] == "unet_light"
    assert c.trainer.max_steps == 7
    assert c.optimizer.betas == [0.9, 0.999]  # default


def test_an_exchanged_part_keeps_nothing_of_the_old_one():
    c = load("data=folder", "data.path=/somewhere", exp="ddpm_cifar").config
    assert c.data == {"name": "folder", "path": "/somewhere", "validation": 0.05}
    assert c.images.size == 32  # what the model sees stays


def test_fields_win_over_exchanges_wherever_they_stand():
    assert load("sampler.steps=50", "sampler=ddim").config.sampler["steps"] == 50


def test_a_part_in_an_experiment_replaces_the_listed_one():
    c = load("preview.steps=10", exp="ddpm_cifar").config
    assert c.preview == {"name": "ddim", "steps": 10}


def test_off_is_a_word():
    assert load("logger=off").config.logger.wandb == load("logger.wandb=off").config.logger.wandb == "off"


TYPED = [
    "/x/my #1 set", "0755", "1.10", "1e3", "1_000", "0x10", "1:30", "2024-01-01", "null ", "~", "on", "true", "[a",
    "[a]", "{a: 1}", "a: b", "- a", "*a", "@a", "'a'", '"', "${seed}", r"a\${b", " a ", "#1", "grün",
]  # fmt: skip


@pytest.mark.parametrize("text", TYPED)
def test_text_is_taken_as_it_is_typed_and_read_again_as_the_same(text, tmp_path):
    keys = ["out", "init", "logger.project", "trainer.devices", "data.path", "preview.predictor", "features.weights"]
    resolved = load("data=folder", *(f"{key}={text}" for key in keys))
    c = resolved.config
    taken = [c.out, c.init, c.logger.project, c.trainer.devices, c.data["path"]]
    assert [*taken, c.preview["predictor"], c.features["weights"]] == [text] * len(keys)
    assert config.change(resolved.plain(), "checkpoint", []).config == c
    (tmp_path / "own.yaml").write_text(config.to_yaml({**resolved.plain(), "exp": "own"}), encoding="utf-8")
    again = load(exp=str(tmp_path / "own.yaml")).plain()
    assert {**again, "exp": "ddpm_digits"} == resolved.plain()


def test_null_is_none_where_text_may_be_missing():
    c = load("init=null", "features.weights=null", "data.path=null", "out=null").config
    assert (c.init, c.features["weights"]) == (None, None)
    assert (c.data["path"], c.out) == ("null", "null")


def test_keywords_that_are_text_are_those_of_the_constructors():
    hints = {f"{section}.name": {str} for section in config.PART_KINDS}
    for section in config.PART_KINDS:
        for constructor in TABLES["sampler" if section == "preview" else section].values():
            for key, (hint, _) in keyword_types(constructor).items():
                hints.setdefault(f"{section}.{key}", set()).add(hint)
    assert {key: hint.pop() for key, hint in hints.items() if hint in ({str}, {str | None})} == TEXT_KEYWORDS


def test_numbers_are_numbers_and_decimal():
    c = load("optimizer.lr=1e-4", "optimizer.eps=1e3", "trainer.max_steps=1_000", "seed=0755").config
    assert (c.optimizer.lr, c.optimizer.eps, c.trainer.max_steps, c.seed) == (1e-4, 1000.0, 1000, 755)


def test_other_values_lose_nothing_to_comments():
    assert config.parse_override("net.note=a #1") == ("net.note", "a #1")
    assert config.parse_override("net.note=2024-01-01") == ("net.note", "2024-01-01")
    assert config.parse_override('net.note="a #1"') == ("net.note", "a #1")
    for text in ("5 #6", "[1,2] #3", '"a" #1', "null #1"):
        with pytest.raises(UserError, match=r"YAML takes '#\d' for a comment"):
            config.parse_override(f"trainer.max_steps={text}")


@pytest.mark.parametrize("text", TYPED)
def test_a_sweep_passes_on_what_was_typed(text):
    quoted = "'{}'".format(text.replace("'", "''"))
    same, points = config.split_sweep([f"out={text}", f"data.path=[{quoted}, b]"], lambda key, _: key == "data.path")
    assert (same, points) == ([f"out={text}"], [[f"data.path={text}"], ["data.path=b"]])


def test_a_sweep_passes_on_values_as_they_stand_in_its_list():
    words = ["optimizer.lr=[1e-4, 1_0]", "init=[null,1.10]", "logger=[off,on]", 'net.note=["a #1",2024-01-01]']
    _, points = config.split_sweep([*words, "optimizer.betas=[[0.9,0.99]]"], lambda *_: True)
    assert points[0] == [
        "optimizer.lr=1e-4",
        "init=null",
        "logger=off",
        'net.note="a #1"',
        "optimizer.betas=[0.9,0.99]",
    ]
    assert points[-1][:-1] == ["optimizer.lr=1_0", "init=1.10", "logger=on", "net.note=2024-01-01"]


def test_every_origin_is_remembered():
    origins = load("net.blocks=2").origins
    assert origins["net.blocks"] == "command line"
    assert origins["net.widths"] == "configs/net/unet_light.yaml"
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
        (["data=1.10"], r"^data=1\.10: data takes the name"),
        (
            ["data.path=\udcfc"],
            r"data.path: '\\udcfc' is not valid UTF-8, as config.yaml must be: rename it, or set LC_ALL",
        ),
        (["out=???"], r"out: \?\?\? cannot be a value"),
        (["trainer.max_steps=1:30"], "trainer.max_steps: .*'1:30'"),
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
        UserError, match=r"unknown experiment 'ddpm_digit': did you mean ddpm_digits\?; there are adm_imagenet128"
    ):
        load(exp="ddpm_digit")


def test_help_has_a_word_on_every_key():
    for line in config.describe().splitlines():
        key, text = line.split(maxsplit=1)
        assert len(text.split("[")[0]) > 5, key
    shown = config.describe()
    for part in ("data=NAME", "cifar10 ", "path data", "unet_tiny", "channels 32", "ddim ", "eta 0.0"):
        assert part in shown, part
