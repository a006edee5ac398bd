"""Image i is a function of (seed, i)."""

import pytest
import torch
from torch import nn

from score_lightning.generate import Generator
from score_lightning.models import ScoreModel
from score_lightning.pixels import PixelRange
from score_lightning.samplers import DDIM, Ancestral, AnnealedLangevin, Sampler
from score_lightning.schedules import geometric, linear_beta


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, c):  # noqa: ARG002
        return self.weight * x


SAMPLERS = [
    Sampler(Ancestral(), steps=5),
    Sampler(DDIM(), steps=3),
    Sampler(corrector=AnnealedLangevin(1e-4, 2), steps=4),
]


def draw(generator, model, n, rank=0, ranks=1, seed=0):
    return list(generator(model, n, seed, rank, ranks))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ancestral", "ddim", "langevin"])
@pytest.mark.parametrize("start", ["gaussian", "uniform"])
def test_images_do_not_depend_on_batches_or_ranks(sampler, start):
    model = ScoreModel(Net(), geometric(0.01, 1, 10, start))
    make = lambda size: Generator(sampler, (1, 4, 4), PixelRange(), size)  # noqa: E731
    whole = torch.cat([images for _, images in draw(make(11), model, 11)])
    assert torch.equal(torch.cat([images for _, images in draw(make(4), model, 11)]), whole)
    dealt = [part for rank in range(3) for part in draw(make(2), model, 11, rank, 3)]
    indices, images = (torch.cat(parts) for parts in zip(*dealt, strict=True))
    assert sorted(indices.tolist()) == list(range(11))
    assert torch.equal(images, whole[indices])


def test_seeds_give_other_images_and_the_same_seed_the_same():
    model, generator = (
        ScoreModel(Net(), linear_beta(1e-4, 0.02, 1000)),
        Generator(SAMPLERS[0], (1, 4, 4), PixelRange(), 8),
    )
    a, b, c = (draw(generator, model, 3, seed=s)[0][1] for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_exactly_n_images_come_as_uint8():
    model, generator = (
        ScoreModel(Net(), linear_beta(1e-4, 0.02, 1000)),
        Generator(SAMPLERS[1], (3, 4, 4), PixelRange(), 4),
    )
    parts = draw(generator, model, 9)
    assert [len(images) for _, images in parts] == [4, 4, 1]
    assert {images.dtype for _, images in parts} == {torch.uint8}
