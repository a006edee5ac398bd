"""Augmentation against maps of whole pixels, which change none of them, and against what it tells the network."""

import math

import pytest
import torch
from torch.nn import functional as F

from score_lightning.data.augment import PARAMETERS, SYM6, augment, inverse_map, resample
from score_lightning.networks import NCSNpp
from score_lightning.runtime.randomness import BatchNoise


def still(n):
    return torch.zeros(n, dtype=torch.float64)


def test_the_filter_is_orthonormal_to_its_shifts_by_two():
    taps = torch.tensor(SYM6, dtype=torch.float64)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-12)
    for shift in range(6):
        assert (taps[2 * shift :] @ taps[: len(taps) - 2 * shift]).item() == pytest.approx(float(shift == 0), abs=1e-11)


def test_moving_whole_pixels_changes_none_of_them():
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    same = inverse_map(*(still(2) for _ in range(4)))
    torch.testing.assert_close(resample(x, same, torch.zeros(2, 2).double()), x, rtol=0, atol=1e-10)
    moved = resample(x, same, torch.tensor([[3.0, 0.0], [0.0, -2.0]]).double())
    torch.testing.assert_close(moved[0, :, :, 3:], x[0, :, :, :-3], rtol=0, atol=1e-10)
    torch.testing.assert_close(moved[0, :, :, :3], x[0, :, :, 1:4].flip(2), rtol=0, atol=1e-10)  # reflected
    torch.testing.assert_close(moved[1, :, :-2], x[1, :, 2:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_turn_the_image(turns):
    x = F.interpolate(torch.randn(1, 1, 6, 6, dtype=torch.float64), size=(32, 32), mode="bicubic")
    angle = torch.tensor([turns * math.pi / 2], dtype=torch.float64)
    turned = resample(x, inverse_map(still(1), angle, still(1), still(1)), torch.zeros(1, 2).double())
    expected = torch.rot90(x, turns, (2, 3))
    # the published pipeline turns about a point that is a twentieth of a pixel off the center
    assert (turned - expected).norm() / expected.norm() < 0.05
    assert (turned - torch.rot90(x, -turns + 4 * (turns == 2) + 1, (2, 3))).norm() / expected.norm() > 0.1


def test_scale_squeeze_and_direction_are_linear_maps():
    one = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(inverse_map(5 * one, 0 * one, 0 * one, 0 * one)[0], torch.eye(2).double() / 2)
    torch.testing.assert_close(
        inverse_map(0 * one, 0 * one, 5 * one, 0 * one)[0], torch.tensor([[0.5, 0], [0, 2]]).double()
    )
    upright = inverse_map(0 * one, 0 * one, 5 * one, one * math.pi / 2)[0]
    torch.testing.assert_close(upright, torch.tensor([[2.0, 0], [0, 0.5]]).double())


def test_what_was_done_is_told_and_nothing_else_was_done():
    x = torch.randn(200, 1, 8, 8)
    y, parameters = augment(x, BatchNoise(0, "augment"), 0.0)
    assert parameters.shape == (200, PARAMETERS)
    assert 70 < parameters[:, 0].sum() < 130
    assert not parameters[:, 1:].any()
    torch.testing.assert_close(y, torch.where(parameters[:, 0, None, None, None] > 0, x.flip(3), x), rtol=0, atol=1e-5)
    y, parameters = augment(x, BatchNoise(0, "augment"), 0.12)
    left = (parameters[:, 1:] == 0).all(1)
    flipped = torch.where(parameters[:, 0, None, None, None] > 0, x.flip(3), x)
    torch.testing.assert_close(y[left], flipped[left], rtol=0, atol=1e-5)
    shares = [(parameters[:, i] != 0).double().mean().item() for i in (1, 2, 4, 5, 7)]
    for share, expected in zip(shares, (0.06, 0.12, 0.12, 0.12, 0.12), strict=True):
        assert abs(share - expected) < 4 * math.sqrt(expected / 200)


def test_ranks_augment_their_share_of_one_batch():
    x = torch.randn(8, 1, 8, 8)
    whole = augment(x, BatchNoise(0, "a"), 0.5)
    halves = [augment(part, BatchNoise(0, "a", rank=i, ranks=2), 0.5) for i, part in enumerate(x.split(4))]
    for one, parts in zip(whole, zip(*halves, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(parts))


def test_networks_take_what_they_are_told():
    net = NCSNpp(
        image_size=8, image_channels=1, channels=16, multipliers=(1,), blocks=1, attention=(), augmentation=PARAMETERS
    )
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x, c, parameters = torch.randn(2, 1, 8, 8), torch.zeros(2), torch.zeros(2, PARAMETERS)
    assert torch.equal(net(x, c), net(x, c, augmentation=parameters))
    net(x, c).sum().backward()  # else several processes would wait for the gradients of some parameters
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    parameters[0, 4] = 1
    different = (net(x, c, augmentation=parameters) - net(x, c)).flatten(1).abs().sum(1)
    assert different[0] > 0.01
    assert different[1] == 0


def published(x, back, shift):
    """The pipeline of EDM's code, step by step: zeros between pixels, the filter, the grid, and every other pixel."""
    taps = torch.tensor(SYM6, dtype=x.dtype)
    scale = lambda k: torch.diag(torch.tensor([k, k, 1.0], dtype=x.dtype))  # noqa: E731
    move = lambda a: torch.tensor([[1, 0, a], [0, 1, a], [0, 0, 1]], dtype=x.dtype)  # noqa: E731

    def along_rows(x, zeros, flip, padding, stride):
        if zeros:
            spread = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] - 1, dtype=x.dtype)
            spread[..., ::2] = x
            x = spread
        windows = F.pad(x, (padding, padding)).unfold(-1, len(taps), stride)
        return (windows * (taps.flip(0) if flip else taps)).sum(-1)

    side, margin = x.shape[3], x.shape[3] - 1
    large = F.pad(x, (margin, margin, margin, margin), mode="reflect")
    for _ in range(2):
        large = along_rows(large, True, True, 6, 1).mT
    inverse = torch.eye(3, dtype=x.dtype)
    inverse[:2, :2], inverse[:2, 2] = back, -(back @ shift)
    inverse = move(-0.5) @ scale(2) @ inverse @ scale(0.5) @ move(0.5)
    size = 2 * side + 12
    inverse = scale(2 / large.shape[3]) @ inverse @ scale(size / 2)
    grid = F.affine_grid(inverse[None, :2], [1, x.shape[1], size, size], align_corners=False)
    small = F.grid_sample(large, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    for _ in range(2):
        small = along_rows(small, False, False, 5, 2)[..., 3:-3].mT
    return small


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, -2.0])
@pytest.mark.parametrize("factor", [1.0, 0.8])
def test_images_are_resampled_as_in_the_published_pipeline(angle, factor):
    x = torch.rand(1, 2, 16, 16, dtype=torch.float64)
    rows = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    back, shift = factor * torch.tensor(rows, dtype=torch.float64), torch.tensor([0.7, -1.2], dtype=torch.float64)
    torch.testing.assert_close(resample(x, back[None], shift[None]), published(x, back, shift), rtol=0, atol=1e-9)
