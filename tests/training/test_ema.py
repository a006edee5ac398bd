"""The average of the weights."""

import torch
from torch.testing import assert_close

from score_lightning import config
from score_lightning.experiment.build import Experiment
from score_lightning.training.ema import WeightAverage


def test_average_equals_its_definition_with_and_without_warmup():
    model = Experiment(config.load([], "ddpm_digits")).model
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
    model = Experiment(config.load([], "ddpm_digits")).model
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
    model = Experiment(config.load(["net.channels=16", "net.blocks=1"], "ncsnpp_ve_cifar_continuous")).model
    average = WeightAverage(model, 0.999)
    model.net.fourier.frequencies.data.mul_(2)
    average.update(model, 1)
    assert_close(average.model.net.fourier.frequencies, model.net.fourier.frequencies, rtol=0, atol=0)


def test_a_decay_of_zero_keeps_the_weights_themselves():
    model = Experiment(config.load([], "ddpm_digits")).model
    average = WeightAverage(model, 0.0)
    torch.nn.init.normal_(model.net.conv_in.weight)
    average.update(model, 1)
    assert_close(average.model.net.conv_in.weight, model.net.conv_in.weight, rtol=0, atol=0)


def test_the_average_stays_in_evaluation_mode():
    average = WeightAverage(Experiment(config.load(["net.dropout=0.5"], "ddpm_digits")).model, 0.9)
    average.train()
    assert not any(module.training for module in average.modules())
    assert not any(p.requires_grad for p in average.parameters())
