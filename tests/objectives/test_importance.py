"""Importance-sampled times: the paper's probabilities, and an expectation that they do not change."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import ScoreModel
from score_lightning.objectives import ImportanceSampled, VariationalBound
from score_lightning.schedules import VP, linear_beta

DDPM = linear_beta(1e-3, 0.2, 4)
MODEL = ScoreModel(lambda x, c: x.sin(), DDPM)


def filled():
    """Losses 1, 2, 3, 4 at the levels 0, 1, 2, 3, twice each; the last overwrites a wrong one."""
    sampled = ImportanceSampled(VariationalBound(), 4, kept=2, uniform=0.1)
    times = torch.tensor([0, 1, 2, 3, 3, 0, 1, 2, 3])
    sampled.observe(times, torch.tensor([1.0, 2, 3, 9, 4, 1, 2, 3, 4]))
    return sampled


def test_times_are_uniform_until_every_level_was_seen_often_enough():
    sampled = ImportanceSampled(VariationalBound(), 4, kept=2)
    sampled.observe(torch.tensor([0, 0, 1, 1, 2, 2, 3]), torch.tensor([9.0, 9, 1, 1, 1, 1, 1]))
    assert_close(sampled.probabilities, torch.full((4,), 0.25, dtype=torch.float64))
    sampled.observe(torch.tensor([3]), torch.tensor([1.0]))
    assert sampled.probabilities[0] > 0.7


def test_probabilities_follow_the_root_of_the_mean_square_of_the_last_losses():
    losses = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    assert_close(filled().probabilities, 0.9 * losses / 10 + 0.1 / 4)
    u = (torch.arange(20_000) + 0.5) / 20_000
    drawn = filled().draw_t(DDPM, u)
    assert_close(drawn.bincount().double() / 20_000, filled().probabilities, rtol=0, atol=1e-4)


def test_the_expected_loss_is_that_of_uniform_times():
    """sum_t p_t L_t / (T p_t) is the mean over t: exact, with one noise at each level."""
    x_0, z, t = torch.rand(4, 3).double(), torch.randn(4, 3).double(), torch.arange(4)
    plain, sampled = VariationalBound()(MODEL, x_0, t, lambda _: z), filled()
    weighted = sampled(MODEL, x_0, t, lambda _: z)
    assert_close((sampled.probabilities * weighted).sum(), plain.mean())
    assert not torch.allclose(weighted, plain)
    assert_close(sampled.eval()(MODEL, x_0, t, lambda _: z), plain)


def test_what_is_remembered_are_losses_without_the_weight():
    sampled = filled()
    before = sampled.probabilities
    t = torch.arange(4).repeat(2)
    losses = torch.tensor([5.0, 1, 1, 1]).double().repeat(2)
    sampled.observe(t, losses / (4 * before[t]))
    assert_close(sampled.probabilities, 0.9 * losses[:4] / 8 + 0.1 / 4)


def test_a_batch_is_remembered_as_if_losses_came_one_by_one():
    torch.manual_seed(0)
    sampled, kept = ImportanceSampled(VariationalBound(), 5, kept=3), [[] for _ in range(5)]
    for _ in range(6):
        before, t = sampled.probabilities, torch.randint(5, (17,))
        losses = torch.rand(17).double()
        losses[torch.rand(17) < 0.2] = torch.nan
        sampled.observe(t, losses / (5 * before[t]))
        for level, loss in zip(t.tolist(), losses.tolist(), strict=True):
            kept[level] += [loss] if loss == loss else []
    for level in range(5):
        assert sampled.counts[level] == len(kept[level])
        assert sorted(sampled.losses[level].tolist()) == pytest.approx(sorted(kept[level][-3:]), rel=1e-6)


def test_the_losses_seen_are_part_of_the_state():
    fresh = ImportanceSampled(VariationalBound(), 4, kept=2, uniform=0.1)
    fresh.load_state_dict(filled().state_dict())
    assert_close(fresh.probabilities, filled().probabilities)


def test_continuous_schedules_are_refused():
    with pytest.raises(ValueError, match="need discrete levels"):
        ImportanceSampled(VariationalBound(), VP().levels)
