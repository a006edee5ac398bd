"""What Weights & Biases keeps of a run, read back from its offline record."""

import os
import signal
import struct
import subprocess
import sys

import pytest
import torch
from conftest import QUICK, run
from torch.utils.flop_counter import FlopCounterMode

from score_lightning import build, config
from score_lightning.dashboard import IDENTITY, training_flops
from score_lightning.errors import Stopped
from score_lightning.training import ScoreModule


def records(path):
    """The records of a .wandb file: parts in blocks of 32 KiB, each with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        if kind == 0:
            break
        parts = (parts if kind in (3, 4) else b"") + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record


def kept(folder):
    """(identities, steps of each record with its keys, names of summary metrics) of all offline records of a run."""
    identities, steps, defined = set(), [], {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(path):
            if record.HasField("run"):
                identities.add(record.run.run_id)
            if record.HasField("metric"):
                defined[record.metric.name or record.metric.glob_name] = record.metric
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                steps.append((int(float(items.get("trainer/global_step", -1))), items))
    return identities, steps, defined


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield [
        "logger=offline",
        "trainer.max_steps=6",
        "validation.every=2",
        "samples.every=3",
        "evaluation.n=12",
        "trainer.log_every=2",
    ]
    import wandb

    wandb.teardown()  # waits until all is written


def test_a_stopped_run_is_one_run_whose_steps_grow(offline, tmp_path, monkeypatch):
    import wandb

    step = ScoreModule.training_step

    def signalled(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ScoreModule, "training_step", signalled)
    with pytest.raises(Stopped):
        run(tmp_path, *offline)
    wandb.teardown()  # waits until all is written
    monkeypatch.setattr(ScoreModule, "training_step", step)
    folder = run(tmp_path, *offline, "resume=auto")
    wandb.teardown()  # waits until all is written
    identities, steps, defined = kept(folder)
    assert identities == {(folder / IDENTITY).read_text().strip()}
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    order = [number for number, items in steps if "train/loss" in items]
    assert order == sorted(order) == [1, 3, 5]
    keys = {key for _, items in steps for key in items}
    assert {"train/loss", "val/loss", "val_level/0000", "lr-Adam", "eval/fid_classifier_12"} <= keys
    assert any(key.startswith("val/by_level") for key in keys)
    assert {"speed/images_per_second", "samples"} <= {key.split("/_")[0] for key in keys}
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/samples_*.png"))) == 2
    assert defined["val/loss"].summary.min
    assert defined["eval/is_*"].summary.max


def test_no_connection_and_a_wrong_key_never_stop_a_run(tmp_path, monkeypatch, capsys):
    import wandb

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:9")  # nobody is there
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    folder = run(tmp_path, "logger=online", "evaluation.n=0", "samples.n=0")
    wandb.teardown()  # waits until all is written
    assert (folder / "checkpoints/last.ckpt").is_file()
    printed = capsys.readouterr()
    assert "0000000000" not in printed.out + printed.err + (folder / "config.yaml").read_text()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("prediction", ["eps", "v", "score", "edm"])
def test_flops_are_those_of_forward_and_backward(prediction):
    resolved = config.load([f"prediction={prediction}"], "ddpm_digits")
    model = build.build_model(resolved)
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(1, 1, 8, 8), model.schedule.times(1)).eps.square().mean().backward()
    assert training_flops(model, (1, 8, 8)) == counter.get_total_flops()


def test_two_processes_are_one_run(tmp_path):
    words = ["trainer.accelerator=cpu", "trainer.devices=2", "evaluation.n=0", "samples.n=0", "logger=offline"]
    # without what W&B tells processes of its own
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
    program = [sys.executable, "-m", "score_lightning.train", "exp=ddpm_digits", *QUICK, *words, f"out={tmp_path}"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "ddpm_digits").iterdir()
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    identities, steps, _ = kept(folder)
    assert identities == {(folder / IDENTITY).read_text().strip()}
    assert [number for number, items in steps if "train/loss" in items] == [0, 1, 2, 3]
