"""report.html of a training shows its whole history, and lives with that of an evaluation."""

import io
import json
import re

import pytest
import torch
from PIL import Image
from support import run

from score_lightning import eval as evaluate
from score_lightning.evaluation.page import write_part
from score_lightning.tracking.csv import read_log
from score_lightning.training import curves
from score_lightning.training.record import duration
from score_lightning.training.report import write_training

BARE = ["evaluation.n=0", "samples.n=0", "validation.every=1"]


def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")


def headings(text):
    return re.findall(r"<h2>(.*?)</h2>", text)


def recorded(monkeypatch):
    """The curves that are plotted from here on, by their plot."""
    plotted = {}
    for name in ("loss", "levels", "rates", "metrics"):
        draw = getattr(curves, f"plot_{name}")
        monkeypatch.setattr(
            curves, f"plot_{name}", lambda *given, n=name, d=draw: plotted.setdefault(n, []).append(given) or d(*given)
        )
    return plotted


def test_a_training_writes_all_that_it_logged(trained):
    text, run_json = page(trained), json.loads((trained / "run.json").read_text())
    assert headings(text) == [
        "Run", "Loss", "Loss by noise level", "Learning rate", "Samples", "Trajectory", "Metrics",
        "Settings of the evaluation", "Configuration",
    ]  # fmt: skip
    metrics = json.loads((trained / "metrics.json").read_text())
    for part in (
        "ddpm_digits: training, 4 of 4 steps", f"{run_json['parameters']:,}", "digits: 1,617 to train on, 180 held out",
        run_json["processor"], run_json["commit"], duration(run_json["wall_seconds"]), "step 2</figcaption>",
        f"{metrics['fid_classifier']:.4f}", "Of step 4, 30 images", metrics["settings"]["features_sha256"],
        "exp: ddpm_digits",
    ):  # fmt: skip
        assert part in text
    assert text.count("data:image/png;base64,") == 3 + 2 + 1  # curves, grids, the last trajectories
    assert "http" not in text
    assert len(text) < 500_000


def test_without_evaluation_samples_and_levels_the_rest_is_shown(tmp_path):
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    text = page(folder)
    assert headings(text) == ["Run", "Loss", "Loss by noise level", "Learning rate", "Configuration"]
    assert "No evaluation during training" in text


def test_a_resumed_run_shows_its_whole_history(tmp_path, monkeypatch):
    words = ["evaluation.n=12", "evaluation.every=1", "samples.n=2", "samples.every=1", "validation.every=1"]
    folder = run(tmp_path, *words, "trainer.max_steps=2", "trainer.checkpoint_every=1")
    assert "2 of 2 steps" in page(folder)
    plotted = recorded(monkeypatch)
    assert run(tmp_path, *words, "trainer.max_steps=4", "trainer.checkpoint_every=1", "resume=auto") == folder
    log, text = read_log(folder / "metrics.csv"), page(folder)
    assert "4 of 4 steps" in text
    assert plotted["loss"][-1] == (log["train/loss"], log["val/loss"])
    assert len(log["train/loss"]) == len(log["val/loss"]) == 4
    (over,) = plotted["metrics"][-1]
    assert over["fid_classifier_12"] == log["eval/fid_classifier_12"]
    assert [step for step, _ in over["fid_classifier_12"]] == [1, 2, 3, 4]
    assert text.count('class="small" alt') == 3  # grids before the last one
    assert "2, the first from" in text
    assert [len(given[0]) for given in plotted["loss"]] == [3, 4]  # at the evaluation, and at the end


def test_reports_are_written_during_the_training_at_evaluations_and_else_at_grids(tmp_path, monkeypatch):
    plotted = recorded(monkeypatch)
    run(tmp_path / "a", "evaluation.every=3", "evaluation.n=12", "samples.every=1", "trainer.max_steps=4")
    assert [len(given[0]) for given in plotted["loss"]] == [3, 4]
    plotted.clear()
    run(tmp_path / "b", "evaluation.n=0", "samples.every=2", "samples.n=1", "trainer.max_steps=4")
    assert [len(given[0]) for given in plotted["loss"]] == [2, 4]


