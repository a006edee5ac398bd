"""Every recipe's training against the published one, value by value, from the papers' own configurations.

eps and clip are those of the published loss; ours is a mean over dimensions, so both are divided by what that is summed
over: 1 of a mean, D of a sum, D / 2 of half a sum.
"""

import math

import pytest
from support import LIGHT

from score_lightning import config

COLUMNS = "lr eps clip per warmup batch steps ema range flip dropout"
HALF, SUM, MEAN, SCALED = "half the sum", "sum", "mean", "a hundred sums"
SIGNED, UNIT = [-1, 1], [0, 1]

NCSN = (1e-3, 1e-8, None, HALF, 0, 128, 200_000, 0.0, UNIT, True, None)
NCSNV2 = (1e-4, 1e-8, None, HALF, 0, 128, 300_000, 0.999, UNIT, True, None)
DDPM = (2e-4, 1e-8, 1.0, MEAN, 5000, 128, 800_000, 0.9999, SIGNED, True, 0.1)
DDPM_256 = (2e-5, 1e-8, 1.0, MEAN, 5000, 64, 500_000, 0.9999, SIGNED, True, 0.0)
IDDPM = (1e-4, 1e-8, None, MEAN, 0, 128, 500_000, 0.9999, SIGNED, False, 0.3)
VP = (2e-4, 1e-8, 1.0, MEAN, 5000, 128, 1_300_000, 0.9999, SIGNED, True, 0.1)
VE = (2e-4, 1e-8, 1.0, HALF, 5000, 128, 1_300_000, 0.999, UNIT, True, 0.1)
VE_256 = (2e-4, 1e-8, 1.0, HALF, 5000, 64, 2_400_000, 0.999, UNIT, True, 0.0)
EDM = (1e-3, 1e-8, None, SUM, 10_000_000 // 512, 512, 200_000_000 // 512, 0.5 ** (512 / 500_000), SIGNED, False, 0.13)
EDM_64 = (2e-4, 1e-8, None, SUM, 10_000_000 // 256, 256, 781_250, 0.5 ** (256 / 500_000), SIGNED, False, 0.05)
ADM = (1e-4, 1e-8, None, MEAN, 0, 256, 4_360_000, 0.9999, SIGNED, True, 0.0)


def but(recipe, **changed):
    return tuple(changed.get(name, value) for name, value in zip(COLUMNS.split(), recipe, strict=True))


PUBLISHED = {
    "ncsn_cifar": NCSN, "ncsn_celeba": NCSN, "ncsn_mnist": but(NCSN, flip=False),
    "ncsnv2_cifar": NCSNV2, "ncsnv2_celeba": but(NCSNV2, steps=210_000), "ncsnv2_church": but(NCSNV2, steps=200_000),
    "ncsnv2_bedroom": but(NCSNV2, steps=150_000), "ncsnv2_tower": but(NCSNV2, steps=150_000),
    "ncsnv2_ffhq": but(NCSNV2, steps=80_000, batch=32, eps=1e-3),
    "ddpm_cifar": DDPM, "ddpm_celeba": but(DDPM, per=SUM, warmup=0, steps=500_000),
    "ddpm_celebahq": DDPM_256, "ddpm_bedroom": but(DDPM_256, steps=2_400_000, flip=False),
    "ddpm_church": but(DDPM_256, steps=1_200_000), "ddpm_cat": but(DDPM_256, steps=1_800_000),
    "iddpm_cifar": IDDPM, "iddpm_cifar_vlb": IDDPM, "iddpm_imagenet64": but(IDDPM, steps=1_500_000, dropout=0.0),
    "iddpm_imagenet64_vlb": but(IDDPM, steps=1_500_000, dropout=0.0),
    "iddpm_imagenet64_labels": but(IDDPM, lr=3e-4, batch=2048, steps=250_000, dropout=0.0),
    **{f"{net}_{kind}": VP for net in ("ddpm", "ddpmpp", "ncsnpp") for kind in ("vp_cifar", "vp_cifar_continuous")},
    **{f"{net}_subvp_cifar_continuous": VP for net in ("ddpm", "ddpmpp", "ncsnpp")},
    **{f"{net}_{sde}_cifar_deep": but(VP, steps=950_000) for net in ("ddpmpp", "ncsnpp") for sde in ("vp", "subvp")},
    "ddpm_ve_cifar": VE, "ncsnpp_ve_cifar": VE, "ncsnpp_ve_cifar_continuous": VE,
    "ncsnpp_ve_cifar_deep": but(VE, steps=950_000),
    **{f"ncsnpp_ve_{data}": VE_256 for data in ("celebahq", "ffhq", "church", "bedroom")},
    **{f"edm{net}_cifar{labels}": EDM for net in ("", "_ncsnpp") for labels in ("", "_labels")},
    **{f"edm{net}_ffhq": EDM_64 for net in ("", "_ncsnpp")},
    **{f"edm{net}_afhq": but(EDM_64, dropout=0.25) for net in ("", "_ncsnpp")},
    "edm_imagenet64": (
        1e-4, 1e-8, None, SCALED, 10_000_000 // 4096, 4096, -(-2_500_000_000 // 4096), 0.5 ** (4096 / 50_000_000),
        SIGNED, False, 0.1,
    ),
    "adm_imagenet128": ADM, "adm_imagenet64": but(ADM, lr=3e-4, batch=2048, steps=540_000, dropout=0.1),
    "sr3_ffhq": (1e-4, 1e-8, None, MEAN, 10_000, 256, 1_000_000, 0.9999, SIGNED, False, 0.2),
}  # fmt: skip

AUGMENTED = {"cifar": 0.12, "ffhq": 0.15, "afhq": 0.15}  # by EDM

RESIZED = {"ncsn_celeba", "ncsnv2_celeba", "ncsnv2_church", "ncsnv2_bedroom", "ncsnv2_tower", "ddpm_celeba"}


def test_every_published_recipe_is_in_the_table():
    recipes = {path.stem for path in (config.ROOT / "experiments").glob("*.yaml")}
    recipes = {name for name in recipes if not name.startswith("toy_") and "digits" not in name}
    assert PUBLISHED.keys() == recipes - LIGHT - {"flow_cifar"}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_recipes_train_as_published(name):
    c, published = config.load([], name).config, dict(zip(COLUMNS.split(), PUBLISHED[name], strict=True))
    dim = c.images.channels * c.images.size**2
    divisor = {HALF: dim / 2, SUM: dim, MEAN: 1, SCALED: 100 * dim}[published["per"]]
    o = c.optimizer
    assert (o.lr, o.betas, o.weight_decay, o.warmup) == (published["lr"], [0.9, 0.999], 0, published["warmup"])
    assert o.decay is False
    assert o.eps == pytest.approx(published["eps"] / divisor, rel=0.03)
    assert (o.clip is None) == (published["clip"] is None)
    if o.clip is not None:
        assert o.clip == pytest.approx(published["clip"] / divisor, rel=0.03)
    assert (c.trainer.batch_size, c.trainer.max_steps) == (published["batch"], published["steps"])
    assert c.trainer.accumulate == 1
    assert c.ema.decay == pytest.approx(published["ema"], abs=1e-6)
    assert (c.images.range, c.images.flip) == (published["range"], published["flip"])
    assert c.net.get("dropout") == published["dropout"]
    assert c.images.dequantize == name.startswith("ncsn_")
    data = name.removesuffix("_labels").split("_")[-1]
    assert c.images.augment == (AUGMENTED.get(data, 0) if name.startswith("edm") else 0)
    assert (c.images.resize == "bilinear") == (name in RESIZED or name.startswith("ncsnv2"))
    assert (c.images.resize == "lanczos") == (name.startswith("edm") and "cifar" not in name)


@pytest.mark.parametrize(
    ("prefix", "objective"),
    [
        ("ncsn", {"weight": "sigma2", "times": "uniform"}),
        ("ddpm_cifar", {"weight": "sigma2", "times": "uniform"}),
        ("ncsnpp", {"weight": "sigma2", "times": "uniform"}),
        ("ddpmpp", {"weight": "sigma2", "times": "uniform"}),
        ("edm", {"weight": "edm", "times": "log_normal"}),
        ("adm", {"name": "hybrid", "weight": 0.001, "importance": False}),
        ("iddpm_cifar_vlb", {"variance": "learned", "importance": True}),
    ],
)
def test_recipes_have_the_published_objective(prefix, objective):
    for name in PUBLISHED:
        if name.startswith(prefix):
            chosen = config.load([], name).config.objective
            assert {key: chosen[key] for key in objective} == objective, name


def test_flow_matching_trains_as_its_example():
    c = config.load([], "flow_cifar").config
    assert (c.optimizer.lr, c.optimizer.betas, c.optimizer.clip, c.optimizer.warmup) == (1e-4, [0.9, 0.95], None, 0)
    assert (c.trainer.batch_size, c.trainer.max_steps) == (512, 1800 * (50_000 // 512))
    assert (c.ema.decay, c.images.flip, c.net["dropout"]) == (0.999, True, 0.3)
    chosen = c.objective
    assert (chosen["weight"], chosen["times"], chosen["log_mean"], chosen["log_std"]) == (
        "velocity",
        "log_normal",
        -1.2,
        1.2,
    )
    assert (c.net["channels"], c.net["multipliers"], c.net["blocks"], c.net["attention"]) == (128, [2, 2, 2], 4, [16])
    assert c.net["adaptive"]


NETWORKS = {  # channels, multipliers, blocks, attention, heads, channels of a head
    "adm_imagenet64": (192, [1, 2, 3, 4], 3, [32, 16, 8], None, 64),
    "edm_imagenet64": (192, [1, 2, 3, 4], 3, [32, 16, 8], None, 64),
    "adm_imagenet128": (256, [1, 1, 2, 3, 4], 2, [32, 16, 8], 4, None),
    "edm_ffhq": (128, [1, 2, 2, 2], 4, [16], None, None),
    "edm_ncsnpp_afhq": (128, [1, 2, 2, 2], 4, [16], None, None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_recipes_have_the_published_network(name):
    net = config.load([], name).config.net
    keys = ("channels", "multipliers", "blocks", "attention", "heads", "head_channels")
    assert tuple(net.get(key) for key in keys) == NETWORKS[name]
    assert net.get("learned_variance", False) == name.startswith("adm")
    assert net.get("adaptive", False) == net.get("by_blocks", False) == name.endswith(("imagenet64", "imagenet128"))


def test_what_single_recipes_say_of_their_data_and_times():
    load = lambda name: config.load([], name).config  # noqa: E731
    assert load("ddpm_celeba").objective["times"] == "antithetic"
    assert load("ncsnv2_ffhq").data["split"] == "ncsnv2"
    assert load("ddpm_celebahq").data["validation"] == load("ncsnpp_ve_celebahq").data["validation"] == 0
    assert load("edm_cifar").ema.ramp == load("edm_imagenet64").ema.ramp == load("edm_ffhq").ema.ramp == 0.05
    assert load("edm_ffhq").data["split"] == "none"
    assert load("edm_afhq").data["validation"] == load("edm_imagenet64").data["validation"] == 0
    assert (load("adm_imagenet64").conditioning, load("adm_imagenet128").conditioning) == ("time", "time")
    sr3 = load("sr3_ffhq")
    assert (sr3.condition["factor"], sr3.condition["shrink"], sr3.condition["drop"]) == (8, "bicubic", 0)
    assert (sr3.net["channels"], sr3.net["multipliers"], sr3.net["blocks"]) == (128, [1, 2, 4, 8, 8], 3)
    assert (sr3.images.size, sr3.data["split"], sr3.continuous) == (128, "none", True)
    for name in ("ddpm_vp_cifar", "ddpm_ve_cifar", "ddpm_vp_cifar_continuous", "ddpm_subvp_cifar_continuous"):
        assert load(name).net["map_scale"] == 0.1
    assert math.isclose(load("iddpm_imagenet64_labels").objective["weight"], 0.001 * 250 / 1000)
