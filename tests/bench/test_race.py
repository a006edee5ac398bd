"""The race: its judge, its averages, and a whole one in little."""

import json
import math
from importlib.util import find_spec

import pytest
import torch

from score_lightning import config
from score_lightning.bench import __main__ as bench
from score_lightning.bench import race
from score_lightning.bench.judges import Judge, judge_pixels
from score_lightning.bench.racers import Racer, start_ours
from score_lightning.data import sources
from score_lightning.data.pictures import Shape

SHAPE = Shape(8, 1)


def test_a_judge_has_the_formulas_of_both_numbers():
    real = torch.tensor([0, 1, 0, 1, 2, 2], dtype=torch.uint8).view(6, 1, 1, 1)

    def classify(x):
        return torch.nn.functional.one_hot(x.flatten().long(), 3)

    judge = Judge(classify, lambda x: x.flatten(1).double(), real)
    score, distance = judge(real)
    assert score == pytest.approx(3, rel=1e-6)  # certain of each, and all three as often
    assert distance == pytest.approx(0, abs=1e-9)
    score, distance = judge(real[:4] + 1)
    assert score == pytest.approx(2, rel=1e-6)
    # means 1.5 and 1, variances 1/3 and 4/5
    assert distance == pytest.approx(0.25 + (math.sqrt(1 / 3) - math.sqrt(4 / 5)) ** 2, rel=1e-9)


def test_the_judge_of_digits_tells_them_apart_and_noise_from_them():
    split = sources.digits(SHAPE)
    images, labels = (torch.cat(parts) for parts in zip(*((part[:], part.labels) for part in split), strict=True))
    judge = judge_pixels(images, labels, 1200)
    assert (judge.classify(images[1200:]).argmax(1) == labels[1200:]).double().mean() > 0.95
    good, bad = judge(images[1200:]), judge(torch.randint(256, images.shape, dtype=torch.uint8))
    assert good[0] > 7
    assert bad[0] < 4
    assert good[1] < 0.5
    assert bad[1] > 10


def test_the_average_spans_a_tenth_of_the_steps():
    """A weight that grows by 1 a step: its average, with the share 1 / (1 + k / 10) at step k, by recursion."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)

    def step(_):
        with torch.no_grad():
            net.weight.add_(1)

    racer, expected = Racer(net, step, lambda *_: None), 0.0
    for k in range(1, 201):
        racer.train(torch.empty(0))
        expected += (k - expected) / (1 + 0.1 * k)
    assert racer.average.weight.item() == pytest.approx(expected, rel=1e-5)
    assert 170 < expected < 190


def test_our_racer_learns_and_draws():
    racer, images = start_ours(config.load(["logger=off"], "edm_digits")), sources.digits(SHAPE)[0][:]
    before = racer.model.net.conv_out.weight.clone()
    for _ in range(3):  # the learning rate of the first is 0
        racer.train(images[: racer.batch])
    assert not torch.equal(before, racer.model.net.conv_out.weight)
    assert not torch.equal(racer.average.net.conv_out.weight, racer.model.net.conv_out.weight)
    drawn = racer.sample(racer.average, 3, 0)
    assert drawn.shape == (3, 1, 8, 8)
    assert drawn.dtype == torch.uint8


@pytest.mark.slow
def test_a_race_continues_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path / "cache"))
    bench.main(["quick=true", f"out={tmp_path}", "only=race"])
    first = json.loads((tmp_path / "benchmarks/results.json").read_text())["race"]
    assert first["left_out"] is None
    names = {row["name"].rpartition(",")[0] for row in first["tables"][0]["rows"]}
    assert {"score_lightning: ddpm_digits", "score_lightning: edm_digits", "score_lightning: ncsn_digits"} <= names
    for peer in ("diffusers", "denoising-diffusion-pytorch", "azula", "smalldiffusion"):
        lines = 2 if find_spec(peer.replace("-", "_")) else 0
        assert sum(name.startswith(peer) for name in names) == lines, names
    assert (tmp_path / "benchmarks/inception_score_of_digits_after_seconds_of_training.png").is_file()
    assert "| lowest to highest seed | note |" in (tmp_path / "benchmarks.md").read_text()
    monkeypatch.setattr(race, "_race", lambda *_: pytest.fail("it was measured before"))
    bench.main(["quick=true", f"out={tmp_path}", "only=race"])
    assert json.loads((tmp_path / "benchmarks/results.json").read_text())["race"]["tables"] == first["tables"]
