"""Langevin steps by signal-to-noise ratio: the published rule, measured on a pilot run."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from score_lightning.conditional import LabelConditioned, MeasurementConditioned, Strength, inpainting
from score_lightning.data.pixels import PixelRange
from score_lightning.generation.generator import Generator
from score_lightning.models import GaussianModel, ScoreModel
from score_lightning.samplers import DDIM, PILOT, Langevin, ProbabilityFlow, ReverseDiffusion, Sampler, sample
from score_lightning.samplers.correctors import expected_norm
from score_lightning.samplers.loop import measured
from score_lightning.schedules import VE, VP, linear_beta

VARIANCES = 1 / torch.arange(1, 3073, dtype=torch.float64)
VARIANCES *= 0.25 / VARIANCES.mean()


def images(schedule):
    return GaussianModel(torch.full((3072,), 0.25, dtype=torch.float64), VARIANCES, schedule)


def exact_draws(model, t, n):
    alpha, sigma = model.schedule(t)
    return alpha * model.draw(n) + sigma * torch.randn(n, 3072, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3])
def test_steps_follow_from_the_norm_of_the_scores(sigma):
    """Song et al. 2021a, Algorithm 4, with the expected norms; sigma^2 / D for |score|^2 would be far off."""
    model = images(VE())
    t = model.schedule.time_of(torch.tensor(sigma))
    norm = torch.sqrt((1 / (VARIANCES + sigma**2)).sum()).item()
    corrector = Langevin(snr=0.16)
    x = exact_draws(model, t, PILOT)
    norms = measured(corrector, model, x, torch.randn_like, t[None]).norms
    assert norms == {(t.item(), 0): pytest.approx(norm, rel=0.01)}
    z = torch.randn_like(x)
    moved = corrector.with_norms(norms).step(model, x, t, lambda _: z)
    delta = 2 * (0.16 * math.sqrt(3072) / norm) ** 2
    assert_close(moved, x + delta * model(x, t).score + math.sqrt(2 * delta) * z, rtol=0.02, atol=0.02)
    assert delta > 1.8 * 2 * (0.16 * sigma) ** 2


def test_steps_of_vp_are_multiplied_by_its_alpha():
    """a_t = (alpha_t / alpha_s)^2 of the next time, and of no noise after the last (Algorithm 5)."""
    schedule = linear_beta(1e-4, 0.02, 1000)
    model, t, s = images(schedule), torch.tensor(999), torch.tensor(998)
    corrector = Langevin(snr=0.16).with_norms({(999.0, 0): 50.0, (0.0, 0): 50.0})
    x, zero = torch.zeros(1, 3072, dtype=torch.float64), torch.zeros_like
    free = 2 * (0.16 * expected_norm(3072) / 50) ** 2
    moved = corrector.step(model, x, t, zero, s)
    assert_close(moved, free * (1 - 0.02) * model(x, t).score)
    moved = corrector.step(model, x, torch.tensor(0), zero)
    assert_close(moved, free * (1 - 1e-4) * model(x, torch.tensor(0)).score)


@pytest.mark.parametrize("dim", [1, 2, 3, 3072])
def test_the_norm_of_the_noise_is_its_expectation(dim):
    torch.manual_seed(0)
    assert torch.randn(4000, dim).norm(dim=1).mean().item() == pytest.approx(expected_norm(dim), rel=0.03)


def test_an_image_does_not_depend_on_those_beside_it():
    model = images(VE())
    x = model.schedule.prior((5, 3072), dtype=torch.float64)
    x[1:] *= 10
    alone, among = (
        sample(
            model, start, model.schedule.times(20), ReverseDiffusion(), Langevin(snr=0.16), randn_like=torch.zeros_like
        )
        for start in (x[:1], x)
    )
    assert torch.equal(alone[0], among[0])


class Net(nn.Module):
    classes = 2

    def __init__(self, scale=0.5):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x, c, labels=None):  # noqa: ARG002
        return self.scale * (x if labels is None else x - labels.view(-1, 1, 1, 1))


SETTINGS = Sampler(DDIM(), Langevin(snr=0.1, steps=2), steps=4)


def test_generated_images_depend_on_nothing_but_their_seeds_labels_and_the_model():
    model = ScoreModel(Net(), VP())
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    for known in (None, inpainting(torch.ones(1, 4, 4), mask)):
        generator = Generator(SETTINGS, (1, 4, 4), PixelRange(), 7, guidance=Strength(1.0), measurement=known)
        whole, parts = (
            torch.cat([b.images for b in replace(generator, batch_size=size)(model, 7, 0)]) for size in (7, 2)
        )
        assert torch.equal(whole, parts)
        assert torch.equal(generator.batch(model, [5], 0).images[0], whole[5])
    assert generator.evaluations(model) == 2 * (3 + 8 + 1)


def test_a_pilot_run_is_made_once_for_all_batches(monkeypatch):
    runs, original = [], Sampler.measured
    monkeypatch.setattr(Sampler, "measured", lambda self, *args: runs.append(1) or original(self, *args))
    model = ScoreModel(Net(), VP())
    list(Generator(SETTINGS, (1, 4, 4), PixelRange(), 2)(model, 9, 0))
    assert len(runs) == 1


@pytest.mark.parametrize("predictor", [DDIM(), ProbabilityFlow(1e-2, 1e-2)], ids=["ddim", "flow"])
def test_evaluations_of_a_pilot_run_are_counted_apart(predictor):
    model = ScoreModel(Net(), VP())
    settings = Sampler(predictor, Langevin(snr=0.1, steps=2), steps=4)
    generator = Generator(settings, (1, 4, 4), PixelRange(), 8, guidance=Strength(1.0))
    measured = generator.measured(model)
    if predictor.evaluations:
        assert measured.pilot_evaluations == PILOT * 2 * (3 + 8)  # it does not denoise
    assert measured.measured(model) is measured
    assert generator.evaluations(model) == measured.evaluations(model)


def test_a_pilot_run_takes_no_more_images_at_once_than_a_batch():
    model, sizes = ScoreModel(Net(), VP()), set()
    model.register_forward_pre_hook(lambda _, args: sizes.add(len(args[0])))
    small, large = (
        Generator(SETTINGS, (1, 4, 4), PixelRange(), size, guidance=Strength(1.0)).measured(model) for size in (5, 64)
    )
    assert sizes == {5, 2, 32}
    for key, norm in large.sampler.corrector.norms.items():
        assert small.sampler.corrector.norms[key] == pytest.approx(norm, rel=1e-5)


def test_conditions_of_a_batch_are_shared_out_in_a_pilot_run():
    model = ScoreModel(Net(), VP())
    mask = torch.eye(4, dtype=torch.bool)
    conditioned = MeasurementConditioned(
        LabelConditioned(model, torch.tensor([0, 1, -1])), inpainting(torch.ones(1, 4, 4), mask)
    )
    x = model.schedule.prior((3, 1, 4, 4))
    assert sample(conditioned, x, VP().times(3), DDIM(), Langevin(snr=0.1)).shape == x.shape
    twin = conditioned.repeated(5, 4).model
    assert twin._labels.tolist() == [0, 1, -1, 0, 1]
    assert conditioned.model._labels.tolist() == [0, 1, -1]


def test_a_network_that_gives_no_score_yet_does_not_leap():
    model = ScoreModel(Net(0.0), VE())
    x = model.schedule.prior((2, 1, 4, 4))
    drawn = sample(model, x, model.schedule.times(10), ReverseDiffusion(), Langevin(snr=0.16))
    assert drawn.isfinite().all()


def test_steps_that_were_not_measured_are_refused():
    model, x = images(VE()), torch.zeros(1, 3072)
    with pytest.raises(ValueError, match="was not measured"):
        Langevin(snr=0.1).step(model, x, torch.tensor(0.5), torch.zeros_like)
