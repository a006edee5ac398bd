"""A user's own experiments and parts, in the working directory, are found before those of the project."""

import os

import pytest

from score_lightning import config, experiments, train
from score_lightning.errors import UserError
from score_lightning.experiment import catalog

MINE = """\
# DDPM with a narrow network. It is a test.
parts: [data/digits, net/narrow, schedule/cosine, objective/denoising, sampler/dpm_solver]
images: {size: 8, channels: 1}
trainer: {max_steps: 4}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with an experiment and a network."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "configs/net").mkdir(parents=True)
    (tmp_path / "experiments/mine.yaml").write_text(MINE)
    (tmp_path / "configs/net/narrow.yaml").write_text("name: unet_light\nwidths: [16, 32]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
def test_an_experiment_of_the_working_directory_is_found_by_its_name():
    resolved = config.load([], "mine")
    assert (resolved.config.exp, resolved.config.net["widths"]) == ("mine", [16, 32])
    assert resolved.origins["trainer.max_steps"] == "./experiments/mine.yaml"
    assert resolved.origins["net.widths"] == "./configs/net/narrow.yaml"
    assert resolved.origins["schedule.name"] == "configs/schedule/cosine.yaml"
    assert config.load(["net=narrow"], "ddpm_digits").config.net == {"name": "unet_light", "widths": [16, 32]}
    assert {"mine", "ddpm_digits"} < set(config.experiments())
    assert config.own_experiments() == ["mine"]
    assert {"narrow", "unet"} < set(config.parts("net"))
    assert "narrow                   widths [16, 32]" in config.describe()


def test_the_list_shows_the_users_own_first_and_with_their_folder(place, capsys):
    (place / "experiments/zz.yaml").write_text(MINE)
    experiments.main(["ddpm_digits_labels", "zz", "mine"])
    _, first, second, third = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "./experiments/mine"
    assert first.endswith("DDPM with a narrow network")
    assert second.split()[0] == "./experiments/zz"
    assert third.split()[0] == "ddpm_digits_labels"


def test_what_takes_the_place_of_the_projects_is_said(place, capsys):
    (place / "experiments/ddpm_digits.yaml").write_text(MINE)
    (place / "configs/net/unet_light.yaml").write_text("name: unet_light\nwidths: [16, 32]\n")
    assert config.load([], "ddpm_digits").config.trainer.max_steps == 4
    train.main(["exp=ddpm_digits", "net=unet_light", "dry_run=true"])
    lines = capsys.readouterr().out.splitlines()
    notice = "is taken in place of the one that comes with score_lightning"
    assert lines[:2] == [f"./configs/net/unet_light.yaml {notice}", f"./experiments/ddpm_digits.yaml {notice}"]
    train.main(["exp=mine", "dry_run=true"])
    assert notice not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MINE + "optimizer: {warm: 1}\n",
            r"unknown key optimizer.warm \(./experiments/mine.yaml\): did you mean warmup",
        ),
        (MINE.replace("max_steps: 4", "max_steps: four"), r"^trainer.max_steps: .* \(./experiments/mine.yaml\)$"),
        (
            MINE.replace("max_steps: 4", "max_steps: 0"),
            r"^trainer.max_steps must .*, got 0 \(./experiments/mine.yaml\)$",
        ),
        (MINE.replace("trainer: {max_steps: 4}", ""), r"no value for trainer.max_steps \(./experiments/mine.yaml\)"),
        (
            MINE + "net: {width: 3}\n",
            r"net unet_light has no 'width' \(./experiments/mine.yaml\): did you mean widths\?",
        ),
        (MINE.replace("narrow", "narow"), r"unknown net 'narow' \(./experiments/mine.yaml\): did you mean narrow\?"),
        (MINE + "net: {blocks: -1}\n", r"^net unet_light: .* must be positive \(.*, ./experiments/mine.yaml\)$"),
        (MINE + "prediction: foo\n", r"^unknown prediction 'foo'.* \(./experiments/mine.yaml\)$"),
        (MINE + "objective: {weight: foo}\n", r"^objective denoising: .*'foo'.* \(./experiments/mine.yaml\)$"),
        (MINE + "sampler: {foo: 1}\n", r"^sampler dpm_solver has no 'foo' \(./experiments/mine.yaml\)"),
        (MINE + "data: {name: nodata}\n", r"^unknown data 'nodata' \(./experiments/mine.yaml\)"),
        ("parts: [\n", r"^./experiments/mine.yaml cannot be read as YAML"),
        ("- 1\n", r"^./experiments/mine.yaml must hold keys and values"),
        ("parts: 1\n", r"^./experiments/mine.yaml: parts must be a list"),
    ],
)
def test_a_broken_one_names_its_file_and_the_key_and_leaves_the_list_whole(text, message, place, capsys):
    (place / "experiments/mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        catalog.describe("mine")
    experiments.main(["mine", "ddpm_mnist"])
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:2]] == ["experiment", "ddpm_mnist"]
    assert f"./experiments/mine.yaml cannot be built: {raised.value}" in printed


def test_a_broken_part_is_named_and_leaves_the_help_whole(place):
    (place / "configs/net/narrow.yaml").write_text("widths: [16, 32]\n")
    with pytest.raises(UserError, match=r"^./configs/net/narrow.yaml has no name, which says what the net is built by"):
        config.load([], "mine")
    (place / "configs/net/narrow.yaml").write_text("name: [\n")
    assert "      narrow                   ./configs/net/narrow.yaml cannot be read as YAML" in config.describe()
    (place / "configs/net/narrow.yaml").write_text("")
    assert "\n      narrow " in config.describe()


def test_the_projects_own_folders_are_not_taken_for_a_users(monkeypatch):
    monkeypatch.chdir(config.ROOT)
    assert config.own_experiments() == []
    assert config.load([], "ddpm_digits").origins["trainer.max_steps"] == "experiments/ddpm_digits.yaml"
    assert config.load([], "experiments/ddpm_digits.yaml").origins["prediction"] == ("experiments/ddpm_digits.yaml")
    assert config.replaced(config.load([], "ddpm_digits").origins.values()) == []


def test_a_working_directory_that_is_gone_has_none(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert config.own_experiments() == []
    assert config.load([], "ddpm_digits").config.exp == "ddpm_digits"
    os.chdir(tmp_path)
