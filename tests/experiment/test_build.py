"""Every YAML builds, and parts answer typos with the names they have."""

import pytest
import torch
from support import LIGHT, slow_but

from score_lightning import config
from score_lightning.config import registry
from score_lightning.config.registry import keyword_types
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.samplers import Ancestral, AnnealedLangevin

PARAMETERS = {"ddpm_cifar": 35_746_307, "ncsn_cifar": 30_117_635, "ncsn_celeba": 30_117_635}


REPRESENTATIVE = {  # of every network, kind of schedule and kind of data
    "adm_imagenet64", "ddpm_cifar", "ddpm_digits", "ddpm_digits_labels", "ddpmpp_subvp_cifar_continuous",
    "edm_cifar_labels", "iddpm_cifar_vlb", "ncsn_celeba", "ncsn_cifar", "ncsn_digits", "ncsnpp_ve_cifar",
    "ncsnv2_cifar", "sr_digits", "palette_digits", "sr3_ffhq",
    *(name for name in config.experiments() if name.startswith("toy_")),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(REPRESENTATIVE, config.experiments()))
def test_every_experiment_builds_and_takes_a_step_of_its_loss(name):
    resolved = config.load([], name)
    if resolved.config.images.size > 32:  # the network narrower, to save time
        resolved = config.load(
            ["net.channels=32" if resolved.config.net["name"] == "unet" else "net.channels=16"], name
        )
    experiment = TrainingExperiment(resolved)
    module, c = experiment.module, resolved.config
    if name in PARAMETERS:
        assert sum(p.numel() for p in module.model.parameters()) == PARAMETERS[name]
    x_0 = torch.rand(1, *experiment.shape)
    loss = module._objective(module.model, x_0, module._objective.draw_t(module.model.schedule, torch.rand(1)))
    assert torch.isfinite(loss).all()
    generator = experiment.preview
    assert generator.shape == x_0.shape[1:]
    if not c.points and c.data["name"] != "digits" and name not in LIGHT:
        assert (generator.sampler.clip is None) == name.startswith(("ncsn_", "ncsnv2", "edm", "flow"))


KINDS = [kind for kind in config.PART_KINDS if kind != "preview"]


@pytest.mark.parametrize("kind", slow_but({*KINDS} - {"net"}, KINDS))
def test_every_part_is_built_from_its_file(kind):
    for name in config.parts(kind):
        part = config.read_yaml(config.ROOT / "configs" / kind / f"{name}.yaml")
        if kind in ("data", "features"):  # which need files that are not here
            assert part["name"] in registry.TABLES[kind]
            assert set(part) - {"name"} <= set(keyword_types(registry.TABLES[kind][part["name"]]))
            continue
        resolved = config.load([f"{kind}={name}"], "ddpm_digits")
        given = {"net": {"image_size": 64, "image_channels": 1, "levels": 10}, "sampler": {"pixels": (-1.0, 1.0)}}
        given = given.get(kind, {})
        if name == "unet_small":
            given["image_size"] = 28
        assert registry.build_part(resolved, kind, given) is not None
    assert set(registry.TABLES[kind]) == {
        config.read_yaml(config.ROOT / "configs" / kind / f"{name}.yaml")["name"] for name in config.parts(kind)
    }


def test_experiments_are_the_methods_of_the_papers():
    ncsn, ddpm = (config.load([], f"{name}_cifar") for name in ("ncsn", "ddpm"))
    sampler = Experiment(ncsn).generator().sampler
    assert isinstance(sampler.corrector, AnnealedLangevin)
    assert (sampler.corrector.step_size, sampler.corrector.steps, sampler.denoise) == (2e-5, 100, False)
    model = Experiment(ncsn).model
    assert sampler.evaluations(model.schedule) == 1000
    assert model.schedule.start == "uniform"
    sampler = Experiment(ddpm).generator().sampler
    assert isinstance(sampler.predictor, Ancestral)
    assert (sampler.predictor.variance, sampler.clip, sampler.evaluations(Experiment(ddpm).model.schedule)) == (
        "large",
        (-1.0, 1.0),
        1000,
    )


