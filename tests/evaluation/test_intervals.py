"""Intervals against the metrics of subsamples themselves, closed forms, and their coverage of Gaussians."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.evaluation import frechet_distance
from score_lightning.evaluation.frechet import subsampled_distances
from score_lightning.evaluation.intervals import DIVISIONS, LEAST, PARTS, Jackknife, Subsamples, Values, method
from score_lightning.evaluation.metrics import METRICS, Comparison, MetricSettings, Statistics


def statistics(features, logits=None):
    mean, cov = features.double().mean(0), features.double().T.cov()
    return Statistics(mean, cov, features, logits)


def values(fake, real, held_out, logits, subsamples, **settings):
    given = Comparison(statistics(fake, logits), statistics(real), held_out, MetricSettings(**settings), subsamples)
    return {key: value for name in METRICS for key, value in METRICS[name].formula(given).items()}


def test_every_image_is_left_out_once_in_each_division():
    subsamples = Subsamples.of(100)
    assert subsamples.weights[0].tolist() == [1] * 100
    left_out = subsamples.left_out.unflatten(0, (DIVISIONS, PARTS))
    assert (left_out.sum(1) == 1).all()
    assert left_out.sum(2).tolist() == [[34, 33, 33]] * DIVISIONS
    assert len({tuple(row.tolist()) for row in subsamples.weights}) == 1 + DIVISIONS * PARTS
    assert torch.equal(subsamples.weights, Subsamples.of(100).weights)


def test_below_the_least_number_of_images_there_are_no_intervals():
    subsamples = Subsamples.of(LEAST - 1)
    assert subsamples.weights.tolist() == [[1] * (LEAST - 1)]
    assert Values.of({"mean": subsamples.means(torch.rand(LEAST - 1))}, subsamples.sizes).intervals == {}
    assert method(LEAST - 1) == "none: they need 40 images"
    assert method(LEAST).startswith("95%, of the draw of the images")


def test_images_of_one_condition_are_left_out_together():
    subsamples, alone = Subsamples.of(300, conditions=60), Subsamples.of(60)
    assert torch.equal(subsamples.weights, alone.weights.repeat(1, 5))
    effects = torch.randn(60)
    whole, once = (
        Values.of({"mean": s.means(x)}, s.sizes) for s, x in ((subsamples, effects.repeat(5)), (alone, effects))
    )
    assert whole.intervals["mean"] == pytest.approx(once.intervals["mean"])
    assert Subsamples.of(300, conditions=LEAST - 1).count == 0
    assert torch.equal(Subsamples.of(50, conditions=60).weights, Subsamples.of(50).weights)
    uneven = Subsamples.of(100, conditions=60)
    both = Values.of({"a": alone.means(effects)}, alone.sizes) | Values.of(
        {"b": uneven.means(torch.rand(100))}, uneven.sizes
    )
    assert not torch.equal(alone.sizes / 60, uneven.sizes / 100)
    assert both.intervals["a"] == once.intervals["mean"]


@pytest.mark.parametrize(("n", "m", "d"), [(90, 70, 5), (60, 70, 30)])
def test_metrics_of_subsamples_are_those_of_their_images(n, m, d):
    fake, real, held_out = torch.randn(n, d) * 1.2 + 0.1, torch.randn(m, d), torch.randn(50, d)
    logits, subsamples = torch.randn(n, 6), Subsamples.of(n)
    settings = {"splits": 1, "kid_subsets": 2}
    ours = values(fake, real, held_out, logits, subsamples, **settings)
    alone = Subsamples(torch.ones(1, n, dtype=torch.float64))
    for row, kept in enumerate(subsamples.weights.bool()):
        part = Subsamples(alone.weights[:, kept])
        theirs = values(fake[kept], real, held_out, logits[kept], part, **settings)
        for name in theirs.keys() - {"is_std", "kid", "kid_std"}:
            assert ours[name][row].item() == pytest.approx(theirs[name][0].item(), rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("size", [50, 20])  # subsets that overlap much, and little
def test_kernel_distances_of_subsamples_are_those_of_the_rest_of_each_subset(size):
    import numpy as np

    fake, real, subsamples = torch.randn(60, 4).double(), torch.randn(50, 4).double(), Subsamples.of(60)
    given = Comparison(
        statistics(fake), statistics(real), None, MetricSettings(kid_subsets=3, kid_subset_size=size), subsamples
    )
    ours = METRICS["kid"].formula(given)["kid"]
    order = np.random.RandomState(2020)
    chosen = [[torch.from_numpy(order.choice(len(x), size, replace=False)) for x in (fake, real)] for _ in range(3)]
    for row, kept in enumerate(subsamples.weights.bool()):
        expected = [unbiased_kernel_distance(fake[i[kept[i]]], real[j]) for i, j in chosen]
        assert ours[row].item() == pytest.approx(sum(expected) / 3, rel=1e-9)


def unbiased_kernel_distance(x, y):
    total = 0.0
    for a, b, sign in ((x, x, 1), (y, y, 1), (x, y, -2)):
        kernel = (a @ b.T / x.shape[1] + 1) ** 3
        kernel = kernel[~torch.eye(len(a), dtype=torch.bool)] if a is b else kernel
        total += sign * kernel.mean().item()
    return total


@pytest.mark.parametrize(("n", "d", "rank"), [(100, 30, 30), (50, 60, 60), (100, 30, 10)])
def test_frechet_distances_of_subsamples_are_exact_whatever_the_ranks(n, d, rank):
    basis = torch.randn(rank, d, dtype=torch.float64)
    fake, real = torch.randn(n, d) + 0.2, torch.randn(200, rank).double() @ basis
    subsamples = Subsamples.of(n)
    ours = subsampled_distances(fake, subsamples, real.mean(0), real.T.cov())
    for value, left_out in zip(ours, subsamples.left_out, strict=True):
        rest = fake[~left_out].double()
        assert value.item() == pytest.approx(
            frechet_distance(rest.mean(0), rest.T.cov(), real.mean(0), real.T.cov()), rel=1e-7
        )


def test_the_jackknife_of_a_mean_is_its_standard_error():
    n, trials = 60, 400
    subsamples, draws = Subsamples.of(n), torch.randn(trials, n).double() * 3
    found = [Jackknife.of(subsamples.means(x), subsamples.sizes) for x in draws]
    assert_close(torch.tensor([j.unbiased for j in found], dtype=torch.float64), draws.mean(1), rtol=1e-9, atol=1e-12)
    variances = torch.tensor([j.error**2 for j in found])
    assert variances.mean().item() == pytest.approx(9 / n, abs=4 * variances.std().item() / trials**0.5)


def test_the_jackknife_takes_off_a_bias_of_order_one_over_n():
    """The square of a mean has the bias variance / n; without it, it is the mean product of two different numbers."""
    x = torch.randn(63).double() + 0.3
    subsamples = Subsamples(Subsamples.of(63).weights[: 1 + PARTS])
    parts = torch.stack([x[left_out].mean() for left_out in subsamples.left_out])  # of equal size
    products = (parts.sum() ** 2 - parts.square().sum()) / (PARTS * (PARTS - 1))
    unbiased = Jackknife.of(subsamples.means(x).square(), subsamples.sizes).unbiased
    assert unbiased == pytest.approx(products.item(), rel=1e-9)


def test_intervals_of_several_seeds_are_those_of_their_mean():
    subsamples = Subsamples.of(900)
    seeds = [
        Values.of({"m": subsamples.means(torch.randn(900)), "std": torch.ones(1)}, subsamples.sizes) for _ in range(4)
    ]
    (low, high), (one, other) = Values.mean(seeds).intervals["m"], seeds[0].intervals["m"]
    assert (low + high) / 2 == pytest.approx(sum(seed.metrics["m"] for seed in seeds) / 4)
    assert (high - low) / (other - one) == pytest.approx(0.5, rel=0.6)  # four times the images
    assert "std" not in seeds[0].intervals


def kernel_distance_to(mean, cov, real):
    """E of KID's kernel over N(mean, cov) against real features, by moments of the products up to the third order."""
    m, d = mean, len(mean)
    second = cov + m.outer(m)
    third = torch.einsum("i,jk->ijk", m, second) + torch.einsum("j,ik->ijk", m, cov) + torch.einsum("k,ij->ijk", m, cov)
    reals = [real.mean(0), real.T @ real / len(real), torch.einsum("ni,nj,nk->ijk", real, real, real) / len(real)]
    cube = lambda a, b: 1 + sum(c * (x * y).sum() / d**k for k, c, x, y in zip((1, 2, 3), (3, 3, 1), a, b, strict=True))  # noqa: E731
    kernel = (real @ real.T / d + 1) ** 3
    within = (kernel.sum() - kernel.diagonal().sum()) / (len(real) * (len(real) - 1))
    fakes = [m, second, third]
    return (cube(fakes, fakes) + within - 2 * cube(fakes, reals)).item()


