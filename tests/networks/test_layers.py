"""Group norm with SiLU, against torch's functions."""

import pytest
import torch
from torch.nn import functional as F

from score_lightning.networks import LightUNet, NCSNpp, RefineNet, UNet, layers
from score_lightning.networks.layers import Block, GroupNorm


@pytest.fixture(autouse=True)
def _all_are_large(monkeypatch):
    monkeypatch.setattr(layers, "LARGE", 0)


def layer_and_input(layout=torch.channels_last, dtype=torch.float32, channels=24):
    norm = GroupNorm(4, channels).to(dtype)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(3, channels, 5, 6, dtype=dtype).contiguous(memory_format=layout)
    return norm, x.requires_grad_()


def plain(norm, x):
    return F.silu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_torchs_to_the_bit(layout):
    norm, x = layer_and_input(layout)
    inputs, weights = [x, norm.weight, norm.bias], torch.randn(x.shape)
    ours, theirs = norm.activated(x), plain(norm, x)
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True
    ):
        assert torch.equal(mine, other)


def test_second_derivatives():
    norm, x = layer_and_input(dtype=torch.float64, channels=8)
    torch.autograd.gradgradcheck(lambda x, *_: norm.activated(x), (x, norm.weight, norm.bias))


def test_only_what_is_asked_for():
    norm, x = layer_and_input()
    norm.requires_grad_(False)
    assert torch.equal(
        *(torch.autograd.grad(f(x).square().sum(), x)[0] for f in (norm.activated, lambda x: plain(norm, x)))
    )
    norm.requires_grad_(True)
    norm.activated(x.detach()).sum().backward()
    assert x.grad is None
    assert norm.weight.grad is not None


def test_half_precision_has_the_gradients_of_its_forward_pass():
    norm, x = layer_and_input()
    gradients = []
    for apply in (norm.activated, lambda x: F.silu(norm(x))):
        with torch.autocast("cpu", torch.bfloat16):
            y = apply(x.bfloat16())
            assert y.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(y.float().square().sum(), [x, norm.weight, norm.bias]))
    assert all(torch.equal(mine, other) for mine, other in zip(*gradients, strict=True))


def test_shapes_alone():
    norm = GroupNorm(4, 24).to("meta")
    norm.activated(torch.empty(3, 24, 5, 6, device="meta", requires_grad=True)).sum().backward()
    assert norm.weight.grad.shape == (24,)


def test_what_lies_between_is_not_kept():
    norm, x = layer_and_input()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm.activated(x)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in (x, norm.weight, norm.bias)}


NETS = {
    "unet": lambda: UNet(8, 1, channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.2),
    "ncsnpp": lambda: NCSNpp(8, 1, channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.2),
    "light": lambda: LightUNet(8, 1, dropout=0.2),
    "refinenet": lambda: RefineNet(1, 8, levels=3),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("second", [False, True])
def test_checkpointing_keeps_gradients_and_saves_memory(net, second):
    net = NETS[net]()
    weights = [p for p in net.parameters() if p.requires_grad]
    for p in weights:  # last layers are 0 at first
        torch.nn.init.normal_(p, std=0.1)
    x, c = torch.rand(4, 1, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 1])
    results = []
    for checkpointing in (False, True):
        for part in net.modules():
            if isinstance(part, Block):
                part.checkpointing = checkpointing
        kept = {}
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.update({t.data_ptr(): t.nbytes}) or t, lambda t: t
        ):
            loss = net(x, c).square().mean()
        if second:
            loss = torch.autograd.grad(loss, x, create_graph=True)[0].square().sum()
        results.append((sum(kept.values()), torch.autograd.grad(loss, weights, allow_unused=True)))
    (all_kept, plain_gradients), (few_kept, gradients) = results
    assert few_kept < 0.7 * all_kept
    for mine, other in zip(gradients, plain_gradients, strict=True):
        assert (mine is None and other is None) or torch.equal(mine, other)
