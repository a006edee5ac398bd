"""The command that trains, evaluates and keeps results."""

import json
import os
import shutil
from pathlib import Path

import pytest

from score_lightning.bench import results
from score_lightning.errors import UserError


def test_other_settings_have_other_folders(tmp_path):
    plans = [
        results.Plan("x", "ddpm_digits", overrides, tmp_path, n)
        for overrides, n in [
            (["sampler.steps=5"], None), (["sampler.steps=5"], 40), ([], None), ([], 40), (["optimizer.lr=1"], None),
        ]
    ]  # fmt: skip
    assert len({plan.training(0).out for plan in plans}) == len(plans)
    again = results.Plan("x", "ddpm_digits", ["sampler.steps=5"], tmp_path)
    assert again.training(0).out == plans[0].training(0).out != again.training(1).out


def of_images(monkeypatch, sha256):
    """Lets each training leave a run of reference images with this hash; returns a plan."""

    def record(_, seed):
        settings = {"n": 1000, "reference_sha256": sha256}
        return {"seed": seed, "training": {"wall_seconds": 1.0}, "evaluation": {"settings": settings}}

    monkeypatch.setattr(results.Plan, "record", record)
    monkeypatch.setattr(results.Plan, "train", lambda *_: None)
    monkeypatch.setattr(results.Plan, "keep", lambda *_: None)
    return results.Plan("x", "flow_digits", ["data=folder", f"data.path=/{sha256}/train"], Path())


def test_runs_of_other_images_are_not_mixed_and_it_is_said(tmp_path, monkeypatch, capsys):
    of_images(monkeypatch, "cats").write([0, 1], "", tmp_path)
    assert capsys.readouterr().out == ""
    of_images(monkeypatch, "cats").write([2], "", tmp_path)
    assert [one["seed"] for one in json.loads((tmp_path / "x.json").read_text())["runs"]] == [0, 1, 2]
    of_images(monkeypatch, "dogs").write([2], "", tmp_path)
    assert [one["seed"] for one in json.loads((tmp_path / "x.json").read_text())["runs"]] == [2]
    assert capsys.readouterr().out.count("is left out, since it has other settings or data") == 2


def test_an_evaluation_by_other_settings_is_made_again(tmp_path, monkeypatch):
    run, made = tmp_path / "run", []
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").write_text("")
    plan = results.Plan("x", "flow_digits", [], tmp_path)
    asked = {"n": 1000, "seeds": [0], "sampler": plan.config.plain()["sampler"], "weights": "ema", "checkpoint": "x"}

    def evaluate(*options):
        made.append(options[2:])
        (run / "metrics.json").write_text(json.dumps({"settings": asked}))
        return 0

    monkeypatch.setattr(results, "run_command", evaluate)
    os.utime(run / "checkpoints/last.ckpt", (1, 1))
    plan.evaluate(run)
    plan.evaluate(run)
    assert made == [("n=1000", "seeds=[0]")]
    for key, value in {"n": 40, "seeds": [1], "sampler": {"name": "heun", "steps": 2}, "weights": "raw"}.items():
        (run / "metrics.json").write_text(json.dumps({"settings": {**asked, key: value}}))
        assert plan.evaluate(run)["settings"] == asked
    (run / "metrics.json").write_text(json.dumps({"settings": {k: asked[k] for k in asked if k != "checkpoint"}}))
    plan.evaluate(run)  # that was the evaluation within the training
    assert len(made) == 6


def test_weights_are_exported_again_after_a_longer_training(tmp_path, monkeypatch):
    run_folder, out, exported = tmp_path / "run", tmp_path / "docs", []
    (run_folder / "checkpoints").mkdir(parents=True)
    out.mkdir()
    for name in ("checkpoints/last.ckpt", "samples.png", "metrics.json"):
        (run_folder / name).write_text("")

    def export(*options):
        folder = Path(options[-1].partition("=")[2])
        folder.mkdir(parents=True)
        exported.append(folder)
        for name in ("model.safetensors", "README.md"):
            (folder / name).write_text(str(len(exported)))
        return 0

    monkeypatch.setattr(results, "run_command", export)
    plan = results.Plan("x", "flow_digits", [], tmp_path)
    os.utime(run_folder / "metrics.json", (1, 1))
    plan.keep(run_folder, out)
    plan.keep(run_folder, out)
    assert (out / "x/model.safetensors").read_text() == "1"
    os.utime(run_folder / "metrics.json", (2**33, 2**33))
    plan.keep(run_folder, out)
    assert (out / "x/model.safetensors").read_text() == "2"
    monkeypatch.setattr(results, "LARGEST", 1)
    plan.keep(run_folder, out)
    assert not (out / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["exp=ddpm_digits", "n=0"], "n must be at least 2 images, got 0"),
        (["exp=ddpm_digits", "name=a/b"], "name=a/b must be the name of a file"),
        (["exp=ddpm_digits", "license=none"], "license=none is not"),
        (["exp=toy_rings"], "exp=toy_rings is of points"),
        (["exp=ddpm_digits", "seeds=[0,0]"], "seeds must be different whole numbers"),
        (["exp=ddpm_digits", "trainer.max_step=3"], "max_step"),
        (["trainer.max_steps=3"], "exp=NAME is missing"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        results.main([*words, f"out={tmp_path / 'docs'}", f"runs={tmp_path / 'runs'}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_trains_evaluates_keeps_weights_and_does_nothing_twice(tmp_path):
    words = [
        "exp=ddpm_digits", "name=quick", "seeds=[0,1]", "n=40", "trainer.max_steps=4", "validation.n=100",
        "samples.n=4", "evaluation.n=0", f"out={tmp_path / 'docs'}", f"runs={tmp_path / 'runs'}",
    ]  # fmt: skip
    results.main(words)
    folder = tmp_path / "docs" / "results"
    record = json.loads((folder / "quick.json").read_text())
    assert [one["seed"] for one in record["runs"]] == [0, 1]
    first, second = (one["evaluation"]["fid_classifier"] for one in record["runs"])
    assert first != second
    assert str(tmp_path) not in (folder / "quick.json").read_text()
    assert {"model.safetensors", "config.json"} <= {path.name for path in (folder / "quick").iterdir()}
    assert "## quick" in (tmp_path / "docs" / "results.md").read_text()
    before = {path: path.stat().st_mtime for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    shutil.rmtree(tmp_path / "docs")
    results.main(words)
    assert json.loads((folder / "quick.json").read_text()) == record
    assert {path: path.stat().st_mtime for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
    results.main([*words, "seeds=[2]"])
    third = json.loads((folder / "quick.json").read_text())["runs"]
    assert third[:2] == record["runs"]
    assert [one["seed"] for one in third] == [0, 1, 2]
