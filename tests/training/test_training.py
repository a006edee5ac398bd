"""The LightningModule: noise, augmentation, averages and the validation loss."""

import copy
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from support import assert_same_state, run, state
from torch.testing import assert_close

from score_lightning import config, train
from score_lightning.data.pixels import PixelRange
from score_lightning.evaluation.model_losses import LevelLosses, ValidationLoss
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.networks.layers import Block
from score_lightning.runtime.randomness import BatchNoise, seed_dropout
from score_lightning.schedules import linear_beta
from score_lightning.tracking.csv import read_losses
from score_lightning.tracking.dashboard import training_flops
from score_lightning.training.module import Augmentation, ScoreModule

IMAGES = torch.arange(2 * 1 * 4 * 4, dtype=torch.uint8).view(2, 1, 4, 4).repeat(500, 1, 1, 1)


def test_half_of_the_images_are_flipped_and_none_otherwise_changed():
    augmented, parameters = Augmentation(PixelRange(), flip=True)(IMAGES, BatchNoise(0))
    assert parameters is None
    plain, mirrored = PixelRange().encode(IMAGES), PixelRange().encode(IMAGES.flip(3))
    flipped = (augmented == mirrored).flatten(1).all(1)
    assert torch.equal(flipped, ~(augmented == plain).flatten(1).all(1))
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / 1000**0.5


def test_dequantization_stays_within_its_grey_level():
    x, _ = Augmentation(PixelRange(0.0, 1.0, dequantized=True))(IMAGES, BatchNoise(0))
    assert torch.equal((x * 256).floor().to(torch.uint8), IMAGES)
    assert x.mul(256).frac().mean().item() == pytest.approx(0.5, abs=0.02)


def test_level_losses_are_means_over_each_level():
    losses = LevelLosses(3)
    losses.update(torch.tensor([0, 2, 2]), torch.tensor([1.0, 2.0, 3.0]))
    losses.update(torch.tensor([0, 1]), torch.tensor([3.0, 5.0]))
    assert losses.compute().tolist() == [2.0, 5.0, 2.5]


def validate(module, *batches):
    module._level_losses.reset()
    for rows in batches:
        images = (
            torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8) * (1 + torch.tensor(rows).view(-1, 1, 1, 1) % 3).byte()
        )
        module.validation_step({"images": images, "step": 0, "numbers": torch.tensor(rows)}, 0)
    return module._level_losses.compute()


def test_validation_uses_the_same_times_and_noise_every_time_and_the_average():
    module = TrainingExperiment(config.load([], "ddpm_digits")).module
    torch.nn.init.normal_(module.average.model.net.conv_out.weight, std=0.1)
    first = validate(module, [0, 1, 2], [11, 12, 13])
    assert module._level_losses.counts.tolist() == [1, 1, 2, 1, 1, 0, 0, 0, 0, 0]
    torch.rand(5)  # the global generator has no part in it
    torch.nn.init.normal_(module.model.net.conv_out.weight)  # nor have the raw weights
    assert_close(validate(module, [13], [11, 2, 12, 0, 1]), first, equal_nan=True)  # nor have batches
    torch.nn.init.normal_(module.average.model.net.conv_out.weight)
    assert not torch.allclose(validate(module, [0, 1, 2], [11, 12, 13]), first, equal_nan=True)


def test_validation_dequantizes_where_training_does():
    """x_0 of the validation is inside each level's interval, and is the same every time."""
    seen = []

    def objective(model, x_0, t, randn_like):  # noqa: ARG001
        seen.append(x_0)
        return x_0.flatten(1).mean(1)

    model = SimpleNamespace(schedule=linear_beta(1e-4, 0.02, 1000), classes=None)
    for pixels in (PixelRange(0.0, 1.0), PixelRange(0.0, 1.0, dequantized=True)):
        loss = ValidationLoss(objective, model, pixels, 10, seed=0)
        loss(model, IMAGES[:6], torch.arange(6))
        loss(model, IMAGES[:6], torch.arange(6))
    assert torch.equal(seen[0], IMAGES[:6] / 255)
    assert torch.equal(seen[2], seen[3])
    share = seen[2] * 256 - IMAGES[:6]
    assert 0 <= share.min() < 0.1
    assert 0.9 < share.max() <= 1


