"""Adam, against torch's."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from score_lightning.training.optimizer import Adam, AdamSettings

SETTINGS = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def network(layout: str = "channels last") -> nn.Sequential:
    """Convolutions, one with a 1 x 1 kernel, a norm and a linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(36, 5))
    return net.to(memory_format=LAYOUTS[layout])


def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    """One with a gradient that is a function of the number."""
    optimizer.zero_grad()
    images = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(number))
    net(images).square().sum().backward()
    optimizer.step()


def assert_alike(net: nn.Module, other: nn.Module, exactly: bool = True) -> None:
    """Compares their weights."""
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert_close(p, q, **({"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-5, "atol": 1e-6}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_does_what_torchs_does_to_the_bit(layout):
    ours, theirs = network(layout), network(layout)
    mine = Adam(ours.parameters(), **SETTINGS)
    other = torch.optim.Adam(theirs.parameters(), **SETTINGS, fused=True)
    for number in range(20):
        step(ours, mine, number)
        step(theirs, other, number)
    assert_alike(ours, theirs)
    assert_close(mine.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_a_gradient_in_another_order_of_memory_is_the_same_gradient():
    ours, theirs = network(), network()
    mine = Adam(ours.parameters(), **SETTINGS)
    other = torch.optim.Adam(theirs.parameters(), **SETTINGS, foreach=False)
    for number in range(3):
        for net in (ours, theirs):
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
        mine.step()
        other.step()
    assert_alike(ours, theirs, exactly=False)


def test_what_has_no_gradient_stays_and_does_not_count_the_step():
    ours, theirs = network(), network()
    mine = Adam(ours.parameters(), **SETTINGS)
    other = torch.optim.Adam(theirs.parameters(), **SETTINGS, fused=True)
    for frozen in ("0", "4", None, "0"):
        for net, optimizer in ((ours, mine), (theirs, other)):
            for name, p in net.named_parameters():
                p.requires_grad_(not name.startswith(frozen or "none"))
            step(net, optimizer, 1)
    assert_alike(ours, theirs)
    assert_close(mine.state_dict(), other.state_dict(), rtol=0, atol=0)
    for optimizer in (mine, other):
        optimizer.zero_grad()
        optimizer.step()
    assert_alike(ours, theirs)


@pytest.mark.parametrize("reader", ["ours", "torch's"])
def test_checkpoints_are_torchs_in_both_directions(reader):
    net, whole = network(), network()
    first, second = Adam(net.parameters(), **SETTINGS), torch.optim.Adam(whole.parameters(), **SETTINGS, fused=True)
    writer = second if reader == "ours" else first
    source = whole if reader == "ours" else net
    for number in range(3):
        step(source, writer, number)
    reads = network()
    reads.load_state_dict(source.state_dict())
    optimizer = (
        Adam(reads.parameters(), **SETTINGS)
        if reader == "ours"
        else torch.optim.Adam(reads.parameters(), **SETTINGS, fused=True)
    )
    optimizer.load_state_dict(copy.deepcopy(writer.state_dict()))
    for number in range(3, 6):
        step(source, writer, number)
        step(reads, optimizer, number)
    assert_alike(source, reads)


def test_moments_in_another_order_of_memory_are_put_in_that_of_the_weights():
    plain, net = network("contiguous"), network()
    writer, reader = Adam(plain.parameters(), **SETTINGS), Adam(net.parameters(), **SETTINGS)
    step(plain, writer, 0)
    net.load_state_dict(plain.state_dict())
    reader.load_state_dict(copy.deepcopy(writer.state_dict()))
    for number in range(1, 4):
        step(plain, writer, number)
        step(net, reader, number)
    assert_alike(plain, net, exactly=False)


def test_weights_that_moved_are_found_again():
    net = network("contiguous")
    optimizer = Adam(net.parameters(), **SETTINGS)
    step(net, optimizer, 0)
    other = copy.deepcopy(net)
    theirs = Adam(other.parameters(), **SETTINGS)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p in net.parameters():
        p.data = p.data.clone()
    step(net, optimizer, 1)
    step(other, theirs, 1)
    assert_alike(net, other)


def test_a_copy_goes_on():
    net = network()
    optimizer = Adam(net.parameters(), **SETTINGS)
    step(net, optimizer, 0)
    other, theirs = copy.deepcopy((net, optimizer))
    step(net, optimizer, 1)
    step(other, theirs, 1)
    assert_alike(net, other)


def test_the_count_of_steps_comes_to_the_weights_from_a_plain_checkpoint():
    source = network()
    plain = torch.optim.Adam(source.parameters(), **SETTINGS)
    step(source, plain, 0)
    net = network().to("meta")
    optimizer = Adam(net.parameters(), **SETTINGS)
    optimizer.load_state_dict(plain.state_dict())
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    assert {state["step"].device.type for state in optimizer.state.values()} == {"cpu"}
    optimizer._trained()
    assert {state["step"].device.type for state in optimizer.state.values()} == {"meta"}


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_divisor_divides_one_gradient(precision):
    ours, theirs = network().to(precision), network().to(precision)
    mine, other = Adam(ours.parameters(), **SETTINGS), torch.optim.Adam(theirs.parameters(), **SETTINGS, fused=True)
    for number, divisor in enumerate((None, 4.0, None)):
        for net, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad()
            net(torch.ones(2, 3, 5, 5, dtype=precision) * number).square().sum().backward()
            if divisor and optimizer is mine:
                mine.mask_next_step(torch.tensor(divisor), torch.zeros(()))
            elif divisor:
                for p in net.parameters():
                    p.grad /= divisor
            optimizer.step()
    assert_alike(ours, theirs)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_masked_step_changes_nothing(precision):
    ours, theirs = network().to(precision), network().to(precision)
    mine, other = Adam(ours.parameters(), **SETTINGS), Adam(theirs.parameters(), **SETTINGS)
    for number in range(4):
        for net, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad()
            (net(torch.ones(2, 3, 5, 5, dtype=precision) * number).square().sum()).backward()
            if number == 2:
                if optimizer is other:
                    continue
                for p in net.parameters():
                    p.grad.fill_(torch.nan)
                mine.mask_next_step(torch.tensor(torch.nan), torch.ones(()))
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(mine.state[p][key], other.state[q][key]), key


def test_learning_rate_warms_up_and_falls():
    adam = AdamSettings(warmup=10, decay_steps=100)
    assert [adam.factor(s) for s in (0, 5, 10, 50, 100)] == pytest.approx([0, 0.5 * 0.95, 0.9, 0.5, 0])
    assert AdamSettings().factor(0) == AdamSettings().factor(10**6) == 1
