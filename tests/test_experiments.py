"""The list of experiments, and each published recipe's numbers."""

import pytest
from conftest import fails

from score_lightning import config, experiments, train

PUBLISHED = {
    "ncsn_cifar": 30_117_635,
    "ncsnv2_cifar": 29_694_083,
    "ncsnv2_bedroom": 83_445_379,
    "ncsnv2_ffhq": 94_132_611,
    "ddpm_cifar": 35_746_307,
    "ddpm_vp_cifar": 35_218_947,
    "iddpm_cifar": 52_546_438,
    "ncsnpp_ve_cifar": 62_693_251,
    "ncsnpp_ve_cifar_continuous": 62_758_915,
    "ncsnpp_ve_cifar_deep": 107_587_075,
    "ddpmpp_vp_cifar_continuous": 61_804_419,
    "ddpmpp_subvp_cifar_deep": 106_632_579,
    "edm_cifar": 55_733_891,
    "edm_ncsnpp_cifar": 56_397_827,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_recipes_have_the_published_number_of_parameters(name, parameters):
    assert experiments.describe(name).parameters == parameters


def test_dry_run_prints_the_configuration_and_the_number_of_parameters(capsys):
    train.main(["exp=edm_ncsnpp_cifar", "dry_run=true"])
    printed = capsys.readouterr().out
    assert "parameters: 56397827\n" in printed
    assert "augment: 0.12" in printed


def test_the_list_shows_data_parameters_method_and_result(capsys):
    experiments.main(["ncsnv2_c"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["experiment", "data", "parameters", "method", "published"]
    assert [row.split()[0] for row in rows] == ["ncsnv2_celeba", "ncsnv2_church", "ncsnv2_cifar"]
    for words in ("cifar10 32 x 32", "29,694,083", "NCSNv2 on CIFAR-10", "FID 10.87, IS 8.40, with denoising"):
        assert words in rows[2]


def test_a_name_that_is_not_there_is_answered_with_those_that_are(capsys, monkeypatch):
    assert "ddpm_digits" in fails(experiments, ["nothing"], capsys, monkeypatch)


def test_every_recipe_on_published_data_names_its_result():
    own = {"ddpm_digits", "ddpm_digits_labels", "ncsn_digits", "ddpm_mnist", "ncsn_mnist", "ncsn_celeba"}
    for name in set(config.experiments()) - own:
        if not name.startswith("toy_"):
            method, published = experiments.read_comment(config.find_experiment(name))
            assert method, name
            assert published, name
