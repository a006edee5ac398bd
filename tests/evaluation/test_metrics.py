"""Metrics against closed forms, brute force and torch-fidelity."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from score_lightning.evaluation import frechet_distance
from score_lightning.evaluation.intervals import Subsamples
from score_lightning.evaluation.metrics import METRICS, Comparison, MetricSettings, Moments, OrderedRows, Statistics
from score_lightning.evaluation.neighbors import density_and_coverage, memorization, nearest


def test_frechet_distance_of_known_gaussians():
    zero, eye = torch.zeros(768), torch.eye(768)
    assert frechet_distance(zero, eye, zero, 4 * eye) == pytest.approx(768, rel=1e-12)
    mean = torch.randn(768)
    assert frechet_distance(mean, eye, zero, eye) == pytest.approx(mean.double().square().sum().item(), rel=1e-9)


@pytest.mark.parametrize("zeros", [0, 5])
def test_frechet_distance_of_commuting_covariances_is_that_of_their_roots(zeros):
    q, _ = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))
    a, b = torch.rand(20, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
    a[:zeros] = 0  # singular
    exact = (a.sqrt() - b.sqrt()).square().sum().item()
    zero = torch.zeros(20)
    assert frechet_distance(zero, q @ a.diag() @ q.T, zero, q @ b.diag() @ q.T) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(300, 300), (40, 300), (300, 40), (40, 30), (100, 101)])
def test_frechet_distance_of_samples_is_the_nuclear_norm_of_their_products(n, m):
    """Whatever the ranks: tr(C_x C_y)^(1/2) = |X Y^T|_* for centered samples X, Y with C = X^T X."""
    scale = torch.logspace(-3, 0, 100, dtype=torch.float64)
    x, y = ((z - z.mean(0)) * scale / len(z) ** 0.5 for z in (torch.randn(k, 100).double() for k in (n, m)))
    exact = x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    zero = torch.zeros(100)
    assert frechet_distance(zero, x.T @ x, zero, y.T @ y) == pytest.approx(exact.item(), rel=1e-12)


def test_frechet_distance_of_nothing_is_zero_and_of_one_point_the_other_variance():
    zero, eye = torch.zeros(4), torch.eye(4)
    assert frechet_distance(zero, 0 * eye, zero, 0 * eye) == 0
    assert frechet_distance(zero, 0 * eye, zero, eye) == 4
    zero, eye = torch.zeros(600), torch.eye(600)  # more than those that are decomposed exactly
    assert frechet_distance(zero, 0 * eye, zero, eye) == 600


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_frechet_distance_of_a_set_to_itself_is_never_below_zero(dim):
    for _ in range(20):
        x = torch.randn(2 * dim + 2, dim, dtype=torch.float64)
        mean, cov = x.mean(0), x.T.cov().reshape(dim, dim)
        distance = frechet_distance(mean, cov, mean, cov)
        assert 0 <= distance < 1e-9
        assert f"{distance:.4f}" == "0.0000"


def test_frechet_distance_equals_torch_fidelity():
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = np.random.default_rng(0).standard_normal((2, 500, 30)) @ np.diag(np.linspace(0.1, 2, 30))
    moments = [(z.mean(0), np.cov(z, rowvar=False)) for z in (x, y + 0.3)]
    theirs = fid_statistics_to_metric(*({"mu": m, "sigma": c} for m, c in moments), False)
    ours = frechet_distance(*moments[0], *moments[1])
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


def test_frechet_distance_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"means must be \(D,\)"):
        frechet_distance(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(torch.zeros(2), torch.eye(2) * torch.nan, torch.zeros(2), torch.eye(2))
    indefinite = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="positive semi-definite"):
        frechet_distance(torch.zeros(2), indefinite, torch.zeros(2), indefinite)


def test_moments_equal_numpys_in_any_batches_and_far_from_zero():
    features = np.random.default_rng(0).standard_normal((101, 7)) * 1e-3 + 1000
    for sizes in (13, 50):
        moments = Moments(torch.from_numpy(features[3]))
        for part in torch.from_numpy(features).split(sizes):
            moments.update(part)
        mean, cov = moments.compute()
        assert_close(mean, torch.from_numpy(features.mean(0)), rtol=1e-12, atol=0)
        centered = features - features.mean(0)
        assert_close(cov, torch.from_numpy(np.cov(centered, rowvar=False)), rtol=1e-9, atol=1e-15)


def test_moments_of_one_image_are_refused():
    moments = Moments(torch.zeros(3))
    moments.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        moments.compute()


def test_rows_come_in_the_order_of_their_images():
    rows, order = torch.randn(10, 3), torch.randperm(10)
    metric = OrderedRows(torch.empty(3))
    for part in order.split(4):
        metric.update(rows[part], part)
    assert torch.equal(metric.compute(), rows)


def statistics(features, logits=None):
    mean, cov = features.double().mean(0), features.double().T.cov()
    return Statistics(mean, cov, features, logits)


def sides(fake, real, held_out=None, logits=None, **settings):
    subsamples = Subsamples.of(len(fake))
    return Comparison(statistics(fake, logits), statistics(real), held_out, MetricSettings(**settings), subsamples)


def computed(name, comparison):
    return {key: values[0].item() for key, values in METRICS[name].formula(comparison).items()}


def alone(metric, fake, *others):
    """A metric of features, of all images."""
    values = metric(fake, *others, Subsamples.of(len(fake)))
    return tuple(value[0].item() for value in values) if isinstance(values, tuple) else values[0].item()


def test_inception_score_of_balanced_certain_classes_is_their_number():
    logits = 100 * torch.eye(7).repeat(20, 1)
    score = computed("is", sides(torch.randn(140, 2), torch.randn(9, 2), logits=logits, splits=1))
    assert score == {"is": pytest.approx(7, abs=1e-12), "is_std": 0}


def test_scores_are_torch_fidelitys():
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    fake, real, logits = torch.randn(200, 16), torch.randn(150, 16) + 0.3, torch.randn(200, 5)
    given = sides(fake, real, logits=logits)
    expected = [
        ("is", isc_features_to_metric(logits)),
        ("precision_recall", prc_features_to_metric(fake, real, verbose=False)),
    ]
    for name, theirs in expected:
        assert list(computed(name, given).values()) == pytest.approx(list(theirs.values()), rel=1e-7)


@pytest.mark.parametrize("size", [100, 20])  # subsets that overlap much, and little
def test_kernel_distances_are_torch_fidelitys_in_float64(size):
    from torch_fidelity.metric_kid import kid_features_to_metric

    fake, real = torch.randn(200, 16), torch.randn(150, 16) + 0.3
    values = computed("kid", sides(fake, real, kid_subsets=7, kid_subset_size=size))
    sizes = {"kid_subsets": 7, "kid_subset_size": size, "verbose": False}
    theirs = kid_features_to_metric(fake.double(), real.double(), **sizes)
    assert list(values.values()) == pytest.approx(list(theirs.values()), rel=1e-12)


def test_precision_and_recall_of_one_mode_of_two():
    modes = torch.randn(400, 2) + torch.tensor([[50.0, 0.0]])
    real = torch.cat([modes[:100], torch.randn(100, 2)])
    values = computed("precision_recall", sides(modes[200:], real))
    assert values["precision"] > 0.9
    assert values["recall"] == pytest.approx(0.5, abs=0.05)


def test_kid_subsets_are_at_most_all_images():
    values = computed("kid", sides(torch.randn(30, 4), torch.randn(20, 4), kid_subsets=3))
    assert abs(values["kid"]) < 1


def test_density_and_coverage_equal_brute_force():
    fake, real, k = torch.randn(60, 3) * 1.3, torch.randn(70, 3), 5
    balls, covered = 0, 0
    for x in real:
        radius = sorted((x - other).norm().item() for other in real)[k]
        inside = sum((x - y).norm().item() < radius for y in fake)
        balls, covered = balls + inside, covered + (inside > 0)
    density, coverage = alone(density_and_coverage, fake, real)
    assert (density, coverage) == (pytest.approx(balls / (k * 60)), pytest.approx(covered / 70))


def test_density_and_coverage_of_the_same_distribution_are_as_naeem_et_al_expect():
    """E[density] = 1, and E[coverage] = 1 - (M - 1)...(M - k) / ((2M - 1)...(2M - k)) for M = N (their Lemma 1-2)."""
    means = torch.tensor(
        [alone(density_and_coverage, torch.randn(500, 8), torch.randn(500, 8)) for _ in range(10)]
    ).mean(0)
    expected = 1 - torch.tensor([(500 - i) / (1000 - i) for i in range(1, 6)]).prod().item()
    assert means[0] == pytest.approx(1, abs=0.05)
    assert means[1] == pytest.approx(expected, abs=0.02)


def test_nearest_finds_what_sorting_finds(monkeypatch):
    monkeypatch.setattr("score_lightning.evaluation.neighbors.BLOCK", 50)  # several blocks
    queries, points = torch.randn(30, 4), torch.randn(20, 4)
    exact = (queries[:, None] - points).norm(dim=2).sort(1)
    distances, indices = nearest(queries, points, 3)
    assert_close(distances, exact.values[:, :3], rtol=1e-4, atol=1e-4)
    assert torch.equal(indices, exact.indices[:, :3])


def test_memorization_is_one_for_copies_and_a_half_for_unseen_images():
    train, test = torch.randn(300, 4), torch.randn(200, 4)
    assert alone(memorization, train[:50], train, test) == pytest.approx(1)
    assert alone(memorization, torch.randn(2000, 4), train, test) == pytest.approx(0.5, abs=0.07)
    assert alone(memorization, test, train, test) == pytest.approx(0.5, abs=1e-12)  # ties count half
    assert alone(memorization, test + 100, train, test) == 0


def test_memorization_equals_counting_pairs():
    fake, train, test = torch.randn(20, 2), torch.randn(15, 2), torch.randn(10, 2)
    d, e = (torch.cdist(x, train).min(1).values for x in (fake, test))
    assert alone(memorization, fake, train, test) == pytest.approx((d[:, None] < e).double().mean().item())
