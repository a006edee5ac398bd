"""What Weights & Biases keeps of a run, read back from its offline record."""

import csv
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from chaos import finish, folder_of, start
from support import finish_wandb, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode

from score_lightning import config
from score_lightning.errors import StopRequested
from score_lightning.experiment.build import Experiment
from score_lightning.tracking import wandb as tracking
from score_lightning.tracking.dashboard import training_flops
from score_lightning.tracking.offline import read_line, read_records
from score_lightning.tracking.wandb import FLUSH, IDENTITY, ResilientWandbLogger
from score_lightning.training.module import ScoreModule


def kept(folder):
    """(identities, steps of each record with its keys, names of summary metrics) of all offline records of a run."""
    identities, steps, defined = set(), [], {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in read_records(path):
            if record.HasField("run"):
                identities.add(record.run.run_id)
            if record.HasField("metric"):
                defined[record.metric.name or record.metric.glob_name] = record.metric
            items = read_line(record)
            if items:
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
    finish_wandb()


def test_a_stopped_run_is_one_run_whose_steps_grow(offline, tmp_path, monkeypatch):
    step = ScoreModule.training_step

    def signalled(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ScoreModule, "training_step", signalled)
    with pytest.raises(StopRequested):
        run(tmp_path, *offline)
    finish_wandb()
    monkeypatch.setattr(ScoreModule, "training_step", step)
    folder = run(tmp_path, *offline, "resume=auto")
    finish_wandb()
    identities, steps, defined = kept(folder)
    assert identities == {(folder / IDENTITY).read_text().strip()}
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    order = [number for number, items in steps if "train/loss" in items]
    assert order == sorted(order) == [1, 3, 5]
    keys = {key for _, items in steps for key in items}
    assert {"train/loss", "val/loss", "val_level/0000", "train/lr", "eval/fid_classifier_12"} <= keys
    assert any(key.startswith("val/by_level") for key in keys)
    assert {"speed/images_per_second", "samples/grid", "samples/trajectory", "eval/table"} <= keys
    for kind in ("grid", "trajectory"):
        assert len(list(folder.glob(f"wandb/offline-run-*/files/media/images/samples/{kind}_*.png"))) == 2
    lines = [int(items["_step"]) for _, items in steps]
    assert lines == list(range(len(lines)))
    assert defined["val/loss"].summary.min
    assert defined["eval/is_*"].summary.max


@pytest.mark.slow
def test_no_connection_and_a_wrong_key_never_stop_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:9")  # nobody is there
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    folder = run(tmp_path, "logger=online", "evaluation.n=0", "samples.n=0")
    finish_wandb()
    assert (folder / "checkpoints/last.ckpt").is_file()
    printed = capsys.readouterr()
    assert "0000000000" not in printed.out + printed.err + (folder / "config.yaml").read_text()
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("prediction", ["eps", "v", "score", "edm"])
def test_flops_are_those_of_forward_and_backward(prediction):
    resolved = config.load([f"prediction={prediction}"], "ddpm_digits")
    model = Experiment(resolved).model
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(1, 1, 8, 8), model.schedule.times(1)).eps.square().mean().backward()
    assert training_flops(model, (1, 8, 8)) == counter.get_total_flops()


def logged(folder):
    """(step, name, value) of all numbers in metrics.csv."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return sorted((int(row["step"]), k, float(v)) for row in rows for k, v in row.items() if v and k != "step")


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_that_are_killed_twice_leave_one_whole_record(tmp_path):
    words = ["logger.wandb=offline", "trainer.max_steps=120", "trainer.checkpoint_every=10"]
    for _ in range(2):
        process, log = start(tmp_path / "killed", words, 2), tmp_path / "killed.log"
        checkpoints = tmp_path / "killed/ddpm_digits/0/checkpoints"
        before = set(checkpoints.glob("step_*.ckpt"))
        while process.poll() is None and before >= set(checkpoints.glob("step_*.ckpt")):
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        time.sleep(FLUSH + 0.5)  # so that steps after the checkpoint are in the record
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finish(tmp_path / "killed", words, 2)
    folder = folder_of(tmp_path / "killed")
    identities, steps, _ = kept(folder)
    assert identities == {(folder / IDENTITY).read_text().strip()}
    assert len(list(folder.glob("wandb/offline-run-*"))) == 3
    assert len({(step, name) for step, name, _ in logged(folder)}) == len(logged(folder))  # two batches are one step
    names = {name for _, name, _ in logged(folder)}
    found = [(step, key, float(items[key])) for step, items in steps for key in items.keys() & names]
    assert sorted(found) == logged(folder)  # everything, once
    for key in ("samples/grid", "samples/trajectory", "eval/table"):
        assert [step for step, items in steps if key in items] == [40, 80, 120]
    assert [step for step, items in steps if "val/by_level_table" in items] == list(range(19, 120, 20))
    assert {path.name for path in (folder / "samples").iterdir()} == {
        f"{kind}_{step:07d}.png" for kind in ("step", "trajectory") for step in (40, 80, 120)
    }
    lines = [int(items["_step"]) for _, items in steps]
    assert lines == sorted(set(lines))


class Refuses(BaseHTTPRequestHandler):
    """A server that knows no key."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors": [{"message": "permission denied"}]}')

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


