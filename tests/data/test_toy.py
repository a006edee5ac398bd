"""Data sets in the plane: where their points lie."""

import math

import pytest
import torch
from torch.testing import assert_close

from score_lightning import config
from score_lightning.data.pixels import Coordinates
from score_lightning.data.toy import MIXTURES, SETS, draw
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment


def points(name, n=20_000):
    return draw(name, n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["tree", "trees"])
def test_trees_have_the_moments_of_their_mixture(name):
    means, std, weights = (part.double() if isinstance(part, torch.Tensor) else part for part in MIXTURES[name])
    x, mean = points(name).double(), weights @ means
    covariance = (means - mean).T @ (weights[:, None] * (means - mean)) + std**2 * torch.eye(2)
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert_close(x.mean(0), mean, rtol=0, atol=4 * covariance.diag().max().sqrt().item() / len(x) ** 0.5)
    assert_close(x.T.cov(), covariance, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", [name for name in MIXTURES if not name.startswith("tree")])
def test_mixtures_have_their_means_deviations_and_weights(name):
    means, std, weights = MIXTURES[name]
    x = points(name)
    nearest = torch.cdist(x, means).argmin(1)
    for k in range(len(means)):
        mine = x[nearest == k]
        assert len(mine) / len(x) == pytest.approx(weights[k].item(), abs=0.015)
        assert_close(mine.mean(0), means[k], rtol=0, atol=0.05 * std)
        assert_close(mine.std(0), torch.full_like(means[k], std), rtol=0.05, atol=0)


def test_the_line_has_no_width():
    x = points("line")
    across = x @ torch.tensor([-math.sin(math.pi / 6), math.cos(math.pi / 6)])
    assert across.abs().max() < 1e-6
    along = x @ torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)])
    assert along.std().item() == pytest.approx(2 / math.sqrt(12), rel=0.02)


def test_the_checkerboard_has_eight_equal_squares():
    squares = ((points("checkerboard") + 1) * 2).floor().int()
    assert ((squares.sum(1) % 2) == 0).all()
    counts = (squares[:, 0] * 4 + squares[:, 1]).bincount(minlength=16)
    assert (counts > 0).sum() == 8
    assert counts[counts > 0].min() > 2200


def test_rings_are_circles_of_two_radii():
    radius = points("rings").norm(dim=1)
    share = [((radius - r).abs() < 0.15).float().mean().item() for r in (0.4, 1.0)]
    assert share == pytest.approx([0.5, 0.5], abs=0.015)


def test_moons_are_two_half_circles_and_the_roll_a_spiral():
    moons = points("two_moons") / 0.7
    upper = (moons - torch.tensor([-0.5, -0.25])).norm(dim=1)
    lower = (moons - torch.tensor([0.5, 0.25])).norm(dim=1)
    assert torch.minimum((upper - 1).abs(), (lower - 1).abs()).max() < 0.3
    roll = points("swiss_roll")
    angle = torch.atan2(roll[:, 1], roll[:, 0])
    turns = (roll.norm(dim=1) * 4.5 * math.pi - angle) / (2 * math.pi)
    assert (turns - turns.round()).abs().max() < 0.35  # on the spiral r = angle / 4.5 pi


@pytest.mark.parametrize("name", SETS)
def test_points_are_a_function_of_the_generator(name):
    assert torch.equal(points(name, 50), points(name, 50))
    assert points(name, 50).dtype == torch.float32
    assert points(name).abs().max() < 12


def test_unknown_sets_and_dimensions_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="got 'spiral'"):
        _ = Experiment(config.load(["data.set=spiral"], "toy_rings")).split
    with pytest.raises(UserError, match=r"data of shape \(2,\), the model takes \(1,\): set points"):
        _ = Experiment(config.load(["points=1"], "toy_rings")).split
    with pytest.raises(UserError, match=r"images\.size must be N or \[H,W\] pixels"):
        _ = Experiment(config.load(["points=0"], "toy_rings")).model


def test_coordinates_are_left_as_they_are():
    x = torch.randn(5, 2)
    assert torch.equal(Coordinates().decode(Coordinates().encode(x)), x)
