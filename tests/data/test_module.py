"""The order of batches."""

import multiprocessing
import os
import signal

import pytest
import torch

from score_lightning.data.images import ImageSet
from score_lightning.data.loader import Loader
from score_lightning.data.module import Batches
from score_lightning.data.orders import TrainingOrder, ValidationOrder
from score_lightning.runtime.signals import SIGNALS, held_back


def collect(order):
    return [(step, tuple(row.tolist())) for step, row in order]


def test_every_pass_shows_every_image_once_in_a_new_order():
    rows = [i for _, row in TrainingOrder(10, 4, 5, seed=0) for i in row.tolist()]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


def test_order_depends_on_seed_and_step_alone():
    whole = collect(TrainingOrder(10, 4, 30, seed=3))
    assert collect(TrainingOrder(10, 4, 30, seed=3, start=17)) == whole[17:]
    halves = [collect(TrainingOrder(10, 4, 30, seed=3, rank=r, ranks=2)) for r in (0, 1)]
    assert [(s, a + b) for (s, a), (_, b) in zip(*halves, strict=True)] == whole
    assert collect(TrainingOrder(10, 4, 30, seed=4)) != whole


def test_batches_may_be_larger_than_the_data():
    (_, row), *_ = TrainingOrder(3, 8, 1, seed=0)
    assert [row.tolist().count(i) >= 2 for i in range(3)] == [True] * 3


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_validation_counts_every_triple_once(ranks):
    parts = [collect(ValidationOrder(17, 4, r, ranks)) for r in range(ranks)]
    assert [len(ValidationOrder(17, 4, r, ranks)) for r in range(ranks)] == [len(p) for p in parts]
    assert sorted(i for part in parts for _, row in part for i in row) == list(range(17))
    assert min(map(len, parts)) >= 1


def test_batches_come_as_tensors():
    images = ImageSet(torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2))
    batch = Batches(images)[(5, torch.tensor([2, 4]))]
    assert batch["step"] == 5
    assert batch["images"][:, 0, 0, 0].tolist() == [8, 4]  # image 4 wraps around to 1
    assert batch["numbers"].tolist() == [2, 4]


def test_processes_that_are_just_starting_ignore_signals(monkeypatch):
    run, seeded = os.getpid(), torch.manual_seed

    def interrupted(seed):  # which each process calls after it has got torch's handlers, and before it gets ours
        if os.getpid() != run:
            os.kill(os.getpid(), signal.SIGTERM)
        return seeded(seed)

    monkeypatch.setattr(torch, "manual_seed", interrupted)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert list(Loader([1, 2, 3, 4], num_workers=2, batch_size=None)) == [1, 2, 3, 4]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_the_block_of_signals_holds_with_every_way_to_start_processes():
    with held_back():
        for method in multiprocessing.get_all_start_methods():
            multiprocessing.get_context(method).Queue()
            assert set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
