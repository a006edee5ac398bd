"""Conditional models against exact conditional distributions."""

import math

import pytest
import torch
from torch.testing import assert_close

from score_lightning.conditional import (
    AugmentationConditioned,
    Clipped,
    LabelConditioned,
    Measurement,
    MeasurementConditioned,
    Strength,
    colorization,
    inpainting,
    upsampling,
)
from score_lightning.likelihood import continuous
from score_lightning.models import Estimate, GaussianMixtureModel, ScoreModel
from score_lightning.samplers import DDIM, Ancestral, AnnealedLangevin, sample, trajectory
from score_lightning.schedules import VP, geometric, linear_beta

DDPM = linear_beta(1e-4, 0.02, 1000)
MEANS = torch.tensor([[-0.8, -0.5], [0.7, 0.6]], dtype=torch.float64)


class LabeledMixture:
    """The exact model of a mixture whose components are its labels."""

    def __init__(self, schedule):
        self.schedule = schedule
        one = torch.ones(1, dtype=torch.float64)
        self.parts = [GaussianMixtureModel(mean[None], 0.2, one, schedule) for mean in MEANS]
        self.whole = GaussianMixtureModel(MEANS, 0.2, one.repeat(2), schedule)

    def __call__(self, x_t, t, labels):
        eps = [self.whole(x_t, t).eps, *(part(x_t, t).eps for part in self.parts)]
        chosen = torch.stack(eps)[labels + 1, torch.arange(len(x_t))]
        return Estimate(x_t, *(a.to(x_t) for a in self.schedule(t)), chosen)

    def log_label(self, x_t, t, label):
        """ln p(label | x_t) by Bayes' rule."""
        return self.parts[label].log_prob(x_t, t) + math.log(0.5) - self.whole.log_prob(x_t, t)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.5, -1.0])
def test_guidance_is_the_score_of_the_data_and_of_that_many_classifiers(guidance):
    """Ho & Salimans 2022, Eq. 5-6: grad log p(x | c) + w grad log p(c | x); w = -1 leaves grad log p(x)."""
    model, t = LabeledMixture(VP()), torch.tensor(0.3)
    x = torch.randn(6, 2, dtype=torch.float64).requires_grad_()
    (classifier,) = torch.autograd.grad(model.log_label(x, t, 1).sum(), x)
    (data,) = torch.autograd.grad(model.whole.log_prob(x, t).sum(), x)
    guided = LabelConditioned(model, torch.ones(6, dtype=torch.int64), Strength(guidance))(x, t)
    assert_close(guided.score, data + (1 + guidance) * classifier, rtol=1e-6, atol=1e-9)


def test_labels_choose_components_one_by_one():
    labels = torch.tensor([0, 1, -1, 1])
    model = LabeledMixture(VP())
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor(0.5)
    expected = torch.stack(
        [(model.whole if k < 0 else model.parts[k])(x[i : i + 1], t).score[0] for i, k in enumerate(labels.tolist())]
    )
    assert_close(LabelConditioned(model, labels)(x, t).score, expected)


def project_first(x):
    return x * torch.tensor([1.0, 0.0]).to(x)


@pytest.mark.slow
@pytest.mark.parametrize("value", [-0.8, 0.7, 0.1])
def test_annealed_langevin_given_a_coordinate_draws_from_the_conditional_distribution(value):
    """p(x_2 | x_1) of a mixture: its components with weights by Bayes' rule."""
    torch.manual_seed(0)
    schedule, n = geometric(0.01, 3, 40), 4000
    std, known = 0.3, torch.tensor([value, 0.0], dtype=torch.float64)
    model = GaussianMixtureModel(MEANS, std, torch.ones(2, dtype=torch.float64), schedule)
    observed = MeasurementConditioned(model, Measurement(project_first, known))
    x = schedule.prior((n, 2), dtype=torch.float64)
    x = sample(observed, x, corrector=AnnealedLangevin(2e-5, 100))
    assert_close(x[:, 0], torch.full((n,), value, dtype=torch.float64))
    weight = (-((value - MEANS[:, 0]) ** 2) / (2 * std**2)).softmax(0)
    mean = (weight * MEANS[:, 1]).sum()
    variance = std**2 + (weight * (MEANS[:, 1] - mean) ** 2).sum()
    assert x[:, 1].mean().item() == pytest.approx(mean.item(), abs=4 * (variance / n).sqrt().item() + 0.02)
    assert x[:, 1].std().item() == pytest.approx(variance.sqrt().item(), abs=0.03)


