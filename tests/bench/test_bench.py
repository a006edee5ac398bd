"""The benchmarks run, and what they write is right; how fast anything is is not asked here."""

import json
from dataclasses import replace

import pytest
import torch
from support import fails

from score_lightning import config
from score_lightning.bench import __main__ as bench
from score_lightning.bench import memory, ours, processes, scaling, startup, tables
from score_lightning.bench import trainer as loop
from score_lightning.bench.settings import Settings, sizes
from score_lightning.bench.timing import Timing, alternate
from score_lightning.data.images import ImageSet
from score_lightning.experiment import trainer
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.tracking.dashboard import training_flops


@pytest.fixture
def in_process(monkeypatch):
    """Suites with processes of their own, in this one."""
    size = sizes(Settings(quick=True))[0]
    monkeypatch.setattr(memory, "_ask", lambda name, batch, settings: memory.measure(name, size, "cpu"))
    monkeypatch.setattr(processes, "_ask", lambda n, settings: processes.measure(1, quick=True) / n)
    monkeypatch.setattr(startup, "_command", lambda *words: lambda: None)


def test_alternatives_take_turns_and_may_measure_themselves():
    calls = []
    timings = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b") or 2.0}, repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert timings["b"] == Timing((2.0, 2.0, 2.0))
    assert len(timings["a"].seconds) == 3


def test_quartiles_of_a_timing():
    assert Timing((4.0, 1.0, 2.0, 3.0, 5.0)).median == 3
    assert Timing((4.0, 1.0, 2.0, 3.0, 5.0)).quartiles == (2, 4)


def test_ratios_are_to_the_fastest_peer_that_does_the_same():
    rows = [
        tables.Row("ours", 2.0),
        tables.Row("same", 4.0, peer=True),
        tables.Row("slow", 5.0, peer=True),
        tables.Row("other", 1.0, peer=True, same=False),
    ]
    assert tables.Table("t", "ms", rows).ratio(rows[0]) == 0.5
    assert tables.Table("t", "images/s", rows, more=True).ratio(rows[0]) == 0.4
    assert tables.Table("t", "ms", rows[:1]).ratio(rows[0]) is None


def test_bounds_say_whether_they_are_met():
    assert str(tables.Bound("ratio", 0.9, 0.95)) == "ratio 0.9 ≤ 0.95: met"
    assert str(tables.Bound("speed", 1.5, 1.85, least=True)) == "speed 1.5 ≥ 1.85: **not met**"


def test_a_table_is_the_same_after_json():
    curves = [tables.Curves("x", "y", {"a": [(1.0, 2.0)]})]
    row = tables.timed("a", Timing((1.0, 2.0)), bounds=(tables.Bound("b", 1.0, 2.0),))
    table = tables.Table("t", "ms", [row], curves=curves, note="n")
    read = tables.read(json.loads(json.dumps(table.plain())))
    assert read.markdown() == table.markdown()
    assert read.plain() == json.loads(json.dumps(table.plain())) | {"rows": read.plain()["rows"]}


@pytest.mark.parametrize("which", [0, 1])
def test_the_step_is_that_of_train(which):
    size = sizes(Settings(quick=True))[which]
    mine, theirs = ours.build_module(size), TrainingExperiment(size.resolved).module
    assert [p.stride() for p in mine.parameters()] == [p.stride() for p in theirs.parameters()]
    assert mine._adam == theirs._adam
    assert mine._augmentation == theirs._augmentation
    assert (mine.average._decay, mine.average._warmup) == (theirs.average._decay, theirs.average._warmup)
    assert torch.equal(*(module.model.schedule(torch.arange(1000))[1] for module in (mine, theirs)))