def test_validation_shows_every_level_alike_and_images_at_changing_levels():
    module = TrainingExperiment(config.load([], "ddpm_digits")).module
    levels = len(module._validation.times)
    numbers = torch.arange(1800)
    level = (numbers + numbers // levels) % levels
    assert torch.bincount(level).tolist() == [180] * 10
    image = numbers % 180
    assert len(set(level[image == 0].tolist())) > 1


def test_seeding_dropout_repeats_it_and_does_nothing_for_devices_that_are_not_in_use():
    noted = torch.cuda._lazy_seed_tracker.manual_seed_all_cb
    seed_dropout(1, torch.device("cpu"))
    first = torch.rand(3)
    seed_dropout(1, torch.device("cpu"))
    assert torch.equal(torch.rand(3), first)
    assert torch.cuda._lazy_seed_tracker.manual_seed_all_cb is noted


@pytest.mark.parametrize("clip", [3.0, 1e9])
def test_a_gradient_is_clipped_to_its_norm_in_training(clip):
    module = TrainingExperiment(config.load(["net.blocks=2"], "ddpm_digits")).module
    module.trainer = L.Trainer(barebones=True, accelerator="cpu")
    optimizer = module.configure_optimizers()["optimizer"]
    other = copy.deepcopy(module.model)
    theirs = torch.optim.Adam(other.parameters(), *(optimizer.param_groups[0][key] for key in ("lr", "betas", "eps")))
    for number, scale in enumerate((1.0, 10.0, 0.1)):
        for p, q in zip(module.model.parameters(), other.parameters(), strict=True):
            p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
            q.grad = p.grad.clone()
        torch.nn.utils.clip_grad_norm_(other.parameters(), clip)
        module.last = torch.zeros(1, dtype=torch.int64), torch.zeros(1)
        module.configure_gradient_clipping(optimizer, clip, "norm")
        optimizer.step()
        theirs.step()
    for p, q in zip(module.model.parameters(), other.parameters(), strict=True):
        assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("exp", "words"),
    [
        ("ddpm_digits", []),
        ("ddpm_digits_labels", []),
        ("ncsn_digits", []),
        ("ddpm_digits", ["objective=hybrid", "objective.importance=true", "net.learned_variance=true"]),
        ("ddpm_digits", ["schedule=edm", "prediction=edm", "objective.times=log_normal", "objective.weight=edm"]),
        ("ddpm_digits", ["schedule=vp", "objective.times=importance", "objective.weight=likelihood"]),
    ],
    ids=["ddpm", "labels", "ncsn", "importance", "edm", "likelihood"],
)
def test_nothing_is_copied_to_the_host_between_logged_steps(exp, words, tmp_path, monkeypatch):
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def start_and_stop(self, batch, batch_idx):  # noqa: ARG001
        if batch_idx == 2:
            profiler.start()
        if batch_idx == 5:
            profiler.stop()

    monkeypatch.setattr(ScoreModule, "on_train_batch_start", start_and_stop)
    settings = ["evaluation.n=0", "samples.n=0", "trainer.log_every=100", "trainer.max_steps=6", "validation.every=6"]
    run(tmp_path, *settings, *words, exp=exp)
    names = [event.name for event in profiler.events()]
    assert names.count("aten::_fused_adam_") == 3
    for event in profiler.events():  # torch's kernel of Adam reads its own step counts, on the CPU only
        if event.name in ("aten::item", "aten::is_nonzero"):
            assert event.cpu_parent is not None, event
            assert event.cpu_parent.name == "aten::_fused_adam_"


COMPILE = torch.nn.Module.compile


def train_points(out, *words):
    """(step, loss) of the rows that a training of a small network on points leaves."""
    settings = ["trainer.progress=false", "samples.n=0", "logger=off", "figure=null", "net.width=16", f"out={out}"]
    train.main(["exp=toy_two_moons", *settings, *words])
    return read_losses(next(out.rglob("metrics.csv")))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_row_of_the_log_holds_the_loss_of_its_step(tmp_path, accumulate):
    words = ["trainer.max_steps=25", f"trainer.accumulate={accumulate}"]
    every = train_points(tmp_path / "every", *words, "trainer.log_every=1")
    some = train_points(tmp_path / "some", *words, "trainer.log_every=7")
    assert [step for step, _ in every] == list(range(25))
    assert some == [row for row in every if (row[0] + 1) % 7 == 0]


def compile_points(out, monkeypatch, capfd, *words, backend):
    """(rows, what was printed), compiled by a backend that takes little time."""
    torch.compiler.reset()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda net: COMPILE(net, backend=backend))
    rows = train_points(out, "trainer.max_steps=5", "trainer.log_every=1", "trainer.compile=true", *words)
    return rows, capfd.readouterr().out


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path, monkeypatch, capfd):
    plain = train_points(tmp_path / "plain", "trainer.max_steps=5", "trainer.log_every=1")
    compiled, printed = compile_points(tmp_path / "compiled", monkeypatch, capfd, backend="aot_eager")
    assert [loss for _, loss in compiled] == pytest.approx([loss for _, loss in plain], rel=1e-5)
    assert "compiling the network" in printed
    assert "trains without" not in printed


def test_what_cannot_be_compiled_trains_without(tmp_path, monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("no compiler here")

    plain = train_points(tmp_path / "plain", "trainer.max_steps=5", "trainer.log_every=1")
    rows, printed = compile_points(tmp_path / "broken", monkeypatch, capfd, backend=broken)
    assert rows == plain
    assert "trains without: " in printed
    _, printed = compile_points(tmp_path / "implicit", monkeypatch, capfd, "objective=implicit", backend="aot_eager")
    assert "trains without: " in printed


def test_checkpointed_activations_change_nothing(tmp_path):
    words = ["evaluation.n=0", "samples.n=0", "net.dropout=0.2"]
    plain = run(tmp_path / "plain", *words, exp="edm_digits")
    again = run(tmp_path / "again", *words, "trainer.checkpointing=true", exp="edm_digits")
    assert_same_state(state(plain), state(again))
    module = TrainingExperiment(config.load(["trainer.checkpointing=true"], "edm_digits")).module
    blocks = [part for part in module.model.modules() if isinstance(part, Block)]
    assert blocks
    assert all(block.checkpointing for block in blocks)


def test_what_is_computed_again_is_no_work_of_the_model():
    plain, again = (
        TrainingExperiment(config.load([f"trainer.checkpointing={value}"], "edm_digits")).module.model
        for value in ("false", "true")
    )
    assert training_flops(again, (1, 8, 8)) == training_flops(plain, (1, 8, 8))
