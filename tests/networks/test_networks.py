"""Networks against the published implementations and against calculus."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from score_lightning.networks import MLP, LightUNet, NCSNpp, RefineNet, UNet, blocks
from score_lightning.networks.blocks import Style, conv, double, halve
from score_lightning.networks.layers import Dropout


@pytest.mark.parametrize(("net", "parameters"), [(UNet(), 35_746_307), (RefineNet(), 30_117_635)])
def test_defaults_have_the_published_number_of_parameters(net, parameters):
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (UNet(image_size=28, image_channels=1, channels=32, multipliers=(1, 2, 2), attention=(14,), groups=8), 28),
        (UNet(image_size=8, image_channels=1, channels=16, multipliers=(1, 2), attention=(4,), groups=4), 8),
        (RefineNet(image_channels=1, channels=8, levels=3), 28),
        (UNet(8, 1, 16, (1, 2), attention=(4,), groups=4, learned_variance=True, heads=2, adaptive=True), 8),
        (
            UNet(8, 1, 16, (1, 2), attention=(4,), groups=4, head_channels=8, adaptive=True, by_blocks=True, classes=3),
            8,
        ),
        (LightUNet(8, 1, (16, 8, 32), blocks=2), 8),
        (LightUNet(28, 1, (32, 16), patch=2, classes=3), 28),
        (NCSNpp(8, 1, 16, (1, 2), 1, (4,), embedding="positional"), 8),
        (NCSNpp(8, 1, 16, (1, 2), 1, (4,), pyramid_in="skip", pyramid_out="skip"), 8),
    ],
    ids=["unet28", "unet8", "refinenet28", "iddpm", "adm", "light8", "light28", "ncsnpp", "pyramids"],
)
def test_small_configurations_depend_on_every_parameter_and_on_the_conditioning(net, size):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    x = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    y = net(x, torch.tensor([0, 2]))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.requires_grad)
    assert not torch.allclose(y[0], net(x, torch.tensor([1, 2]))[0])
    torch.testing.assert_close(y[1], net(x, torch.tensor([1, 2]))[1])


def test_unet_has_second_derivatives():
    net = UNet(
        image_size=4, image_channels=1, channels=8, multipliers=(1, 1), blocks=1, attention=(4,), groups=2
    ).double()
    nn.init.normal_(net.conv_out.weight)
    nn.init.normal_(net.middle[0].attention.out.weight)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: net(x, torch.tensor([3])), (x,), atol=1e-4)


def test_the_light_unet_has_second_derivatives():
    net = LightUNet(4, 1, (8, 8)).double()
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: net(x, torch.tensor([3.0])), (x,), atol=1e-4)


def test_patches_of_the_light_unet_are_its_pixels():
    """A network of patches is the one of pixels, given the patches' pixels as channels."""
    net, pixels = LightUNet(8, 1, (16, 32), patch=2), LightUNet(4, 4, (16, 32))
    for p in net.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    pixels.load_state_dict(net.state_dict())
    x, c = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    expected = pixels(torch.stack([x[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1), c)
    y = net(x, c)
    for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        torch.testing.assert_close(y[:, 0, i::2, j::2], expected[:, k])


def test_the_light_unet_starts_at_zero_and_tells_labels_apart():
    net, x, c = LightUNet(8, 1, (16, 16), learned_variance=True, classes=2), torch.randn(2, 1, 8, 8), torch.ones(2)
    assert torch.equal(net(x, c, torch.tensor([0, 1])), torch.zeros(2, 2, 8, 8))
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    y = net(x[:1].expand(3, -1, -1, -1), torch.ones(3), torch.tensor([0, 1, -1]))
    torch.testing.assert_close(y[2:], net(x[:1], c[:1]))
    assert len({tuple(row.flatten().tolist()) for row in y}) == 3


def test_ncsnpp_has_second_derivatives():
    net = NCSNpp(4, 1, 8, (1, 1), 1, (4,), pyramid_in="residual", pyramid_out="skip").double()
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: net(x, torch.tensor([0.3])), (x,), atol=1e-4)


def test_the_filter_is_that_of_its_four_taps_and_doubling_its_transpose():
    taps = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8
    weight = taps.outer(taps)[None, None]
    x, y = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.randn(2, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(halve(y, fir=True), F.conv2d(F.pad(y, (1, 1, 1, 1)), weight, stride=2))
    torch.testing.assert_close(double(x, fir=True), 4 * F.conv_transpose2d(x, weight, stride=2, padding=1))
    torch.testing.assert_close((halve(y, True) * x).sum(), (y * double(x, True)).sum() / 4)
    torch.testing.assert_close(halve(double(x, fir=False), fir=False), x)


def test_labels_reach_ncsnpp_as_scaled_rows():
    net = NCSNpp(8, 1, 16, (1, 2), 1, (4,), classes=3).double()
    seen = []
    net.time_1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x, c = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    net(x, c, torch.tensor([0, 2, -1]))
    net(x, c)
    rows = torch.stack([net.label.weight[:, 0], net.label.weight[:, 2], torch.zeros(32)]) * 3**0.5
    torch.testing.assert_close(seen[0] - seen[1], rows.double(), rtol=0, atol=1e-9)


def test_embeddings_are_the_same_whether_or_not_their_weights_are_joined(monkeypatch):
    net, x, t = UNet(8, 1, 16, (1, 2), attention=(4,), groups=4, adaptive=True), torch.randn(2, 1, 8, 8), torch.ones(2)
    nn.init.normal_(net.conv_out.weight)
    for block in net._blocks:
        nn.init.normal_(block.conv_2.weight)
    joined = net(x, t)
    monkeypatch.setattr(blocks, "COPIED", 0)
    torch.testing.assert_close(net(x, t), joined)
    assert joined.std() > 0.1


def test_networks_refuse_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="multiple of 8; got 28"):
        UNet(image_size=28)
    with pytest.raises(ValueError, match="patch must divide the image size of 28, got 3"):
        LightUNet(28, patch=3)
    with pytest.raises(ValueError, match="multiple of 4; got 14"):
        LightUNet(28, patch=2)
    with pytest.raises(ValueError, match="images of 8 pixels"):
        LightUNet()(torch.zeros(1, 1, 16, 16), torch.zeros(1))
    with pytest.raises(ValueError, match="images of 32 pixels"):
        UNet(channels=32)(torch.zeros(1, 3, 16, 16), torch.zeros(1))
    with pytest.raises(ValueError, match="multiples of 2, got"):
        RefineNet(channels=4)(torch.zeros(1, 3, 7, 7), torch.zeros(1, dtype=torch.long))


def test_mlp_distinguishes_points_and_noise():
    net, x = MLP(dim=2, width=16, layers=2), torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    y = net(x, torch.tensor([1, 2, 1]))
    assert y.shape == (3, 2)
    assert not torch.allclose(y[0], y[1])
    assert not torch.allclose(y[0], y[2])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_a_share_and_keeps_the_mean(layout, dtype):
    x = torch.ones(7, 33, 31, 29, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    layer = Dropout(0.3)
    y = layer(x)
    share = (y == 0).float().mean()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / x.numel()) ** 0.5
    assert set(y.detach().unique().tolist()) == {
        0.0,
        torch.tensor(1 / (1 - round(0.3 * 2**16) / 2**16), dtype=dtype).item(),
    }
    assert y.stride() == x.stride()
    # neither neighbors nor channels share their fate
    dropped = (y == 0).float()
    for shifted in (dropped.roll(1, 1), dropped.roll(1, 3), dropped.roll(1, 0)):
        assert abs((dropped * shifted).mean() - 0.09) < 0.005
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (1e-9, 1.0), (1.0, 0.0)])
def test_dropout_at_its_ends(p, kept):
    assert Dropout(p)(torch.ones(5, 3)).tolist() == [[kept] * 3] * 5
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_pointwise_convolution_is_torchs(layout):
    layer = conv(6, 10, size=1)
    x = torch.randn(3, 6, 4, 5).contiguous(memory_format=layout).requires_grad_()
    expected = torch.nn.functional.conv2d(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), (x, layer.weight)) for y in (layer(x), expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("groups", [8, 2])
def test_a_group_norm_in_bfloat16_is_as_near_to_float32_as_its_rounding(groups):
    norm = Style(4, groups=groups).norm(32)
    torch.nn.init.normal_(norm.weight)
    x, g = torch.randn(2, 4, 32, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = norm(x)
    double = x.detach().double().requires_grad_()
    exact = F.group_norm(double, groups, norm.weight.double(), norm.bias.double(), norm.eps)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-6)
    (found,), (wanted,) = torch.autograd.grad(y, x, g), torch.autograd.grad(exact, double, g.double())
    assert (found.double() - wanted).norm() < 2**-8 * wanted.norm()
