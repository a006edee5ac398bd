"""NCSNv2's techniques against its published ladders and steps."""

import math

import pytest
import torch

from score_lightning.models import GaussianMixtureModel
from score_lightning.samplers import AnnealedLangevin
from score_lightning.schedules import geometric
from score_lightning.schedules.tuning import choose_step, count_levels, largest_distance, overlap, variance_ratio

PUBLISHED = {  # sigma_max, levels, steps, published step size, dimensions
    "cifar10": (50, 232, 5, 6.2e-6, 3 * 32**2),
    "celeba": (90, 500, 5, 3.3e-6, 3 * 64**2),
    "bedroom": (190, 1086, 3, 1.8e-6, 3 * 128**2),
    "ffhq": (348, 2311, 3, 9e-7, 3 * 256**2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_technique_4_returns_the_published_steps(name):
    sigma_max, levels, steps, published, _ = PUBLISHED[name]
    assert round(choose_step(0.01, sigma_max, levels, steps), 7) == pytest.approx(published, abs=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_ladders_overlap_by_0_566(name):
    sigma_max, levels, _, _, dim = PUBLISHED[name]
    ratio = (sigma_max / 0.01) ** (1 / (levels - 1))
    assert overlap(ratio, dim) == pytest.approx(0.566, abs=0.005)
    found = count_levels(0.01, sigma_max, dim)
    assert found < levels
    wider, narrower = ((sigma_max / 0.01) ** (1 / (found - 1 + k)) for k in (-1, 0))
    assert overlap(narrower, dim) >= 0.5 > overlap(wider, dim)


def test_variance_ratio_is_what_langevin_does_to_a_point_mass():
    schedule, steps, step_size = geometric(0.01, 1, 10), 5, 2e-5
    model, t = GaussianMixtureModel(torch.zeros(1, 1).double(), 0.0, torch.ones(1), schedule), torch.tensor(4)
    sigma, above = (schedule(time)[1].item() for time in (t, t + 1))
    variance = above**2
    corrector = AnnealedLangevin(step_size, 1)
    for _ in range(steps):
        a = corrector.step(model, torch.ones(1, 1).double(), t, torch.zeros_like).item()
        b = corrector.step(model, torch.zeros(1, 1).double(), t, torch.ones_like).item()
        variance = a**2 * variance + b**2
    ratio = 100 ** (1 / 9)
    assert variance_ratio(step_size, 0.01, ratio, steps) == pytest.approx(variance / sigma**2, rel=1e-9)


def test_largest_distance_is_that_of_all_pairs():
    x = torch.randn(300, 3, 2)
    exact = torch.pdist(x.flatten(1).double()).max().item()
    assert largest_distance(x, block=64) == pytest.approx(exact, rel=1e-4)
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert largest_distance(corners) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: largest_distance(torch.zeros(1, 2)), "at least 2 points"),
        (lambda: count_levels(1, 0.5, 3), "sigma_min < sigma_max"),
        (lambda: choose_step(0.01, 1, 1, 5), "levels >= 2"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
