"""The list of experiments, and each published recipe's numbers."""

import pytest
from support import LIGHT, fails

from score_lightning import checkpoint, config, experiments, train
from score_lightning.experiment import catalog

NO_LABEL = {channels: 4 * channels for channels in (192, 256)}  # the row of no label, which only ours has
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
    "edm_ffhq": 61_805_571,
    "edm_ncsnpp_ffhq": 62_761_091,
    "edm_imagenet64": 295_899_267 + NO_LABEL[192],
    "adm_imagenet64": 295_904_454 + NO_LABEL[192],
    "adm_imagenet128": 421_529_606 + NO_LABEL[256],
    "sr3_ffhq": 551_939_971,  # 550M in the paper
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_recipes_have_the_published_number_of_parameters(name, parameters):
    assert catalog.describe(name).parameters == parameters


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
    digits = {f"{name}_digits" for name in ("ddpm", "edm", "ecm", "ncsn", "flow", "sr", "palette")}
    own = {*digits, *LIGHT, "ddpm_digits_labels"}
    for name in set(config.experiments()) - own:
        if not name.startswith("toy_"):
            method, published = catalog.read_comment(config.find_experiment(name))
            assert method, name
            assert published, name


# of the projects' configuration files: lr, eps, what a published loss is divided by to be a mean, clip, average, if it
# warms up, batch, steps, dropout, flips, lower end of pixels
PLAIN, HALF_32 = 1, 3 * 32**2 / 2
RECIPES = {
    "ncsn_cifar": (1e-3, 1e-8, HALF_32, None, 0.0, None, 128, 200_000, None, True, 0),
    "ncsnv2_cifar": (1e-4, 1e-8, HALF_32, None, 0.999, False, 128, 300_000, None, True, 0),
    "ncsnv2_celeba": (1e-4, 1e-8, 4 * HALF_32, None, 0.999, False, 128, 210_000, None, True, 0),
    "ncsnv2_church": (1e-4, 1e-8, 9 * HALF_32, None, 0.999, False, 128, 200_000, None, True, 0),
    "ncsnv2_tower": (1e-4, 1e-8, 16 * HALF_32, None, 0.999, False, 128, 150_000, None, True, 0),
    "ncsnv2_ffhq": (1e-4, 1e-3, 64 * HALF_32, None, 0.999, False, 32, 80_000, None, True, 0),
    "ddpm_cifar": (2e-4, 1e-8, PLAIN, 1, 0.9999, None, 128, 800_000, 0.1, True, -1),
    "ddpm_bedroom": (2e-5, 1e-8, PLAIN, 1, 0.9999, False, 64, 2_400_000, 0.0, False, -1),
    "ddpm_church": (2e-5, 1e-8, PLAIN, 1, 0.9999, False, 64, 1_200_000, 0.0, True, -1),
    "iddpm_cifar": (1e-4, 1e-8, PLAIN, None, 0.9999, False, 128, 500_000, 0.3, False, -1),
    "iddpm_imagenet64_vlb": (1e-4, 1e-8, PLAIN, None, 0.9999, False, 128, 1_500_000, 0.0, False, -1),
    "ncsnpp_ve_cifar": (2e-4, 1e-8, HALF_32, 1, 0.999, True, 128, 1_300_000, 0.1, True, 0),
    "ncsnpp_ve_cifar_deep": (2e-4, 1e-8, HALF_32, 1, 0.999, True, 128, 950_000, 0.1, True, 0),
    "ncsnpp_ve_church": (2e-4, 1e-8, 64 * HALF_32, 1, 0.999, True, 64, 2_400_000, 0.0, True, 0),
    "ddpmpp_vp_cifar": (2e-4, 1e-8, PLAIN, 1, 0.9999, True, 128, 1_300_000, 0.1, True, -1),
    "ddpmpp_subvp_cifar_deep": (2e-4, 1e-8, PLAIN, 1, 0.9999, True, 128, 950_000, 0.1, True, -1),
    "edm_cifar": (1e-3, 1e-8, 2 * HALF_32, None, 0.5 ** (512 / 500_000), False, 512, 390_625, 0.13, False, -1),
    "sr3_ffhq": (1e-4, 1e-8, PLAIN, None, 0.9999, False, 256, 1_000_000, 0.2, False, -1),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_published_hyper_parameters(name):
    lr, eps, divisor, clip, decay, warmup, batch, steps, dropout, flip, low = RECIPES[name]
    c = config.load([], name).config
    assert (c.optimizer.lr, c.trainer.batch_size, c.trainer.max_steps) == (lr, batch, steps)
    assert c.optimizer.eps == pytest.approx(eps / divisor, rel=0.02)
    assert c.optimizer.clip == (None if clip is None else pytest.approx(clip / divisor, rel=0.02))
    assert c.ema.decay == pytest.approx(decay, rel=1e-6)
    assert warmup is None or c.ema.warmup == warmup
    assert (c.net.get("dropout"), c.images.flip, c.images.range[0]) == (dropout, flip, low)


SAMPLING = {
    "ncsn_cifar": ({"sigma_max": 1.0, "levels": 10}, {"step_size": 2e-5, "steps": 100, "denoise": False}),
    "ncsnv2_cifar": ({"sigma_max": 50.0, "levels": 232}, {"step_size": 6.2e-6, "steps": 5, "denoise": True}),
    "ncsnv2_celeba": ({"sigma_max": 90.0, "levels": 500}, {"step_size": 3.3e-6, "steps": 5, "denoise": True}),
    "ncsnv2_church": ({"sigma_max": 140.0, "levels": 788}, {"step_size": 4.9e-6, "steps": 4, "denoise": True}),
    "ncsnv2_bedroom": ({"sigma_max": 190.0, "levels": 1086}, {"step_size": 1.8e-6, "steps": 3, "denoise": True}),
    "ncsnv2_ffhq": ({"sigma_max": 348.0, "levels": 2311}, {"step_size": 9e-7, "steps": 3, "denoise": True}),
    "ddpm_church": ({"beta_max": 0.02, "levels": 1000}, {"name": "ancestral", "variance": "small"}),
    "iddpm_cifar": ({"name": "cosine", "levels": 4000}, {"name": "ancestral", "variance": "learned"}),
    "ncsnpp_ve_cifar": ({"name": "geometric", "levels": 1000, "start": "gaussian"}, {"snr": 0.16, "steps": 1000}),
    "ncsnpp_ve_church": ({"name": "ve", "sigma_max": 380.0}, {"snr": 0.075, "steps": 2000}),
    "ddpmpp_vp_cifar_continuous": ({"name": "vp", "beta_max": 20.0}, {"name": "euler_maruyama", "steps": 1000}),
    "sr3_ffhq": ({"beta_max": 0.01, "levels": 2000}, {"name": "ancestral", "variance": "large", "steps": 100}),
    "edm_cifar": ({"name": "edm", "sigma_min": 0.002, "rho": 7.0}, {"name": "heun", "steps": 18, "spacing": "uniform"}),
    "edm_ffhq": ({"name": "edm"}, {"name": "heun", "steps": 40, "churn": 0.0}),
    "edm_imagenet64": (
        {"name": "edm"},
        {"steps": 256, "churn": 40.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003},
    ),
    "adm_imagenet64": ({"name": "cosine", "levels": 1000}, {"name": "ancestral", "variance": "learned", "steps": 250}),
    "adm_imagenet128": ({"name": "linear_beta", "levels": 1000}, {"variance": "learned", "steps": 250}),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_recipes_have_the_published_noise_levels_and_sampler(name):
    schedule, sampler = SAMPLING[name]
    c = config.load([], name).config
    assert {key: c.schedule[key] for key in schedule} == schedule
    assert {key: c.sampler[key] for key in sampler} == sampler


DIGITS = {"ddpm_digits_labels": 129_121, "sr_digits": 128_705, "palette_digits": 128_993}
DIGITS |= dict.fromkeys(("ddpm_digits", "edm_digits", "ecm_digits", "ncsn_digits", "flow_digits"), 128_417)


@pytest.mark.parametrize("name", DIGITS)
def test_experiments_of_digits_train_as_they_are(name, tmp_path):
    words = ["trainer.max_steps=2", "validation.n=10", "samples.n=2", "evaluation.n=0", "logger=off"]
    train.main([f"exp={name}", *words, "trainer.progress=false", f"out={tmp_path}"])
    folder = tmp_path / name / "0"
    assert (folder / "samples/step_0000002.png").is_file()
    model = checkpoint.load(folder / "checkpoints/last.ckpt")
    assert sum(p.numel() for p in model.net.parameters()) == DIGITS[name]