def test_a_refused_key_is_said_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    folder = run(tmp_path, "logger=online", "evaluation.n=0", "samples.n=0")
    finish_wandb()
    server.shutdown()
    assert "Weights & Biases is not reached" in capsys.readouterr().out
    assert "train/loss" in {key for _, items in kept(folder)[1] for key in items}


@pytest.mark.slow
def test_a_connection_that_breaks_later_never_stops_a_run(offline, tmp_path, monkeypatch, capsys):
    log = ResilientWandbLogger._log

    def breaks(self, values, step):
        if step >= 2:
            raise BrokenPipeError("the service is gone")
        log(self, values, step)

    monkeypatch.setattr(ResilientWandbLogger, "_log", breaks)
    folder = run(tmp_path, *offline)
    assert capsys.readouterr().out.count("the service is gone") == 1
    assert (folder / "checkpoints/last.ckpt").is_file()
    finish_wandb()
    monkeypatch.setattr(ResilientWandbLogger, "_log", log)
    run(tmp_path, *offline, "trainer.max_steps=8", "resume=auto")
    finish_wandb()
    order = [number for number, items in kept(folder)[1] if "train/loss" in items]
    assert order == [1, 3, 5, 7]  # what was lost is made up for


def test_a_service_that_does_not_start_never_stops_a_run(tmp_path, monkeypatch, capsys):
    import wandb

    init = wandb.init

    def broken(**options):
        if options["mode"] != "disabled":
            raise OSError("no service")
        return init(**options)

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "init", broken)
    folder = run(tmp_path, "logger=offline", "evaluation.n=0", "samples.n=2")
    assert "nothing is logged there" in capsys.readouterr().out
    assert (folder / "checkpoints/last.ckpt").is_file()


def test_a_run_that_goes_on_online_asks_what_is_there(tmp_path, monkeypatch):
    class Server:
        def run(self, path):
            assert path == "entity/project/run"
            return self

        def scan_history(self):
            yield {"_step": 0, "trainer/global_step": 0, "train/loss": 1.0, "val/loss": None}
            yield {"_step": 1, "trainer/global_step": 1, "train/loss": 2.0}

    logged = []
    monkeypatch.setattr(tracking.wandb, "Api", Server)
    monkeypatch.setattr(ResilientWandbLogger, "_log", lambda self, values, step: logged.append((step, dict(values))))
    logger = ResilientWandbLogger(tmp_path, project="project", mode="online")
    logger._look_back(SimpleNamespace(offline=False, resumed=True, path="entity/project/run", id="run"))
    logger.restore([{"step": 0, "train/loss": 1.0}, {"step": 0, "val/loss": 5.0}, {"step": 2, "train/loss": 3.0}], [])
    assert logged == [(0, {"val/loss": 5.0}), (2, {"train/loss": 3.0})]


def test_tensorboard_has_numbers_and_pictures(tmp_path):
    folder = run(tmp_path, "logger=tensorboard", "evaluation.n=0")
    found = EventAccumulator(str(folder)).Reload().Tags()
    assert {"train/loss", "val/loss", "train/lr"} <= set(found["scalars"])
    assert set(found["images"]) == {"samples/grid", "samples/trajectory"}


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A folder that cannot be made, in the way of all that W&B would write into the home folder."""
    (tmp_path / "file").write_text("no folder")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    return tmp_path / "file/none"


def log_a_chart_between_numbers(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    logger = ResilientWandbLogger(folder, project="project", mode="offline")
    logger.log_metrics({"train/loss": 3.0}, 0)
    logger.log_metrics({"val/loss": 2.0, "val_level/0001": 1.0}, 1)
    logger.log_metrics({"eval/fid": 4.0}, 2)
    logger.log_image("samples/grid", [str(tmp_path / "missing.png")], step=2)
    logger.log_metrics({"train/loss": 1.0}, 3)
    logger.finalize("success")
    finish_wandb()
    return kept(folder)[1]


@pytest.mark.usefixtures("offline")
def test_a_chart_that_cannot_be_written_costs_no_number(nowhere, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_DATA_DIR", str(nowhere))
    steps = log_a_chart_between_numbers(tmp_path)
    names = ("train/loss", "val/loss", "eval/fid")
    assert [(step, key, float(items[key])) for step, items in steps for key in names if key in items] == [
        (0, "train/loss", 3.0), (1, "val/loss", 2.0), (2, "eval/fid", 4.0), (3, "train/loss", 1.0),
    ]  # fmt: skip
    assert capsys.readouterr().out.count("cannot be written") == 1


@pytest.mark.usefixtures("offline")
def test_charts_are_staged_in_the_run_folder_where_the_home_folder_cannot_be_written(nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(nowhere))
    steps = log_a_chart_between_numbers(tmp_path)
    assert [step for step, items in steps if "val/by_level_table" in items] == [1]
    assert [step for step, items in steps if "eval/table" in items] == [2]
    assert list((tmp_path / "run/wandb/artifacts/staging").iterdir())
