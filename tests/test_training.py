"""The LightningModule: noise, augmentation, averages and the validation loss."""

import statistics
import time

import pytest
import torch
from torch.testing import assert_close

from score_lightning import build, config
from score_lightning.data import Batches, TrainingOrder
from score_lightning.images import ImageSet
from score_lightning.pixels import PixelRange
from score_lightning.randomness import BatchNoise
from score_lightning.training import AdamSettings, Augmentation, LevelLosses, WeightAverage

IMAGES = torch.arange(2 * 1 * 4 * 4, dtype=torch.uint8).view(2, 1, 4, 4).repeat(500, 1, 1, 1)


def test_half_of_the_images_are_flipped_and_none_otherwise_changed():
    augmented, told = Augmentation(PixelRange(), flip=True)(IMAGES, BatchNoise(0))
    assert told is None
    plain, mirrored = PixelRange().encode(IMAGES), PixelRange().encode(IMAGES.flip(3))
    flipped = (augmented == mirrored).flatten(1).all(1)
    assert torch.equal(flipped, ~(augmented == plain).flatten(1).all(1))
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / 1000**0.5


def test_dequantization_stays_within_its_grey_level():
    x, _ = Augmentation(PixelRange(0.0, 1.0), dequantize=True)(IMAGES, BatchNoise(0))
    assert torch.equal((x * 256).floor().to(torch.uint8), IMAGES)
    assert x.mul(256).frac().mean().item() == pytest.approx(0.5, abs=0.02)


def test_average_equals_its_definition_with_and_without_warmup():
    model = build.build_model(config.load([], "ddpm_digits"))
    for warmup in (True, False):
        average, weight = WeightAverage(model, 0.9, warmup), model.net.conv_in.weight
        expected = weight.detach().clone()
        for step in range(1, 120):
            with torch.no_grad():
                weight += 0.01 * step
            decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
            expected = decay * expected + (1 - decay) * weight.detach()
            average.update(model, step)
        assert_close(average.model.net.conv_in.weight, expected)


def test_the_half_life_of_the_average_grows_with_the_steps_as_in_edm():
    model = build.build_model(config.load([], "ddpm_digits"))
    average, weight = WeightAverage(model, 0.5 ** (1 / 3), warmup=False, ramp=0.05), model.net.conv_in.weight
    expected = weight.detach().clone()
    for step in range(1, 100):
        with torch.no_grad():
            weight += 0.01 * step
        seen = step - 1  # EDM's code averages before it counts the batch
        decay = 0.5 ** (1 / min(3, 0.05 * seen)) if seen else 0
        expected = decay * expected + (1 - decay) * weight.detach()
        average.update(model, step)
        if step == 1:
            assert_close(average.model.net.conv_in.weight, weight, rtol=0, atol=0)
    assert_close(average.model.net.conv_in.weight, expected)


def test_frozen_frequencies_are_copied_to_the_average():
    model = build.build_model(config.load(["net.channels=16", "net.blocks=1"], "ncsnpp_ve_cifar_continuous"))
    average = WeightAverage(model, 0.999)
    model.net.fourier.frequencies.data.mul_(2)
    average.update(model, 1)
    assert_close(average.model.net.fourier.frequencies, model.net.fourier.frequencies, rtol=0, atol=0)


def test_a_decay_of_zero_keeps_the_weights_themselves():
    model = build.build_model(config.load([], "ddpm_digits"))
    average = WeightAverage(model, 0.0)
    torch.nn.init.normal_(model.net.conv_in.weight)
    average.update(model, 1)
    assert_close(average.model.net.conv_in.weight, model.net.conv_in.weight, rtol=0, atol=0)


def test_the_average_stays_in_evaluation_mode():
    average = WeightAverage(build.build_model(config.load(["net.dropout=0.5"], "ddpm_digits")), 0.9)
    average.train()
    assert not any(module.training for module in average.modules())
    assert not any(p.requires_grad for p in average.parameters())


def test_learning_rate_warms_up_and_falls():
    adam = AdamSettings(warmup=10, decay_steps=100)
    assert [adam.factor(s) for s in (0, 4, 9, 50, 100)] == pytest.approx([0.1, 0.5 * 0.96, 0.91, 0.5, 0])
    assert AdamSettings().factor(0) == AdamSettings().factor(10**6) == 1


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
    module = build.build_module(config.load([], "ddpm_digits"))
    torch.nn.init.normal_(module.average.model.net.conv_out.weight, std=0.1)
    first = validate(module, [0, 1, 2], [11, 12, 13])
    assert module._level_losses.counts.tolist() == [1, 1, 2, 1, 1, 0, 0, 0, 0, 0]
    torch.rand(5)  # the global generator has no part in it
    torch.nn.init.normal_(module.model.net.conv_out.weight)  # nor have the raw weights
    assert_close(validate(module, [13], [11, 2, 12, 0, 1]), first, equal_nan=True)  # nor have batches
    torch.nn.init.normal_(module.average.model.net.conv_out.weight)
    assert not torch.allclose(validate(module, [0, 1, 2], [11, 12, 13]), first, equal_nan=True)


def test_validation_shows_every_level_alike_and_images_at_changing_levels():
    module = build.build_module(config.load([], "ddpm_digits"))
    levels = len(module._validation.times)
    numbers = torch.arange(1800)
    level = (numbers + numbers // levels) % levels
    assert torch.bincount(level).tolist() == [180] * 10
    image = numbers % 180
    assert len(set(level[image == 0].tolist())) > 1


def seconds(action, repetitions):
    """Median time of an action."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@pytest.mark.alone
def test_drawing_a_batch_costs_under_2_percent_of_a_ddpm_cifar_step():
    module = build.build_module(config.load([], "ddpm_cifar"))
    optimizer = torch.optim.Adam(module.model.parameters(), fused=True)
    batches = Batches(ImageSet(torch.randint(0, 256, (5000, 3, 32, 32)).byte()))
    order = iter(TrainingOrder(5000, 4, 1000, seed=0))

    def draw():
        batch = batches[next(order)]
        noise = BatchNoise(0, "train", batch["step"])
        module._objective.draw_t(module.model.schedule, noise.rand(4))
        return module._augmentation(batch["images"], noise)[0]

    x_0 = draw()

    def step():
        optimizer.zero_grad()
        module._objective(module.model, x_0, torch.tensor([1, 20, 300, 900])).mean().backward()
        optimizer.step()

    step()
    assert seconds(draw, 20) < 0.02 * seconds(step, 3)