def test_initial_weights_are_a_function_of_the_seed():
    one, same, other = (Experiment(config.load([f"seed={s}"], "ddpm_digits")).model for s in (1, 1, 2))
    assert torch.equal(one.net.conv_in.weight, same.net.conv_in.weight)
    assert not torch.equal(one.net.conv_in.weight, other.net.conv_in.weight)


def _build(words):
    resolved = config.load(["net=unet_tiny", "sampler=ancestral", *words], "ddpm_digits")
    return TrainingExperiment(resolved).module, Experiment(resolved).generator()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["net.chanels=3"], r"net unet has no 'chanels' \(command line\): did you mean channels\?; it has channels"),
        (["net.name=unett"], r"unknown net 'unett' \(command line\): did you mean unet\?"),
        (["net.channels=20"], "groups must divide channels"),
        (["net.channels=wide"], r"net.channels must be a whole number, got 'wide' \(command line\)"),
        (["net.channels=-32"], "must be positive"),
        (["net.attention=4"], "net.attention must be a list of a whole number"),
        (["net.levels=5"], "net unet has no 'levels'"),
        (["net.image_size=16"], "net unet has no 'image_size'"),
        (["sampler.steps=1.5"], "sampler.steps must be a whole number or null"),
        (["sampler.clip=maybe"], "sampler.clip must be true or false"),
        (["net=refinenet", "images.size=9", "conditioning=level"], "net refinenet cannot take images of 9 pixels"),
        (["net=refinenet", "conditioning=log_sigma"], "or its conditioning"),
        (["images.size=9"], "multiple of 2; got 9"),
        (["schedule.levels=0"], "at least one level"),
        (["schedule=geometric", "schedule.sigma_min=2"], "sigma_min < sigma_max"),
        (["prediction=noise"], "choose one of score, sigma_score, eps, x_0, v"),
        (["conditioning=sigma"], "choose one of time, time_of_1000, level, log_sigma"),
        (["objective.weight=none"], "choose one of sigma2"),
        (["sampler.variance=medium"], "one of large, small"),
        (["sampler.steps=5000"], "whole number between 1 and the schedule's 1000 levels"),
        (["sampler.spacing=odd"], "sampler.spacing must be one of uniform"),
        (["images.range=[1,0]"], "low < high"),
        (["images.range=[1]"], "images.range"),
        (["net.channels=1000000000"], "net unet: "),
        pytest.param(["net.blocks=1000000000"], "more than 30,000 operations", marks=pytest.mark.slow),
        (["net.multipliers=[1,1000000]"], r"take .* GiB, this machine has"),
        (["images.size=1000000"], "net unet is too large for 64 images of 1000000 pixels"),
        (["images.size=1000000000"], "or its conditioning: Storage size calculation overflowed"),
        (["trainer.batch_size=1000000000000"], "net unet is too large for 1000000000000 images"),
        (["schedule.levels=1000000000"], "at most 1,000,000"),
        (["sampler=annealed_langevin", "sampler.steps=1000000000"], "evaluations of the network per image"),
        (["net.dropout=.nan"], r"net.dropout must be a finite number, got nan \(command line\)"),
        (["optimizer.lr=.inf"], "optimizer.lr must be a finite number, got inf"),
        (["trainer.workers=1000000000000000000000"], r"trainer.workers must be below 2\^63"),
        (["net.name=[1]"], r"unknown net '\[1\]'"),
    ],
)
def test_mistakes_are_refused_when_the_run_is_built(words, message):
    with pytest.raises(UserError, match=message):
        _build(words)


def test_missing_values_of_a_part_are_named():
    with pytest.raises(UserError, match=r"data folder needs data\.path=…"):
        _ = Experiment(config.load(["data=folder"], "ddpm_digits")).split