def test_a_failure_to_draw_is_told_once_and_ends_nothing(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(curves, "plot_loss", fail)
    folder = run(tmp_path, "evaluation.n=0", "samples.n=1", "samples.every=1", "trainer.max_steps=3")
    assert capsys.readouterr().out.count("No report of the training: MemoryError: no room") == 1
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert not (folder / "report.html").exists()


def test_training_and_evaluation_keep_each_others_part_of_the_page(tmp_path):
    folder = run(tmp_path, *BARE, "trainer.max_steps=2", "trainer.checkpoint_every=1")
    words = [f"ckpt={folder / 'checkpoints/last.ckpt'}", "n=12", "sampler.steps=2", "evaluation.metrics=[fid]"]
    evaluate.main(words)
    both, metrics = page(folder), json.loads((folder / "metrics.json").read_text())
    assert re.findall(r"<h1>\w+: (\w+)", both) == ["training", "12"]
    assert re.findall(r'<a href="#(\w+)">', both) == re.findall(r'<section id="(\w+)">', both)
    assert f"{metrics['fid_classifier']:.4f}" in both
    run(tmp_path, *BARE, "trainer.max_steps=3", "resume=auto")
    again = page(folder)
    assert "training, 3 of 3 steps" in again
    assert "2 of 2 steps" not in again
    assert again.partition('id="evaluation"')[2] == both.partition('id="evaluation"')[2]
    evaluate.main([*words, "seed=1"])
    assert page(folder).partition('id="evaluation"')[0] == again.partition('id="evaluation"')[0]


def test_a_page_from_before_there_were_parts_is_replaced(tmp_path):
    (tmp_path / "report.html").write_text("<html><h1>old</h1></html>")
    write_part(tmp_path, "evaluation", "new", "x")
    assert "old" not in page(tmp_path)


def test_parts_hold_any_text(tmp_path):
    title = "</section><!-- end of part --> & \udcff"
    write_part(tmp_path, "evaluation", title, "<p>one</p>")
    write_part(tmp_path, "training", "t", "<p>two</p>")
    write_part(tmp_path, "training", "t", "<p>three</p>")
    text = (tmp_path / "report.html").read_text(encoding="utf-8", errors="surrogateescape")
    assert re.findall(r"<p>(\w+)</p>", text) == ["three", "one"]
    assert "&lt;/section&gt;&lt;!-- end of part --&gt; &amp; \udcff" in text


def test_a_toy_experiment_shows_its_points_and_its_figure(tmp_path):
    words = ["samples.n=50", "trainer.max_steps=2", "variants={}"]
    folder = run(tmp_path, *words, exp="toy_two_moons")
    text = page(folder)
    assert headings(text) == [
        "Run",
        "Loss",
        "Loss by noise level",
        "Learning rate",
        "Samples",
        "Figure",
        "Configuration",
    ]
    assert 'class="pixels"' not in text


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([3.0, 2.0], True), ([3.0, -2.0], False), ([0.0], False), ([float("nan"), float("inf"), 1.0], True), ([], False)],
)
def test_losses_of_any_sign_are_plotted(values, logarithmic, monkeypatch):
    scales = []
    save = curves._save
    monkeypatch.setattr(curves, "_save", lambda figure, axes: scales.append(axes.get_yscale()) or save(figure, axes))
    picture = Image.open(io.BytesIO(curves.plot_loss([], list(enumerate(values)))))
    curves.plot_levels({"1": list(enumerate(values)), "2": []})
    assert picture.width == 780
    assert (scales[0] == "log") == logarithmic


def test_smoothed_curves_are_means_of_a_twentieth():
    curve = [(10 * i, float(i % 2)) for i in range(1, 81)]
    smooth = curves.smooth(curve)
    assert len(smooth) == 20
    assert smooth[0] == (25, 0.5)
    assert curves.smooth([(1, 2.0)]) == [(1, 2.0)]
    assert curves.smooth([]) == []
    assert curves.smooth([(i, float(i)) for i in range(1, 6)]) == [(2, 2.5), (4, 4.5)]  # up to the last one
    assert curves.smooth([(i, float(i)) for i in range(59)])[-1] == (58, 57.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.26, "45.3 s"), (59.96, "60.0 s"), (725, "12 min 5 s"), (12000, "3 h 20 min")]
)
def test_times_are_legible(seconds, text):
    assert duration(seconds) == text


def test_pictures_of_many_steps_are_few(trained, tmp_path):
    for path in trained.rglob("*"):
        if path.is_file() and path.suffix != ".ckpt":
            (tmp_path / path.relative_to(trained)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(trained)).write_bytes(path.read_bytes())
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "steps": 20}))
    for step in range(5, 31):
        (tmp_path / f"samples/step_{step:07d}.png").write_bytes((tmp_path / "samples/step_0000004.png").read_bytes())
    write_training(tmp_path)
    shown = re.findall(r">step (\d+)</figcaption>", page(tmp_path))
    assert len(shown) == 5
    assert shown[0] == "2"
    assert "Step 20; always" in page(tmp_path)  # what a longer run has drawn before is not of this one
    assert torch.tensor([int(step) for step in shown]).diff().min() > 2
