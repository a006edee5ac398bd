"""Image i is a function of (seed, i)."""

import pytest
import torch
from torch import nn

from score_lightning.conditional import Edit
from score_lightning.data.pixels import PixelRange
from score_lightning.errors import UserError
from score_lightning.generation.generator import Generator, check_finite, trajectory
from score_lightning.generation.store import BatchStore
from score_lightning.models import ScoreModel
from score_lightning.runtime.processes import Rank
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
    return [batch[:2] for batch in generator(model, n, seed, Rank(rank, ranks))]


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


def counted(model, monkeypatch):
    """How many images the model's network is called for."""
    calls, forward = [], model.net.forward
    monkeypatch.setattr(model.net, "forward", lambda x, c: calls.append(len(x)) or forward(x, c))
    return calls


def test_an_interrupted_generation_goes_on_with_the_same_images(tmp_path, monkeypatch):
    model, generator = (
        ScoreModel(Net(), linear_beta(1e-4, 0.02, 1000)),
        Generator(SAMPLERS[1], (1, 4, 4), PixelRange(), 4),
    )
    whole = torch.cat([batch.images for batch in generator(model, 11, 0)])
    store = BatchStore(tmp_path, "key")
    stopped = generator(model, 11, 0, store=store)
    next(stopped), next(stopped)
    calls = counted(model, monkeypatch)
    again = torch.cat([batch.images for batch in generator(model, 11, 0, store=store)])
    assert torch.equal(again, whole)
    assert sum(calls) == 3 * 3  # the last three images, in three steps
    resized = torch.cat([batch.images for batch in generator(model, 10, 0, store=store)])  # another last batch
    assert torch.equal(resized, whole[:10])
    store.clear()
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_batches_are_drawn_again(tmp_path, monkeypatch):
    model, generator = (
        ScoreModel(Net(), linear_beta(1e-4, 0.02, 1000)),
        Generator(SAMPLERS[1], (1, 4, 4), PixelRange(), 4),
    )
    store = BatchStore(tmp_path, "key")
    whole = torch.cat([batch.images for batch in generator(model, 8, 0, store=store)])
    first, second = sorted(next(tmp_path.iterdir()).iterdir())
    first.write_bytes(first.read_bytes()[:-20])
    damaged = bytearray(second.read_bytes())
    damaged[160] ^= 255  # among the pixels
    second.write_bytes(damaged)
    calls = counted(model, monkeypatch)
    assert torch.equal(torch.cat([batch.images for batch in generator(model, 8, 0, store=store)]), whole)
    assert sum(calls) == 8 * 3
    list(generator(model, 8, 0, store=BatchStore(tmp_path, "other key")))
    assert sum(calls) == 16 * 3


def test_images_that_are_not_finite_are_marked_and_refused():
    class Broken(Net):
        def forward(self, x, c):
            return torch.where(torch.arange(len(x))[:, None, None, None] == 2, torch.nan, super().forward(x, c))

    model, generator = (
        ScoreModel(Broken(), linear_beta(1e-4, 0.02, 1000)),
        Generator(SAMPLERS[0], (1, 4, 4), PixelRange()),
    )
    (batch,) = generator(model, 4, 0)
    assert batch.finite.tolist() == [True, True, False, True]
    assert batch.images[2].eq(0).all()
    check_finite([], 4)
    with pytest.raises(UserError, match=r"1 of 4 images have pixels that are not finite \(NaN\), image 2 the first"):
        check_finite([2], 4)


@pytest.mark.parametrize(("sampler", "expected"), [(SAMPLERS[0], 6), (Sampler(DDIM(), steps=40), 10)])
def test_trajectories_start_with_noise_and_end_with_the_image(sampler, expected):
    model, generator = ScoreModel(Net(), linear_beta(1e-4, 0.02, 1000)), Generator(sampler, (1, 4, 4), PixelRange())
    path = trajectory(generator, model, 3, seed=0)
    assert path.shape == (3, expected, 1, 4, 4)
    assert torch.equal(path[:, -1], generator.batch(model, range(3), 0).images)
    assert path[:, 0].float().std() > 60  # standard normal noise on [-1, 1], clamped


def test_images_that_diverge_are_marked_also_where_they_start_from_a_picture():
    class Infinite(Net):
        def forward(self, x, c):
            return torch.where(torch.arange(len(x))[:, None, None, None] == 1, torch.inf, super().forward(x, c))

    picture = Edit(torch.zeros(1, 4, 4))
    generator = Generator(Sampler(DDIM(), steps=1), (1, 4, 4), PixelRange(), measurement=picture)
    batch = generator.batch(ScoreModel(Infinite(), linear_beta(1e-4, 0.02, 1000)), range(3), seed=0)
    assert batch.finite.tolist() == [True, False, True]
