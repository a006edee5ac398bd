"""A user's own networks, objectives and other parts, given from Python."""

import sys
from functools import partial

import pytest
import torch
from support import QUICK
from torch import Tensor, nn

from score_lightning import checkpoint, config, export, sample, train
from score_lightning import eval as evaluate
from score_lightning.data.sources import digits
from score_lightning.errors import UserError
from score_lightning.evaluation.features.base import Features
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.objectives import Denoising
from score_lightning.samplers import DDIM, Sampler
from score_lightning.schedules import linear_beta


class Mine(nn.Module):
    """Two convolutions of an image and its conditioning."""

    def __init__(self, image_channels: int, width: int = 8, note: str = "", classes: int | None = None) -> None:
        super().__init__()
        if width % 2:
            raise ValueError("width must be even")
        self.note, self.classes = note, classes
        self.layers = nn.Sequential(
            nn.Conv2d(image_channels + 1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, image_channels, 3, padding=1),
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c = c.to(x).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return self.layers(torch.cat([x, c / 1000], 1))


def absolute(power: float = 1.0):
    """Denoising with another norm, as a subclass of ours."""

    class Absolute(Denoising):
        def __call__(self, model, x_0, t, randn_like=torch.randn_like):
            return super().__call__(model, x_0, t, randn_like) ** (power / 2)

    return Absolute()


def pooled():
    return Features("pooled", nn.Sequential(ToFloat(), nn.AvgPool2d(4), nn.Flatten()))


class ToFloat(nn.Module):
    def forward(self, x):
        return x.float()


OWN = {
    "net": {"mine": Mine},
    "objective": {"absolute": absolute},
    "schedule": {"steep": partial(linear_beta, 1e-4, 0.05)},
    "sampler": {"quick": lambda steps=3: Sampler(DDIM(), steps=steps)},
    "data": {"few": lambda shape: digits(shape)},
    "features": {"pooled": pooled},
}
NAMES = [
    "net.name=mine", "net.width=4", "objective.name=absolute", "objective.power=1.5", "schedule.name=steep",
    "schedule.levels=50", "sampler.name=quick", "data.name=few",
]  # fmt: skip


def resolve(*words):
    return config.load([*NAMES, *words], "ddpm_digits")


@pytest.fixture(scope="module")
def own_ckpt(tmp_path_factory):
    out = tmp_path_factory.mktemp("own")
    quick = [word for word in QUICK if not word.startswith(("sampler.", "preview."))]
    train.main(["exp=ddpm_digits", *NAMES, *quick, "evaluation.n=0", "samples.n=2", f"out={out}"], parts=OWN)
    return out / "ddpm_digits/0/checkpoints/last.ckpt"


def test_every_kind_of_part_is_built():
    experiment = TrainingExperiment(resolve("features.name=pooled"), parts=OWN)
    assert isinstance(experiment.model.net, Mine)
    assert experiment.model.net.layers[0].out_channels == 4
    assert type(experiment.objective).__name__ == "Absolute"
    assert experiment.schedule.levels == 50
    assert experiment.sampler.steps == 3
    assert experiment.module is not None
    assert len(experiment.split[0]) > 1000


def test_an_own_objective_is_the_one_that_is_trained():
    experiment = TrainingExperiment(resolve(), parts=OWN)
    x_0, t = torch.rand(3, 1, 8, 8), torch.tensor(20)
    own, ours = (loss(experiment.model, x_0, t, torch.ones_like) for loss in (experiment.objective, Denoising()))
    torch.testing.assert_close(own, ours**0.75)


def test_a_checkpoint_holds_names_as_plain_data(own_ckpt):
    held = checkpoint.read(own_ckpt)["config"]
    assert held["net"] == {"name": "mine", "width": 4}
    assert held["objective"] == {"name": "absolute", "power": 1.5}
    assert held["schedule"] == {"name": "steep", "levels": 50}


def test_a_checkpoint_is_loaded_sampled_evaluated_and_exported_with_the_parts(own_ckpt, tmp_path):
    model = checkpoint.load(own_ckpt, parts=OWN)
    assert isinstance(model.net, Mine)
    sample.main([f"ckpt={own_ckpt}", "n=2", f"out={tmp_path}"], parts=OWN)
    assert (tmp_path / "samples.npz").is_file()
    words = ["n=4", "evaluation.metrics=[fid]", "features.name=pooled", f"out={tmp_path}"]
    evaluate.main([f"ckpt={own_ckpt}", *words], parts=OWN)
    assert "fid_pooled" in (tmp_path / "metrics.json").read_text()
    export.main([f"ckpt={own_ckpt}", "format=safetensors", f"out={tmp_path / 'exported'}"], parts=OWN)
    again = checkpoint.load(tmp_path / "exported", parts=OWN)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_training_with_own_parts_resumes_and_starts_from_its_weights(own_ckpt, capsys):
    out = own_ckpt.parents[3]
    quick = [word for word in QUICK if not word.startswith(("sampler.", "preview.", "trainer.max"))]
    words = ["exp=ddpm_digits", *NAMES, *quick, "evaluation.n=0", "samples.n=0", f"out={out}"]
    train.main([*words, "resume=auto", "trainer.max_steps=4"], parts=OWN)
    assert "has done all its steps" in capsys.readouterr().out
    train.main([*words, f"init={own_ckpt}", "trainer.max_steps=1", "dry_run=true"], parts=OWN)
    with pytest.raises(UserError, match="holds another network"):
        train.main([*words, f"init={own_ckpt}", "net.width=6", "trainer.max_steps=1", "dry_run=true"], parts=OWN)


def test_without_the_parts_one_message_says_what_to_give(own_ckpt):
    with pytest.raises(UserError) as raised:
        checkpoint.load(own_ckpt, parts={"schedule": OWN["schedule"]})
    assert str(raised.value).startswith(f"unknown net 'mine' ({own_ckpt}); there are unet, ")
    assert str(raised.value).endswith("One of your own is given in Python: parts={'net': {'mine': …}}")
    with pytest.raises(UserError, match="unknown schedule 'steep'"):
        checkpoint.load(own_ckpt)


def test_loading_imports_nothing_that_a_checkpoint_names(own_ckpt, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("class Net: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    contents = checkpoint.read(own_ckpt)
    for name in ("trap", "trap.Net", "trap:Net"):
        contents["config"]["net"] = {"name": name}
        torch.save(contents, tmp_path / "trap.ckpt")
        with pytest.raises(UserError, match=f"unknown net '{name}'"):
            checkpoint.load(tmp_path / "trap.ckpt", parts=OWN)
    assert "trap" not in sys.modules


def test_a_part_that_a_model_does_not_need_may_be_missing(own_ckpt):
    needed = {kind: OWN[kind] for kind in ("net", "schedule")}
    assert isinstance(checkpoint.load(own_ckpt, parts=needed).net, Mine)


class Anything(nn.Module):
    def __init__(self, *args, **kwargs) -> None:  # noqa: ARG002
        super().__init__()


@pytest.mark.parametrize(
    ("words", "parts", "message"),
    [
        (["net.widht=4"], OWN, r"net mine has no 'widht' \(command line\): did you mean width\?; it has width, note"),
        (["net.width=wide"], OWN, r"net.width must be a whole number, got 'wide' \(command line\)"),
        (["net.note=1"], OWN, r"net.note must be text, got 1"),
        (["net.width=3"], OWN, "net mine: width must be even"),
        (["net.name=main"], OWN, r"unknown net 'main' \(command line\): did you mean mine\?; there are unet, .*, mine"),
        (["net.name=other", "net.depth=2"], {"net": {"other": Anything}}, "net other has no 'depth'"),
        (["net.name=n"], {"net": {"n": lambda: 3}}, "net n must give a torch.nn.Module; it gave 3"),
        (["net.name=n"], {"net": {"n": lambda dim: 3}}, r"net n needs net\.dim=…"),
        ([], {"nets": {}}, r"parts: unknown kind 'nets': did you mean net\?; there are net, schedule, objective"),
        ([], {"net": {"unet": Mine}}, "score_lightning has a net named unet itself; give yours another name"),
    ],
)
def test_mistakes_in_own_parts_are_answered_as_in_ours(words, parts, message):
    with pytest.raises(UserError, match=message):
        _ = Experiment(config.load([*NAMES[:1], *words], "ddpm_digits"), parts=parts).model


def test_annotations_that_only_a_type_checker_knows_accept_all_values():
    names = {}
    exec(
        "from __future__ import annotations\nfrom torch import nn\nclass Late(nn.Module):\n"
        "    def __init__(self, image_channels: Channels, width: int = 3) -> None:\n"
        "        super().__init__()\n        self.width = width",
        names,
    )
    words = ["net.name=late", "net.width=5"]
    net = Experiment(config.load(words, "ddpm_digits"), parts={"net": {"late": names["Late"]}}).build_net()
    assert net.width == 5


@pytest.mark.parametrize("kind", ["schedule", "objective", "sampler", "data", "features"])
def test_a_constructor_of_something_else_is_refused(kind):
    from score_lightning.config.registry import build_part, with_own

    resolved = config.load([f"{kind}.name=wrong"], "ddpm_digits")
    with pytest.raises(UserError, match=f"{kind} wrong must give a.*; it gave <object"):
        build_part(resolved, kind, {}, with_own({kind: {"wrong": object}}))


@pytest.mark.parametrize("made", [(1, 2), (), 3])
def test_data_are_two_sets_of_images(made):
    resolved = config.load(["data.name=wrong"], "ddpm_digits")
    experiment = Experiment(resolved, parts={"data": {"wrong": lambda: made}})
    with pytest.raises(UserError, match="must give a tuple of training and validation images, two ImageSet; it gave"):
        _ = experiment.split


def test_labels_are_refused_or_given_by_the_own_signature():
    words = ["labels.classes=10", "net.name=mine"]
    net = Experiment(config.load(words, "ddpm_digits"), parts=OWN).build_net()
    assert net.classes == 10
    parts = {"net": {"plain": lambda image_channels: None, "mine": Mine}}
    plain = Experiment(config.load([words[0], "net.name=plain"], "ddpm_digits"), parts=parts)
    with pytest.raises(UserError, match=r"net plain cannot take labels; .*mine can"):
        plain.build_net()
