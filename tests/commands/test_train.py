"""train, eval and sample end to end on the digits, and what they answer to mistakes."""

import csv
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support import QUICK, UNET, assert_same_state, fails, finish_wandb, run, state
from torch.testing import assert_close

from score_lightning import checkpoint, cli, sample, train
from score_lightning import eval as evaluate
from score_lightning.errors import UserError
from score_lightning.generation.pictures import save_grid


def test_training_fills_its_run_folder(trained):
    found = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert found >= {
        "config.yaml", "metrics.csv", "metrics.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "checkpoints/best_fid.ckpt",
        "samples/step_0000002.png", "samples/step_0000004.png",
    }  # fmt: skip
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {key for row in rows for key, value in row.items() if value}
    assert {"train/loss", "val/loss", "train/lr", "eval/fid_classifier_30", "eval/is_classifier_30", "step"} <= columns
    assert sum(name.startswith("val_level/") for name in columns) == 10
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 4
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["settings"]["n"] == 30
    assert metrics["settings"]["sampler"] == {"name": "ddim", "steps": 3}
    assert "fid_classifier" in metrics


def test_checkpoints_are_plain_data_with_averaged_and_raw_weights(ckpt):
    contents = torch.load(ckpt, weights_only=True)
    assert contents["config"]["exp"] == "ddpm_digits"
    raw, average = (contents["state_dict"][f"{kind}.net.conv_out.weight"] for kind in ("model", "average.model"))
    assert not torch.equal(raw, average)
    model = checkpoint.load(ckpt)
    assert_close(model.net.conv_out.weight, average, rtol=0, atol=0)
    assert not model.training
    assert model.config == contents["config"]
    estimate = model(torch.zeros(2, 1, 8, 8), torch.tensor(500))
    assert estimate.score.shape == (2, 1, 8, 8)


# every level is seen ten times in the first step, so that the losses seen matter from the second on
IMPORTANCE = ["objective=variational_bound", "objective.importance=true", "schedule.levels=4"]


@pytest.mark.parametrize(
    "given",
    [
        [],
        pytest.param(["trainer.accumulate=2"], marks=pytest.mark.slow),
        pytest.param(IMPORTANCE, marks=pytest.mark.slow),
        pytest.param(["labels.classes=10"], marks=pytest.mark.slow),
    ],
    ids=["plain", "two", "importance", "labels"],
)
def test_resume_continues_as_if_nothing_had_happened(tmp_path, given):
    """From a finished run with more steps to do, and from the middle of a run; with dropout."""
    words = [
        "evaluation.n=0",
        "samples.n=0",
        "trainer.max_steps=6",
        "net.dropout=0.3",
        *given,
    ]
    whole = run(tmp_path, *words, "trainer.checkpoint_every=3")
    part = run(tmp_path, *words, "trainer.max_steps=3")
    from_end = run(tmp_path, *words, f"resume={part}/checkpoints/last.ckpt")
    from_middle = run(tmp_path, *words, f"resume={whole}/checkpoints/step_0000003.ckpt")
    for resumed in (from_end, from_middle):
        assert_same_state(state(whole), state(resumed))
    losses = [row["train/loss"] for row in csv.DictReader((from_middle / "metrics.csv").open()) if row["train/loss"]]
    every = [row["train/loss"] for row in csv.DictReader((whole / "metrics.csv").open()) if row["train/loss"]]
    assert losses == every


def test_resume_needs_no_experiment(ckpt, tmp_path):
    quick = [word for word in QUICK if not word.startswith("trainer.max_steps")]
    train.main([f"resume={ckpt}", *quick, f"out={tmp_path}", "trainer.max_steps=5", "evaluation.n=0"])
    assert state(tmp_path / "ddpm_digits/0")["global_step"] == 5


def test_the_same_seed_gives_the_same_weights_and_another_others(trained, tmp_path):
    quiet = ["evaluation.n=0", "samples.n=0"]  # neither takes part in training
    same, other = run(tmp_path, *quiet), run(tmp_path, *quiet, "seed=1")
    assert_same_state(state(trained), state(same))
    assert not torch.equal(
        state(other)["state_dict"]["model.net.conv_in.weight"], state(same)["state_dict"]["model.net.conv_in.weight"]
    )