@pytest.mark.slow
def test_intervals_cover_the_value_of_the_population_in_95_percent_of_500_trials():
    """Of Gaussians; the population's value where the metric is unbiased or extrapolated, else its mean at this n."""
    n, m, d, trials = 600, 600, 6, 500
    torch.manual_seed(0)
    root = torch.randn(d, d).double() / d**0.5 + torch.eye(d).double()
    mean, readout = torch.full((d,), 0.3).double(), torch.randn(d, 5).double()
    real, held_out, subsamples = torch.randn(m, d).double() @ root, torch.randn(m, d).double() @ root, Subsamples.of(n)
    found = []
    for _ in range(trials):
        fake = 1.3 * torch.randn(n, d).double() @ root + mean
        found.append(
            Values.of(
                values(fake, real, held_out, fake @ readout, subsamples, splits=2, kid_subsets=1), subsamples.sizes
            )
        )
    cov = 1.3**2 * root.T @ root
    expected = Values.mean(found).metrics
    expected["fid_infinity"] = frechet_distance(mean, cov, real.mean(0), real.T.cov())
    expected["kid"] = kernel_distance_to(mean, cov, real)
    hits = dict.fromkeys(found[0].intervals, 0)
    for trial in found:
        for name, (low, high) in trial.intervals.items():
            hits[name] += low <= expected[name] <= high
    shares = {name: count / trials for name, count in hits.items()}
    assert set(shares) == set(expected) - {"is_std", "kid_std"}
    assert all(0.92 <= share <= 0.98 for share in shares.values()), shares
