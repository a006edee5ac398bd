"""Pictures hold every pixel; plots and pages hold the results."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from score_lightning.evaluation.intervals import Subsamples, Values
from score_lightning.evaluation.plots import label_of, plot_levels, plot_sweep
from score_lightning.evaluation.report import show, summarize, write_metrics, write_report
from score_lightning.generation.pictures import save_grid, save_neighbors, save_rows


def read(path):
    """The picture of a grid, before it was enlarged."""
    picture = np.asarray(Image.open(path))[..., 0]
    runs = next(k for k in range(64, 0, -1) if not any(s % k for s in picture.shape) and enlarged(picture, k))
    return picture[::runs, ::runs]


def enlarged(picture, k):
    return np.array_equal(picture, picture[::k, ::k].repeat(k, 0).repeat(k, 1))


def test_grids_hold_every_pixel(tmp_path):
    images = torch.randint(0, 256, (6, 1, 8, 8)).byte()
    path = save_grid(images, tmp_path / "new/grid.png")
    assert Image.open(path).width >= 512
    small = read(path)
    assert small.shape == (19, 28)  # 3 columns of 8 pixels with 1 between and around
    assert np.array_equal(small[1:9, 1:9], images[0, 0])
    assert np.array_equal(small[10:18, 19:27], images[5, 0])


def test_rows_and_neighbors_stand_where_they_belong(tmp_path):
    rows = torch.randint(0, 256, (2, 5, 1, 8, 8)).byte()
    small = read(save_rows(rows, tmp_path / "rows.png"))
    assert np.array_equal(small[10:18, 37:45], rows[1, 4, 0])
    samples, near = rows[:, 0], rows[:, 1:]
    small = read(save_neighbors(samples, near, tmp_path / "near.png", blocks=1))
    assert np.array_equal(small[10:18, 1:9], samples[1, 0])
    assert (small[10:18, 9:11] == 255).all()
    assert np.array_equal(small[10:18, 11:19], near[1, 0, 0])


def test_summaries_are_means_with_their_spread():
    one, two, six = (Values.of({"fid_x": torch.tensor([x])}, torch.ones(1)) for x in (1.0, 2.0, 6.0))
    assert summarize([two]) == {"fid_x": 2.0}
    summary = summarize([one, two, six])
    assert summary["fid_x"] == 3
    assert summary["spread"]["fid_x"] == {"mean": 3, "std": pytest.approx(7**0.5), "values": [1.0, 2.0, 6.0]}


def test_summaries_hold_intervals_where_metrics_have_them():
    subsamples = Subsamples.of(60)
    summary = summarize([Values.of({"p": subsamples.means(torch.rand(60)), "std": torch.ones(1)}, subsamples.sizes)])
    assert set(summary["intervals"]) == {"p"}
    low, high = summary["intervals"]["p"]
    assert low < summary["p"] < high
    assert show(summary, "p") == f"{summary['p']:.4f} [{low:.4f}, {high:.4f}]"


def test_a_metric_that_rounds_to_zero_is_shown_without_a_sign():
    assert show({"kid_x": -4e-5}, "kid_x") == "0.0000"
    assert show({"kid_x": -6e-5, "spread": {"kid_x": {"std": 0.5}}}, "kid_x") == "-0.0001 ± 0.5000"


def test_reports_hold_metrics_settings_and_pictures(tmp_path):
    save_grid(torch.zeros(4, 1, 8, 8).byte(), tmp_path / "samples.png")
    settings = {"n": 4, "sampler": {"name": "ddim"}, "checkpoint": "<b>.ckpt", "commit": None}
    metrics = {"fid_x": 1.25, "spread": {"fid_x": {"std": 0.5}}, "unavailable": {"is_x": "no <classes>"}}
    written = json.loads(write_metrics(tmp_path, metrics, settings).read_text())
    assert written == {**metrics, "settings": settings}
    pictures = {"samples.png": "Samples: the <first>"}
    page = write_report(tmp_path, "<b>.ckpt", metrics, settings, pictures).read_text()
    for part in (
        "1.2500 ± 0.5000",
        "sampler.<wbr>name",
        "ddim",
        "&lt;b&gt;.ckpt",
        "no &lt;classes&gt;",
        "the &lt;first&gt;",
    ):
        assert part in page
    assert page.count("data:image/png;base64,") == 1
    assert "<b>" not in page
    assert "http" not in page


def sweep():
    samplers = [{"name": "ddim", "eta": eta, "steps": steps} for eta in (0.0, 1.0) for steps in (5, 10)]
    samplers.append({"name": "ancestral", "steps": 7})
    return [
        {"sampler": s, "evaluations_per_image": s["steps"], "fid_x": 9.0 / s["steps"], "is_x": 3.0} for s in samplers
    ]


def test_sweeps_are_a_table_and_a_plot(tmp_path):
    entries = sweep()
    assert label_of(entries[0]["sampler"], entries) == "ddim eta=0.0"
    assert label_of(entries[4]["sampler"], entries) == "ancestral"
    plot_sweep(entries, ["fid_x", "is_x"], tmp_path / "sweep.png")
    page = write_report(tmp_path, "title", {"sweep": entries}, {}, {"sweep.png": "Sweep: of steps"}).read_text()
    for part in ("ddim eta=1.0", "1.2857", "ancestral", 'class="plot"'):
        assert part in page


def test_plots_are_pictures_with_ink(tmp_path):
    path = plot_levels([50.0, 1.0, 0.01], [0.01, 0.1, 0.9], tmp_path / "levels.png")
    picture = np.asarray(Image.open(path).convert("L"))
    assert min(picture.shape) > 300
    assert picture.std() > 10
