"""Random numbers are functions of seed and place."""

import pytest
import torch

from score_lightning.runtime.randomness import BatchNoise, ImageNoise, derive_seed


def test_every_key_has_its_own_seed():
    keys = [(0,), (1,), (0, 0), (0, "train", 1), (0, "train", 2), (0, "validation", 1), (10, 1), (1, 1), ("0",)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert derive_seed(0, "train", 1) == derive_seed(0, "train", 1)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_numbers_that_one_process_draws(ranks):
    x = torch.empty(6, 3, 5)
    whole = BatchNoise(7, "train", 4)
    shares = [BatchNoise(7, "train", 4, rank=r, ranks=ranks) for r in range(ranks)]
    per_rank = x[: 6 // ranks]
    assert torch.equal(whole.rand(6), torch.cat([s.rand(6 // ranks) for s in shares]))
    assert torch.equal(whole.randn_like(x), torch.cat([s.randn_like(per_rank) for s in shares]))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_strata_are_uniform_numbers_one_in_each_interval_of_the_global_batch(ranks):
    n = 6
    draws = torch.stack(
        [
            torch.cat([BatchNoise(7, "train", i, rank=r, ranks=ranks).strata(n // ranks) for r in range(ranks)])
            for i in range(2000)
        ]
    )
    assert torch.equal(draws[5], BatchNoise(7, "train", 5).strata(n))
    within = draws * n - torch.arange(n)
    assert within.min() >= -1e-6
    assert within.max() <= 1 + 1e-6
    assert (within.mean(0) - 0.5).abs().max() < 5 / (12 * 2000) ** 0.5
    assert (within.var(0) - 1 / 12).abs().max() < 0.01


def test_strata_stay_below_one():
    noise = BatchNoise(0)
    noise.rand = lambda n: torch.full((n,), 1 - 2**-24)
    assert noise.strata(3)[-1] < 1


def test_an_image_has_the_same_noise_in_every_batch():
    x = torch.empty(4, 1, 3, 3)
    together = ImageNoise(5, [0, 1, 2, 3])
    apart = ImageNoise(5, [2])
    for _ in range(1000):  # past the end of several blocks of numbers
        assert torch.equal(together(x)[2], apart(x[:1])[0])


def test_images_and_seeds_differ():
    x = torch.empty(2, 1, 3, 3)
    first = ImageNoise(5, [0, 1])(x)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, ImageNoise(6, [0, 1])(x))


def test_image_noise_is_standard_normal_over_images_and_over_calls():
    noise = ImageNoise(0, range(500))
    z = torch.stack([noise(torch.empty(500, 8)) for _ in range(50)])
    n = z.numel()
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z[1:] * z[:-1]).mean()) < 4 / n**0.5
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 4 / n**0.5


def test_noise_for_another_number_of_images_is_refused():
    with pytest.raises(ValueError, match="noise for 3 images was asked for 2"):
        ImageNoise(0, [0, 1, 2])(torch.empty(2, 4))
