"""run.json says what was trained, on what, for how long; its times add up over resumes."""

import json

import pytest
import torch
from support import QUICK, run

from score_lightning import checkpoint, train
from score_lightning.evaluation.provenance import commit, versions
from score_lightning.training.record import TIMES

BARE = ["evaluation.n=0", "samples.n=0", "trainer.checkpoint_every=1"]


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_records_what_was_trained_and_how_long_it_took(trained):
    written, model = record(trained), checkpoint.load(trained / "checkpoints/last.ckpt")
    expected = {
        "experiment": "ddpm_digits", "data": "digits", "training_images": 1617, "validation_images": 180,
        "batch_size": 16, "steps": 4, "max_steps": 4, "processes": 1, "nodes": 1, "device": "cpu",
        "threads_per_process": torch.get_num_threads(), "commit": commit(), "precision": "32-true",
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    assert {name: written[name] for name in expected} == {**expected, "precision": written["precision"]}
    assert written["precision"] in ("32-true", "bf16-mixed")
    assert written["processor"]
    assert written["versions"] == versions()
    assert 0 < written["training_seconds"] < written["wall_seconds"]  # there was an evaluation
    assert written["processor_seconds"] > 0
    (session,) = written["sessions"]
    assert (session["first_step"], session["last_step"]) == (0, 4)
    assert session["wall_seconds"] == written["wall_seconds"]


def test_times_of_a_resumed_run_add_up(tmp_path):
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    first = record(folder)
    assert run(tmp_path, *BARE, "trainer.max_steps=5", "resume=auto") == folder
    written = record(folder)
    before, after = written["sessions"]
    assert before == first["sessions"][0]
    assert (after["first_step"], after["last_step"]) == (2, 5)
    assert written["steps"] == written["max_steps"] == 5
    for name in TIMES:
        assert written[name] == pytest.approx(before[name] + after[name], abs=2e-3)
    assert after["wall_seconds"] > 0


def test_checkpoints_hold_the_record_of_their_step(tmp_path):
    folder = run(tmp_path, *BARE, "trainer.max_steps=3")
    held = [torch.load(folder / f"checkpoints/step_000000{k}.ckpt", weights_only=True)["run"] for k in (2, 3)]
    assert [one["steps"] for one in held] == [2, 3]
    assert held[0]["wall_seconds"] < held[1]["wall_seconds"]
    assert held[1] == record(folder)


def test_a_run_resumes_from_a_checkpoint_without_record(tmp_path):
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    path = folder / "checkpoints/last.ckpt"
    contents = torch.load(path, weights_only=True)
    del contents["run"]
    torch.save(contents, tmp_path / "old.ckpt")
    train.main([f"resume={tmp_path / 'old.ckpt'}", *QUICK, *BARE, "trainer.max_steps=3", f"out={tmp_path / 'new'}"])
    (session,) = record(tmp_path / "new/ddpm_digits/0")["sessions"]
    assert (session["first_step"], session["last_step"]) == (2, 3)


def test_a_run_goes_on_where_the_record_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("score_lightning.training.record.write_text", full)
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert not (folder / "run.json").exists()
