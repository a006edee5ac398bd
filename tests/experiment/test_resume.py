"""What resume=auto takes for the same run, and what a resumed training is trained with."""

import csv
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from support import fails, run, state

from score_lightning import train
from score_lightning.config.schema import Config
from score_lightning.experiment.resume import ANY_RUN, SAME_RUN
from score_lightning.training.optimizer import AdamSettings

BARE = ["samples.n=0", "evaluation.n=0", "trainer.checkpoint_every=2"]


def write(root, *names, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / name)


def edit(folder, change):
    """Changes the contents of the only checkpoint that is left of a run."""
    contents = state(folder)
    change(contents)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    torch.save(contents, folder / "checkpoints/last.ckpt")


def test_the_list_names_settings_that_there_are():
    sections = {f.name: f.type for f in fields(Config)}
    for key in (*SAME_RUN, *ANY_RUN):
        section, _, name = key.partition(".")
        assert section in sections
        assert not name or not is_dataclass(sections[section]) or name in {f.name for f in fields(sections[section])}
    free = set(sections) - {key.partition(".")[0] for key in SAME_RUN}
    of_samples = {"sampler", "preview", "guide", "guidance", "guidance_interval"}
    assert free == {"exp", "out", *of_samples, "features", "validation", "samples", "evaluation", "logger"}


def test_a_resumed_training_takes_the_settings_it_is_given(tmp_path, capsys):
    first = run(tmp_path, *BARE, "trainer.max_steps=2")
    words = ["optimizer.lr=0.5", "optimizer.betas=[0.5,0.6]", "optimizer.eps=0.1", "optimizer.weight_decay=0.3"]
    given = ["optimizer.warmup=8", "trainer.max_steps=4", f"resume={first}/checkpoints/last.ckpt"]
    second = run(tmp_path, *BARE, *words, *given)
    group = state(second)["optimizer_states"][0]["param_groups"][0]
    settings = {key: group[key] for key in ("initial_lr", "betas", "eps", "weight_decay")}
    assert settings == {"initial_lr": 0.5, "betas": (0.5, 0.6), "eps": 0.1, "weight_decay": 0.3}
    with (second / "metrics.csv").open(encoding="utf-8") as file:
        rates = {row["step"]: float(row["train/lr"]) for row in csv.DictReader(file) if row.get("train/lr")}
    assert list(rates.values())[-2:] == [0.5 * 2 / 8, 0.5 * 3 / 8]  # of the third and the fourth step
    said = capsys.readouterr().out
    assert "optimizer.lr 0.002, not 0.5" in said
    assert "optimizer.betas [0.9, 0.999], not [0.5, 0.6]" in said


def test_new_settings_of_adam_are_those_of_a_new_one():
    weights = [torch.nn.Parameter(torch.ones(3))]
    old = torch.optim.Adam(weights, 0.1, (0.9, 0.9), 1e-3, 0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(old, AdamSettings(0.1).factor)
    settings = AdamSettings(0.2, (0.8, 0.7), 1e-4, 0.1, warmup=4)
    settings.replace(old, schedule)
    new = torch.optim.Adam(weights, 0.2, (0.8, 0.7), 1e-4, 0.1)
    torch.optim.lr_scheduler.LambdaLR(new, settings.factor)
    assert {**old.param_groups[0], "params": 0} == {**new.param_groups[0], "params": 0}
    assert schedule.get_last_lr() == [0.0]


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "data", *(f"{i}.png" for i in range(20)))
    return tmp_path / "data"


def test_moved_data_are_the_same(data, tmp_path, capsys):
    words = ["data=folder", "resume=auto", *BARE, "trainer.max_steps=2"]
    first = run(tmp_path / "runs", *words, f"data.path={data}")
    data.rename(tmp_path / "moved")
    assert run(tmp_path / "runs", *words, f"data.path={tmp_path / 'moved'}") == first
    assert "has done all its steps" in capsys.readouterr().out
    longer = [*words[:-1], "trainer.max_steps=4", f"data.path={tmp_path / 'moved'}"]
    assert run(tmp_path / "runs", *longer) == first


@pytest.mark.parametrize("change", ["path", "added"])
def test_other_data_are_another_run(change, data, tmp_path, capsys):
    words = ["data=folder", "resume=auto", *BARE]
    first = run(tmp_path / "runs", *words, "trainer.max_steps=2", f"data.path={data}")
    before = (first / "config.yaml").read_text(encoding="utf-8")
    other = data if change == "added" else tmp_path / "other"
    write(other, *(f"{i}.png" for i in range(21 if change == "added" else 20)), seed=1)
    Image.new("L", (8, 8)).save(other / "0.png")  # of another size in bytes
    for steps, folder in ((2, "1"), (4, "1")):
        assert run(tmp_path / "runs", *words, f"trainer.max_steps={steps}", f"data.path={other}").name == folder
    said = capsys.readouterr().out
    assert f"has other images than {other}" in said
    assert (first / "config.yaml").read_text(encoding="utf-8") == before


def test_data_of_older_runs_are_known_by_their_path(data, tmp_path, capsys):
    words = ["data=folder", "resume=auto", *BARE, "trainer.max_steps=2"]
    first = run(tmp_path / "runs", *words, f"data.path={data}")
    edit(first, lambda contents: contents.pop("data"))
    assert run(tmp_path / "runs", *words, f"data.path={data.parent / '.' / 'data'}") == first
    data.rename(tmp_path / "moved")
    assert run(tmp_path / "runs", *words, f"data.path={tmp_path / 'moved'}") != first
    assert f"has data.path {data}, not {tmp_path / 'moved'}" in capsys.readouterr().out


def test_other_arrays_are_another_run(tmp_path, capsys):
    for name in "ab":
        images = np.random.default_rng(ord(name)).integers(0, 256, (20, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images)
    words = ["data=npz", "resume=auto", *BARE, "trainer.max_steps=2"]
    first = run(tmp_path / "runs", *words, f"data.path={tmp_path}/a.npz")
    assert run(tmp_path / "runs", *words, f"data.path={tmp_path}/b.npz") != first
    (tmp_path / "a.npz").rename(tmp_path / "c.npz")
    capsys.readouterr()
    run(tmp_path / "runs", *words, f"data.path={tmp_path}/c.npz")
    assert f"{first}/checkpoints/step_0000002.ckpt has done all its steps" in capsys.readouterr().out


def test_other_batches_are_another_run(tmp_path, capsys):
    words = ["resume=auto", *BARE, "trainer.max_steps=2"]
    first = run(tmp_path, *words)
    assert run(tmp_path, *words, "trainer.batch_size=8") != first
    assert "has trainer.batch_size 16, not 8" in capsys.readouterr().out


def test_classes_in_another_order_are_refused(tmp_path, capsys, monkeypatch):
    write(tmp_path / "data", *(f"{i}/{j}.png" for i in (1, 2, 10) for j in range(8)))
    words = ["data=folder", f"data.path={tmp_path / 'data'}", "labels.classes=3", *BARE, "trainer.max_steps=2"]
    first = run(tmp_path / "runs", *words)
    edit(first, lambda contents: contents.pop("data"))  # from before names were kept: 1, 10, 2
    again = ["exp=ddpm_digits", f"resume={first}/checkpoints/last.ckpt", *words[:-1], "trainer.max_steps=4"]
    said = fails(train, [*again, "logger=off", f"out={tmp_path / 'runs'}"], capsys, monkeypatch)
    assert "numbers the classes 1, 10, 2, the images 1, 2, 10: start anew" in said
