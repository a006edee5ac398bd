"""Muon, against torch's, which takes matrices only and computes in bfloat16."""

import copy
import csv

import pytest
import torch
from support import assert_same_state, run, state
from torch import nn
from torch.testing import assert_close

from score_lightning.errors import UserError
from score_lightning.training.module import ScoreModule
from score_lightning.training.muon import Muon, orthogonalize
from score_lightning.training.optimizer import Adam

ADAM = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}


def network():
    """Two convolutions of one shape, one of another, a linear layer with more rows than columns."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 6, 1)]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(6, 9), nn.Linear(9, 2)).to(memory_format=torch.channels_last)


def hidden(net):
    return [layer.weight for layer in (*net[1:4], net[5])]


def optimizer_of(net, lr=0.02):
    return Muon(net.parameters(), hidden(net), lr, **ADAM)


def gradients(net, number):
    net.zero_grad()
    images = torch.randn(6, 3, 7, 7, generator=torch.Generator().manual_seed(number))
    net(images).square().sum().backward()


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 40), (1, 30, 4)])
def test_directions_are_nearly_orthogonal(shape):
    matrices = torch.randn(shape, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ orthogonalize(matrices) @ vt.mT
    values = inner.diagonal(dim1=1, dim2=2)
    assert_close(inner, torch.diag_embed(values), rtol=0, atol=1e-9)
    assert 0.3 < values.min() <= values.max() < 1.25


def test_a_zero_gradient_moves_nothing():
    assert orthogonalize(torch.zeros(2, 3, 4)).abs().max() == 0


@pytest.mark.parametrize("shape", [(8, 8), (9, 6), (5, 30)])
def test_matrices_take_torchs_steps(shape):
    ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    mine = Muon([ours, nn.Parameter(torch.zeros(1))], [ours], 0.02, **ADAM)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(5):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    assert (ours - theirs).norm() < 0.03 * theirs.norm()  # theirs are rounded to 8 bits


def test_a_kernel_is_a_matrix_with_a_row_for_each_output():
    ours = network()
    mine = optimizer_of(ours)
    gradients(ours, 0)
    before, gradient = ours[1].weight.detach().clone(), ours[1].weight.grad.clone()
    mine.step()
    ahead = gradient * (1 - 0.95) * 0.95 + gradient * 0.05
    expected = orthogonalize(ahead.flatten(1)[None])[0].view_as(gradient)
    assert_close(ours[1].weight - before, -0.02 * (expected + 0.1 * before), rtol=1e-4, atol=1e-6)


def test_others_take_adams_steps():
    ours, theirs = network(), network()
    mine = optimizer_of(ours)
    matrices = {id(p) for p in hidden(theirs)}
    other = Adam([p for p in theirs.parameters() if id(p) not in matrices], **ADAM)
    for number in range(3):
        gradients(ours, number)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            q.grad = p.grad.clone()
        mine.step()
        other.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q) == (id(q) not in matrices)


@pytest.mark.parametrize("shape", [(64, 576), (64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_low_rank_do_not_diverge(shape, dtype):
    low = torch.randn(2, shape[0], 3) @ torch.randn(2, 3, shape[1])
    for matrices in (low, low + 1e-3 * torch.randn(low.shape)):
        directions = orthogonalize(matrices.to(dtype))
        assert directions.dtype == torch.float32
        assert torch.linalg.matrix_norm(directions, 2).max() < 1.25


def test_weight_decay_is_decoupled():
    p = nn.Parameter(torch.full((3, 4), 2.0))
    optimizer = Muon([p, nn.Parameter(torch.zeros(1))], [p], 0.5, **ADAM)
    p.grad = torch.zeros(3, 4)
    optimizer.step()
    assert_close(p.detach(), torch.full((3, 4), 2.0 * (1 - 0.5 * 0.1)))


@pytest.mark.parametrize("inside", [False, True])  # of the closure, as Lightning asks for the mask
def test_a_divisor_of_the_gradient_and_a_masked_step(inside):
    ours, theirs = network(), network()
    mine, other = optimizer_of(ours), optimizer_of(theirs)

    def prepare(net, number):
        gradients(net, number)
        if number == 1 and net is theirs:
            for p in net.parameters():
                p.grad /= 4
        elif number == 1:
            mine.mask_next_step(torch.tensor(4.0), torch.zeros(()))
        elif number == 2:
            for p in net.parameters():
                p.grad.fill_(torch.nan)
            mine.mask_next_step(torch.tensor(torch.nan), torch.ones(()))

    for number in range(4):
        for net, optimizer in ((ours, mine), (theirs, other)):
            if number == 2 and net is theirs:
                continue
            if inside:
                optimizer.step(lambda net=net, number=number: prepare(net, number))
            else:
                prepare(net, number)
                optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_resumes_to_the_bit():
    ours, theirs = network(), network()
    mine = optimizer_of(ours)
    for number in range(2):
        gradients(ours, number)
        mine.step()
    theirs.load_state_dict(ours.state_dict())
    other = optimizer_of(theirs)
    other.load_state_dict(copy.deepcopy(mine.state_dict()))
    for net, optimizer in ((ours, mine), (theirs, other)):
        gradients(net, 7)
        optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)


WORDS = ["evaluation.n=0", "samples.n=0", "trainer.checkpoint_every=1", "optimizer.decay=false"]


def test_a_run_resumes_to_the_bit_and_only_with_muon(tmp_path):
    whole = run(tmp_path / "whole", *WORDS, "optimizer.muon=0.02", exp="edm_digits")
    parts = run(tmp_path / "parts", *WORDS, "optimizer.muon=0.02", "trainer.max_steps=2", exp="edm_digits")
    with pytest.raises(UserError, match=r"was trained with Muon.*or start anew from the weights with init="):
        run(
            tmp_path / "parts", *WORDS, f"resume={parts}/checkpoints/last.ckpt", "optimizer.muon=null", exp="edm_digits"
        )
    again = ["optimizer.muon=0.02", f"resume={parts}/checkpoints/last.ckpt"]
    resumed = run(tmp_path / "parts", *WORDS, *again, exp="edm_digits")
    assert_same_state(state(whole), state(resumed))


def test_a_step_without_a_finite_gradient_is_skipped(tmp_path, monkeypatch):
    losses = ScoreModule.losses

    def broken(self, batch):
        t, values = losses(self, batch)
        return t, values * (float("nan") if batch["step"] == 1 else 1)

    monkeypatch.setattr(ScoreModule, "losses", broken)
    folder = run(tmp_path, *WORDS, "optimizer.muon=0.02", "trainer.skip_nonfinite=1", exp="edm_digits")
    saved = state(folder)
    assert saved["skipped"] == 1
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_the_learning_rates_of_a_resumed_run_are_its_own(tmp_path):
    first = run(tmp_path, *WORDS, "optimizer.muon=0.02", "trainer.max_steps=1", "optimizer.warmup=0", exp="edm_digits")
    changed = ["optimizer.muon=0.04", "optimizer.lr=0.003", "optimizer.warmup=0"]
    second = run(tmp_path, *WORDS, *changed, f"resume={first}/checkpoints/last.ckpt", exp="edm_digits")
    with (second / "metrics.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["train/lr"] and row["step"] == "3")
    assert (float(row["train/lr"]), float(row["train/lr_muon"])) == (0.003, 0.04)
    groups = state(second)["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == [0.003, 0.04]
