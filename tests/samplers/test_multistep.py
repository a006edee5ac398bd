"""Multistep sampling of consistency models draws the data anew at each time."""

import math

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import Estimate, GaussianModel
from score_lightning.models.estimate import X_0
from score_lightning.samplers import PRESETS, Multistep, Sampler, sample
from score_lightning.schedules import EDM, VP, linear_beta

MEAN, STD = 0.7, 0.5


class FlowMap:
    """The exact consistency function of N(MEAN, STD^2)."""

    schedule = EDM(0.002, 80)

    def __call__(self, x_t, t):
        alpha, sigma = self.schedule(t)
        return Estimate(x_t, alpha, sigma, MEAN + (x_t - MEAN) * STD / (STD**2 + sigma**2).sqrt(), X_0)


@pytest.mark.parametrize("schedule", [EDM(), VP(), linear_beta(1e-4, 0.02, 1000)], ids=["edm", "vp", "ddpm"])
def test_a_step_perturbs_the_estimate_anew(schedule):
    """Song et al. 2023a, Algorithm 1."""
    model = GaussianModel(torch.full((3,), MEAN).double(), torch.full((3,), STD**2).double(), schedule)
    (t, s), x, z = schedule.times(2), *torch.randn(2, 4, 3, dtype=torch.float64)
    alpha, sigma = schedule(s)
    assert_close(Multistep()(model, x, t, s, lambda x: z), alpha * model(x, t).x_0 + sigma * z, rtol=1e-12, atol=0)


def test_with_the_exact_flow_map_it_draws_the_exact_gaussian():
    """Affine in x and z; what of the prior's error, its mean of 0 and its variance without s^2, is left, shrinks."""
    n, prior = 1.3, FlowMap.schedule(FlowMap.schedule.t_max)[1].item()
    times = torch.tensor([prior, n], dtype=torch.float64)

    def run(x, z):
        start = torch.full((1, 1), x, dtype=torch.float64)
        return sample(FlowMap(), start, times, Multistep(), randn_like=lambda x: torch.full_like(x, z)).item()

    shift = run(0.0, 0.0)
    variance = (prior * (run(1.0, 0.0) - shift)) ** 2 + (run(0.0, 1.0) - shift) ** 2
    first, last = (STD / math.hypot(STD, m) for m in (prior, n))
    assert shift == pytest.approx(MEAN * (1 - first * last), rel=1e-9)
    assert variance == pytest.approx(STD**2 - (last * first * STD) ** 2, rel=1e-9)
    assert variance == pytest.approx(STD**2, rel=1e-5)


def test_the_preset_has_two_evaluations_and_ends_where_it_is_told():
    sampler = PRESETS["multistep"]((-1.0, 1.0), end=0.8)
    assert sampler.evaluations(EDM()) == 2
    assert sampler.times(EDM()).tolist() == pytest.approx([80.0, 0.8])
    assert Sampler(Multistep(), steps=1).evaluations(EDM()) == 1