def test_bare_steps_are_those_of_a_training(tmp_path):
    size = replace(sizes(Settings(quick=True))[1], batch=1)
    mine, theirs = ours.build_module(size), TrainingExperiment(size.resolved).module
    mine.load_state_dict(theirs.state_dict())
    step = ours.build_step(size, "32-true", "cpu", mine)
    for _ in range(4):
        step()
    resolved = loop.configure(size, 4, tmp_path)
    images = ImageSet(size.images()), ImageSet(size.images())
    experiment = TrainingExperiment(resolved, split=images)
    trainer.build_trainer(experiment, []).fit(theirs, experiment.data)
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_all_suites_run(tmp_path, ckpt, in_process, capsys):  # noqa: ARG001
    bench.main(["quick=true", f"out={tmp_path}", f"digits={ckpt}"])
    page = (tmp_path / "benchmarks.md").read_text()
    results = json.loads((tmp_path / "benchmarks/results.json").read_text())
    assert list(results) == list(bench.USUAL)
    left = {name: result["left_out"] for name, result in results.items() if result["left_out"]}
    assert left in ({}, {"processes": "it needs at least two cores"})
    assert all(result["tables"] or result["left_out"] for result in results.values())
    assert all(f"## {name}\n" in page for name in bench.USUAL)
    pictures = {path.name for path in (tmp_path / "benchmarks").glob("*.png")}
    assert len(pictures) > 15
    assert all(f"(benchmarks/{name})" in page for name in pictures)


def test_a_suite_that_is_left_out_says_why_and_keeps_the_others(tmp_path, capsys):
    arguments = ["quick=true", f"out={tmp_path}"]
    bench.main([*arguments, "only=trace"])
    bench.main([*arguments, "only=quality"])
    page = (tmp_path / "benchmarks.md").read_text()
    assert "make train EXP=ddpm_digits" in page
    assert "### Trace of the Jacobian" in page
    assert "left out" in capsys.readouterr().out


def test_missing_packages_and_failures_stop_one_suite_only(tmp_path, monkeypatch, capsys):
    from score_lightning.bench import trace
    from score_lightning.errors import UserError

    def lacks(_):
        raise ModuleNotFoundError("No module named 'torchode'", name="torchode")

    monkeypatch.setattr(trace, "run", lacks)
    bench.main(["quick=true", f"out={tmp_path}", "only=trace"])
    assert "the package torchode is not installed" in (tmp_path / "benchmarks.md").read_text()
    monkeypatch.setattr(trace, "run", lambda settings: 1 / 0)
    with pytest.raises(UserError, match="failed: trace"):
        bench.main(["quick=true", f"out={tmp_path}", "only=trace"])
    assert "division by zero" in capsys.readouterr().err


def test_mistakes_are_answered(capsys, monkeypatch):
    assert "did you mean steps?" in fails(bench, ["only=step"], capsys, monkeypatch)
    assert "did you mean quick?" in fails(bench, ["quik=true"], capsys, monkeypatch)
    assert "no such file" in fails(bench, ["digits=none.ckpt"], capsys, monkeypatch)
    assert "cpu or cuda" in fails(bench, ["device=gpu"], capsys, monkeypatch)


def test_costs_on_paper():
    cost = scaling.Cost("ddpm_cifar", parameters=10**6, flops=3e9, batch=64, steps=1000)
    assert cost.message(8) == pytest.approx(2 * 7 / 8 * 4e6 / 300e9)
    assert cost.step(8, 0.5) == pytest.approx(8 * 3e9 / 156e12)
    assert cost.efficiency(8, 0.5, batch=10**6) == 1  # the message is sent while it computes
    assert cost.efficiency(64, 0.5) < 0.1
    assert cost.hours(0.5) == pytest.approx(64 * 1000 * 3e9 / 156e12 / 3600)
    measured = scaling.cost_of(config.load([], "ddpm_digits"))
    counted = training_flops(Experiment(config.load([], "ddpm_digits")).model, (1, 8, 8))
    assert (measured.flops, measured.batch, measured.steps) == (counted, 64, 1600)
    assert "| ddpm_cifar | 1.0 | 3.0 | 64 | 1,000 |" in scaling.page([cost], 0.3)