@pytest.mark.parametrize("predictor", [DDIM(), Ancestral("small")], ids=["ddim", "ancestral"])
def test_what_is_known_follows_its_exact_distribution_and_independent_rest_is_left_alone(predictor):
    torch.manual_seed(0)
    one, n = torch.ones(1, dtype=torch.float64), 4000
    model = GaussianMixtureModel(torch.tensor([[0.3, -0.4]]).double(), 0.3, one, DDPM)
    known = Measurement(project_first, torch.tensor([0.9, 0.0], dtype=torch.float64))
    observed, times = MeasurementConditioned(model, known), DDPM.times(200)
    alpha, sigma = DDPM(times[0])
    x = known.perturb(DDPM.prior((n, 2), dtype=torch.float64), alpha, sigma, torch.randn(n, 2, dtype=torch.float64))
    *states, result = trajectory(observed, x, times, predictor)
    (alpha, sigma), middle = DDPM(times[100]), states[100][:, 0]
    assert middle.mean().item() == pytest.approx(0.9 * alpha.item(), abs=4 * sigma.item() / n**0.5)
    assert middle.std().item() == pytest.approx(sigma.item(), rel=0.05)
    assert_close(result[:, 0], torch.full((n,), 0.9, dtype=torch.float64), rtol=0, atol=1e-9)
    assert result[:, 1].mean().item() == pytest.approx(-0.4, abs=0.03)
    assert result[:, 1].std().item() == pytest.approx(0.3, abs=0.03)


def measurements(image):
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :5] = True
    small = torch.nn.functional.avg_pool2d(image, 4)
    return [inpainting(image, mask), colorization(image), upsampling(small, 4)]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["inpaint", "colorize", "upsample"])
def test_measurements_are_orthogonal_projections_of_the_image(kind):
    image, x, y = torch.rand(3, 8, 8).double(), torch.randn(2, 3, 8, 8).double(), torch.randn(2, 3, 8, 8).double()
    measurement = measurements(image)[kind]
    p = measurement.project
    assert_close(p(p(x)), p(x))
    assert_close((p(x) * y).sum(), (x * p(y)).sum())
    assert_close(measurement.y.expand_as(image), p(image[None])[0])
    assert_close(p(measurement.impose(x)), p(image[None]).expand_as(x))
    assert_close(measurement.impose(image[None])[0], image)


def test_a_mask_of_another_size_or_without_a_part_is_refused():
    image = torch.rand(3, 8, 8)
    with pytest.raises(ValueError, match=r"mask has \(8, 7\) pixels, the image \(8, 8\)"):
        inpainting(image, torch.ones(8, 7, dtype=torch.bool))
    for known in (torch.ones(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)):
        with pytest.raises(ValueError, match="some pixels, and not all"):
            inpainting(image, known)
    with pytest.raises(ValueError, match="factor of 2 or more"):
        upsampling(image, 1)


def test_every_wrapper_follows_its_model_into_the_limit_and_leaves_the_original_alone():
    net = lambda x, c, labels=None, augmentation=None: x * c.view(-1, 1)  # noqa: E731
    model = ScoreModel(net, geometric(0.01, 1, 10))
    augmented = AugmentationConditioned(model, torch.zeros(2, 3))
    labeled = LabelConditioned(augmented, torch.zeros(2, dtype=torch.int64), guidance=Strength(0.5))
    known = Measurement(project_first, torch.zeros(2))
    outer = Clipped(MeasurementConditioned(labeled, known), -1, 1)
    limit, x = continuous(outer), torch.randn(2, 2)
    assert limit.schedule.limit_of == 10
    assert outer.schedule is model.schedule
    assert model.schedule.levels == 10
    place = torch.tensor(4 / 9, dtype=torch.float64)
    assert_close(limit(x, place).x_0, outer(x, torch.tensor(4)).x_0)


def test_a_measured_part_is_put_into_x_0_to_the_bit():
    model, known = ScoreModel(lambda x, c: x, DDPM), Measurement(project_first, torch.tensor([0.3, 0.0]))
    x_0 = MeasurementConditioned(model, known)(torch.randn(4, 2), torch.tensor(990)).x_0
    assert torch.equal(x_0[:, 0], torch.full((4,), 0.3))