@pytest.mark.slow
def test_a_few_images_are_learned_by_heart(tmp_path):
    """Overfit: the loss at a middling noise level falls far below what any model of unseen data could reach."""
    images = np.zeros((2, 8, 8), np.uint8)
    images[0, :4], images[1, :, :4] = 255, 255
    np.savez(tmp_path / "two.npz", images=images)
    folder = run(
        tmp_path,
        "data=npz",
        f"data.path={tmp_path}/two.npz",
        "data.validation=0.5",
        "trainer.max_steps=150",
        "evaluation.n=0",
        "samples.n=0",
        "ema.decay=0.9",
        "validation.every=150",
        "optimizer.warmup=10",
        "trainer.batch_size=64",
    )
    model = checkpoint.load(folder / "checkpoints/last.ckpt")
    x = torch.randn(8, 1, 8, 8)
    for i in range(2):  # one of the two was trained on: the model denoises to it
        exact = torch.from_numpy(images[i] / 127.5 - 1).float()[None, None]
        alpha, sigma = model.schedule(torch.tensor(500))
        error = (model(alpha.float() * exact + sigma.float() * x, torch.tensor(500)).x_0 - exact).square().mean()
        if error < 0.02:
            return
    pytest.fail("neither image was learned")


def test_sample_writes_pictures_and_numbers(ckpt, tmp_path):
    sample.main([f"ckpt={ckpt}", "n=7", f"out={tmp_path}/new/folder", "sampler=ddim", "sampler.steps=3"])
    images = np.load(tmp_path / "new/folder/samples.npz")["images"]
    assert images.shape == (7, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (tmp_path / "new/folder/samples.png").is_file()
    sample.main([f"ckpt={ckpt}", "n=3", f"out={tmp_path}", "batch_size=2", "sampler=ddim", "sampler.steps=3"])
    assert np.abs(np.load(tmp_path / "samples.npz")["images"].astype(int) - images[:3]).max() <= 1
    sample.main([f"ckpt={ckpt}", "n=3", f"out={tmp_path}", "seed=1", "sampler=ddim", "sampler.steps=3"])
    assert not np.array_equal(np.load(tmp_path / "samples.npz")["images"], images[:3])


def test_ncsn_trains_and_samples(tmp_path):
    folder = run(tmp_path, "sampler.steps=2", "preview=annealed_langevin", "preview.steps=1", exp="ncsn_digits")
    sample.main([f"ckpt={folder}/checkpoints/last.ckpt", "n=4", f"out={tmp_path}", "sampler.steps=2"])
    assert np.load(tmp_path / "samples.npz")["images"].shape == (4, 8, 8, 1)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_train_with_averages_in_float32(trained, tmp_path, precision):
    full, half = trained, run(tmp_path, f"trainer.precision={precision}", "evaluation.n=4", "samples.n=4")
    one, other = (
        [float(row["train/loss"]) for row in csv.DictReader((folder / "metrics.csv").open()) if row["train/loss"]]
        for folder in (full, half)
    )
    trained_in = state(half)["state_dict"]["model.net.conv_in.weight"].dtype
    assert trained_in == {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert (one != other) == (precision != "64-true")  # few digits more, of losses in float32
    assert other == pytest.approx(one, rel=0.05)
    weights = state(half)["state_dict"]["average.model.net.conv_in.weight"]
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, state(half)["state_dict"]["model.net.conv_in.weight"].float())


def test_wandb_is_written_offline_without_a_key(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = run(tmp_path, "logger.wandb=auto", "samples.n=4", "evaluation.n=0")
    finish_wandb()
    (record,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    contents = record.read_bytes()
    for key in (b"train/loss", b"val/loss", b"val_level/0000", b"train/lr", b"max_steps"):
        assert key in contents, key
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/samples/grid_*.png"))) == 2


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """The same global batches, times and noise; gradients differ by the order of their sums."""
    words = [*UNET, *QUICK, "trainer.accelerator=cpu", "optimizer.clip=null"]
    command = [sys.executable, "-m", "score_lightning.train", "exp=ddpm_digits", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run(tmp_path / "1", *words, "trainer.devices=1")
    given = ["trainer.devices=2", f"out={tmp_path / '2'}"]
    done = subprocess.run([*command, *given], env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / str(ranks) / "ddpm_digits/0" for ranks in (1, 2))
    assert_close(state(two)["state_dict"], state(one)["state_dict"], rtol=0, atol=2e-5)
    a, b = (json.loads((folder / "metrics.json").read_text()) for folder in (one, two))
    assert b["fid_classifier"] == pytest.approx(a["fid_classifier"], rel=0.02)
    grids = [np.asarray(Image.open(folder / "samples/step_0000004.png")).astype(int) for folder in (one, two)]
    assert np.abs(grids[0] - grids[1]).max() <= 2
    rows = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in (one, two)]
    assert len(rows[0]) == len(rows[1])


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_nodes_equal_one_process(tmp_path):
    """Two processes as torchrun starts them on two machines; one run folder, one log, one set of files."""
    words = ["trainer.accelerator=cpu", "optimizer.clip=null", "evaluation.n=0"]
    one = run(tmp_path / "one", *words)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    place = ["--master-addr=localhost", f"--master-port={port}", "-m", "score_lightning.train", "exp=ddpm_digits"]
    given = [*UNET, *QUICK, *words, f"out={tmp_path / 'two'}"]  # torchrun says how many processes and machines
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen([*program, f"--node-rank={i}", *place, *given], env=environment, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    for node in nodes:
        _, errors = node.communicate(timeout=180)
        assert node.returncode == 0, errors.decode()[-2000:]
    (two,) = (tmp_path / "two/ddpm_digits").iterdir()
    assert_close(state(two)["state_dict"], state(one)["state_dict"], rtol=0, atol=2e-5)
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (one, two)]
    assert names[0] == names[1]
    rows = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in (one, two)]
    for a, b in zip(*rows, strict=True):
        for key, value in a.items():
            assert b[key] == value or float(b[key]) == pytest.approx(float(value), rel=1e-4), key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "exp=NAME is missing; experiments: adm_imagenet128"),
        (["exp=ddpm"], "unknown experiment 'ddpm'"),
        (["exp=ddpm_digits", "trainer.max_steps=0"], "trainer.max_steps must be at least 1, got 0"),
        (["exp=ddpm_digits", "net.blook=3"], "did you mean blocks?"),
        (["exp=ddpm_digits", "data=folder"], "data.path=…"),
        (["exp=ddpm_digits", "data=folder", "data.path=/nowhere"], "/nowhere does not exist"),
        (["exp=ddpm_digits", "features=vgg"], "did you mean vgg16?"),
        (["exp=ddpm_digits", "features=inception", "features.weights=/nowhere.pth"], "/nowhere.pth cannot be read"),
        (["exp=ddpm_digits", "logger.wandb=maybe"], "logger.wandb must be"),
        (["exp=ddpm_digits", "trainer.precision=7"], "Lightning refuses"),
        (["exp=ddpm_digits", "trainer.accelerator=quantum"], "Lightning refuses"),
        (["exp=ddpm_digits", "ema.decay=2"], "ema.decay must lie between 0 and 1"),
        (["exp=ddpm_digits", "images.size=9"], "multiple of 4"),
        (["exp=ddpm_digits", "dry_run=maybe"], "dry_run takes a value of type bool"),
        (["exp=ddpm_digits", "resume=/nowhere.ckpt"], "there is no checkpoint /nowhere.ckpt"),
        (["exp=ddpm_digits", "optimizer.betas=[0.9]"], "two betas"),
        (["exp=ddpm_digits", "optimizer.betas=[0.9,1.5]"], "two betas"),
        (["exp=ddpm_digits", *UNET, "optimizer.muon=0.02"], "net unet does not name its hidden layers; net=unet_light"),
        (
            ["exp=ddpm_digits", "optimizer.muon=0.02", "trainer.precision=16-mixed"],
            "bf16-mixed, got 16-mixed",
        ),
        (["exp=ddpm_digits", "optimizer.muon=0.02", "trainer.precision=bf16-true"], "bf16-mixed, got bf16-true"),
        (["exp=toy_ddpm", "trainer.checkpointing=true"], "net mlp has no blocks to compute again"),
        (["exp=ddpm_digits", "evaluation.every=0"], "evaluation.every must be at least 1, or null, got 0"),
        (["exp=ddpm_digits", "validation.n=3"], "validation.n must be at least 10, got 3"),
        (["exp=ddpm_digits", "evaluation.metrics=[fid,swd]"], "must name some of fid, is, kid"),
        (["exp=ddpm_digits", "evaluation.n=3"], "precision_recall needs at least 4 images"),
        (["exp=ddpm_digits", "net=mlp"], "net mlp cannot take images of 8 pixels"),
        (["exp=ddpm_digits", "net.widths=[]"], "must be positive"),
        (["exp=ddpm_digits", "seed=100000000000000000000000"], "seed must be below"),
        (["exp=ddpm_digits", "data=folder", "data.path=/${x}"], "/${x} does not exist"),
    ],
)
def test_mistakes_in_training_leave_nothing_behind(tmp_path, words, message, capsys, monkeypatch):
    assert message in fails(train, [*words, "logger=off", f"out={tmp_path}/runs"], capsys, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_wandb_online_needs_a_key(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    words = ["exp=ddpm_digits", "logger=online", "evaluation.n=0", f"out={tmp_path}/runs"]
    assert "logger.wandb=online needs a key" in fails(train, words, capsys, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_resuming_what_cannot_go_on_is_refused(ckpt, tmp_path, capsys, monkeypatch):
    words = [f"resume={ckpt}", f"out={tmp_path}/runs", "logger=off"]
    assert "has done 4 steps: trainer.max_steps must be more" in fails(train, words, capsys, monkeypatch)
    other = [*words, "exp=ddpm_digits", "net.blocks=2"]
    assert "belongs to another network" in fails(train, other, capsys, monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_pictures_and_metrics_in_training_are_of_the_averaged_weights(trained, ckpt, tmp_path):
    """The grid and the numbers of the last step equal those of the checkpoint's averaged weights."""
    sample.main([f"ckpt={ckpt}", "n=5", f"out={tmp_path}", "sampler=ddim", "sampler.steps=3"])
    drawn = torch.from_numpy(np.load(tmp_path / "samples.npz")["images"]).permute(0, 3, 1, 2)
    ours = np.asarray(Image.open(save_grid(drawn, tmp_path / "grid.png"))).astype(int)
    theirs = np.asarray(Image.open(trained / "samples/step_0000004.png")).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    evaluate.main([f"ckpt={ckpt}", "n=30", f"out={tmp_path}", "sampler=ddim", "sampler.steps=3"])
    again, first = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, trained))
    assert again["fid_classifier"] == pytest.approx(first["fid_classifier"], rel=1e-3)


def test_a_file_in_place_of_the_run_folder_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "runs").write_text("text")
    message = fails(
        train, ["exp=ddpm_digits", "logger=off", "evaluation.n=0", f"out={tmp_path}/runs"], capsys, monkeypatch
    )
    assert "a file is in the way" in message


def test_checkpoints_that_are_not_ours_are_refused(ckpt, tmp_path, capsys, monkeypatch):
    (tmp_path / "cut.ckpt").write_bytes(ckpt.read_bytes()[:5000])
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").write_text("")
    torch.save({"model": torch.zeros(1)}, tmp_path / "other.ckpt")

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"config": {}, "state_dict": Code()}, tmp_path / "code.ckpt")
    torch.save({"config": None, "state_dict": {}}, tmp_path / "none.ckpt")
    torch.save({"config": {}, "state_dict": []}, tmp_path / "list.ckpt", _use_new_zipfile_serialization=False)
    before = sorted(tmp_path.iterdir())
    for name in ("cut", "text", "empty", "other", "code", "none", "list"):
        for entry in (evaluate, sample):
            message = fails(entry, [f"ckpt={tmp_path}/{name}.ckpt", "n=2"], capsys, monkeypatch)
            assert f"{name}.ckpt is" in message
        assert "score_lightning" in fails(train, [f"resume={tmp_path}/{name}.ckpt"], capsys, monkeypatch)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "ckpt=… is missing"),
        (["ckpt=/nowhere.ckpt"], "there is no checkpoint /nowhere.ckpt"),
        (["ckpt=CKPT", "n=0"], "must be at least 1"),
        (["ckpt=CKPT", "n=many"], "n takes a value of type int, got 'many'"),
        (["ckpt=CKPT", "sampler=dim"], "did you mean ddim?"),
        (["ckpt=CKPT", "sampler.stepz=3"], "did you mean steps?"),
        (["ckpt=CKPT", "sampler.steps=2000"], "whole number between 1 and the schedule's 1000 levels"),
        (["ckpt=CKPT", "device=warp"], "device=warp cannot be used"),
        (["ckpt=CKPT", "net.channels=16"], "do not fit its network"),
    ],
)
def test_mistakes_in_sampling_get_one_message(words, message, ckpt, tmp_path, capsys, monkeypatch):
    words = [word.replace("CKPT", str(ckpt)) for word in words]
    assert message in fails(sample, [*words, f"out={tmp_path}/out"], capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_configuration_and_the_parameters(capsys, tmp_path):
    train.main(["exp=ncsn_cifar", "dry_run=true", f"out={tmp_path}/runs"])
    shown = capsys.readouterr().out
    assert "parameters: 30117635" in shown.splitlines()
    assert "sigma_min: 0.01" in shown
    assert not (tmp_path / "runs").exists()


def test_words_of_a_command_are_taken_apart():
    own, rest = cli.split_arguments(["n=3", "out=7", "seed=1"], {"n": int, "out": str})
    assert own == {"n": 3, "out": "7"}
    assert rest == ["seed=1"]
    with pytest.raises(UserError, match="n takes a value of type int"):
        cli.split_arguments(["n=true"], {"n": int})


@pytest.mark.parametrize(
    "words",
    [
        ["schedule=vp", "sampler=euler_maruyama", "preview=predictor_corrector"],
        ["schedule=edm", "prediction=edm", "conditioning=edm", "objective.weight=edm", "objective.times=log_normal",
         "sampler=heun", "sampler.churn=10.0", "preview=dpm_solver"],
        ["schedule=ve", "conditioning=log_sigma", "objective=sliced", "sampler=reverse_diffusion", "preview=heun"],
        ["objective=variational_bound", "prediction=x_0", "preview=ddim"],
        ["objective=hybrid", "objective.importance=true", "net.learned_variance=true", "sampler.variance=learned"],
        pytest.param(
            ["schedule=vp", "sampler=probability_flow", "sampler.rtol=0.01", "preview=probability_flow"],
            marks=pytest.mark.slow,
        ),
        ["schedule=sub_vp", "objective.weight=likelihood", "objective.times=importance", "preview=dpm_solver"],
        ["continuous=true", "objective=consistency", "sampler=multistep", "preview=multistep"],
    ],
    ids=["vp", "edm", "ve_sliced", "bound", "hybrid", "flow", "sub_vp", "consistency"],
)  # fmt: skip
def test_methods_train_and_sample(tmp_path, words):
    folder = run(tmp_path, *words, "sampler.steps=4", "preview.steps=4", "evaluation.n=4", "samples.n=4")
    sample.main([f"ckpt={folder}/checkpoints/last.ckpt", "n=4", f"out={tmp_path}"])
    images = np.load(tmp_path / "samples.npz")["images"]
    assert images.shape == (4, 8, 8, 1)
    assert images.std() > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective=implicit", "images.size=32"], "of 1024 dimensions takes 1024 backward passes"),
        (["objective.weight=likelihood"], "objective: discrete levels have no SDE"),
        (["objective=consistency"], "objective: consistency compares times"),
        (["sampler=euler_maruyama"], "sampler: discrete levels have no SDE"),
        (["preview=euler_maruyama"], "preview: discrete levels have no SDE"),
        (["schedule=vp", "conditioning=level"], "visits the levels of a discrete schedule only"),
        (["sampler=predictor_corrector", "sampler.predictor=rk4"], "predictor must be one of"),
    ],
)
def test_pairs_that_make_no_sense_are_refused_when_the_run_is_built(tmp_path, words, message, capsys, monkeypatch):
    given = ["exp=ddpm_digits", *words, "logger=off", "evaluation.n=0", f"out={tmp_path}/runs"]
    assert message in fails(train, given, capsys, monkeypatch)
    assert list(tmp_path.iterdir()) == []
