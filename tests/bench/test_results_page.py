"""The page of results: what it says of records."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from score_lightning import checkpoint, sample
from score_lightning.bench.results_page import write_page
from score_lightning.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"
VERSIONS = {"torch": "2.99"}
RECORD = {"name": "bad", "exp": "flow_digits", "overrides": [], "n": None, "note": ""}


@pytest.fixture(autouse=True)
def few_experiments(request, monkeypatch):
    """Building all networks to count their operations takes a minute."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(
            "score_lightning.bench.results_page.config.experiments", lambda: ["edm_cifar", "flow_digits", "toy_rings"]
        )


def run(seed, fid, **training):
    record = {
        "data": "digits", "training_images": 1617, "parameters": 128417, "steps": 750, "batch_size": 128,
        "precision": "32-true", "wall_seconds": 40.0 + seed, "training_seconds": 30.0, "processor_seconds": 70.0,
        "device": "cpu", "processor": "Test CPU", "processes": 1, "threads_per_process": 2, "versions": VERSIONS,
        "commit": "abc", **training,
    }  # fmt: skip
    settings = {
        "n": 1000, "reference": "digits", "reference_images": 1617, "features": "classifier",
        "sampler": {"name": "heun"}, "evaluations_per_image": 15, "checkpoint": "last.ckpt",
    }  # fmt: skip
    intervals = {"fid_classifier": [fid - 1, fid + 1]}
    metrics = {"fid_classifier": fid, "is_classifier": 7.0, "intervals": intervals, "settings": settings}
    return {"seed": seed, "training": record, "evaluation": metrics}


def write_record(folder, name="flow_digits", exp="flow_digits", overrides=(), note="", runs=None):
    (folder / "results").mkdir(exist_ok=True)
    runs = runs or [run(0, 10.0), run(1, 12.0), run(2, 17.0)]
    record = {"name": name, "exp": exp, "overrides": list(overrides), "n": None, "note": note, "runs": runs}
    (folder / "results" / f"{name}.json").write_text(json.dumps(record))


def page(folder):
    write_page(folder)
    return (folder / "results.md").read_text()


def test_the_page_has_every_metric_with_its_interval_and_the_spread_over_trainings(tmp_path):
    write_record(tmp_path)
    text = page(tmp_path)
    row = "| fid_classifier | 10.0000 [9.0000, 11.0000] | 12.0000 [11.0000, 13.0000] | 17.0000 [16.0000, 18.0000] "
    assert row + "| 13.0000 ± 3.6056 |" in text
    assert "| is_classifier | 7.0000 | 7.0000 | 7.0000 | 7.0000 ± 0.0000 |" in text
    assert "| [flow_digits](#flow_digits) | digits | 3 | 41.0 s | 15 | 13.000 ± 3.606 | 7.000 ± 0.000 |" in text
    for fact in ("41.0 s with validation", "128,417 parameters", "750 steps of 128 images", "`abc`", "Test CPU"):
        assert fact in text
    assert "1,000 images against digits (1,617), features classifier; heun, 15 network evaluations per image" in text


def test_the_page_has_the_command_with_all_overrides_and_the_published_number(tmp_path):
    overrides = ["data=folder", "data.path=cifar.zip"]
    write_record(tmp_path, "edm_jpeg", "edm_cifar", overrides, "Ours is of JPEG files.", [run(0, 9.0)])
    text = page(tmp_path)
    assert 'make results EXP=edm_cifar NAME=edm_jpeg ARGS="data=folder data.path=cifar.zip seeds=[0]"' in text
    assert "Published: FID 1.97 (Karras et al. 2022, Table 2). " in text
    assert " Ours is of JPEG files." in text
    assert "| data | cifar.zip, 1,617 images |" in text
    assert "| metric | seed 0 |\n|---|---|" in text


def test_a_command_to_sample_stands_there_where_weights_are_kept(tmp_path):
    write_record(tmp_path)
    assert "score_lightning.sample" not in page(tmp_path)
    (tmp_path / "results" / "flow_digits").mkdir()
    assert f"ckpt={tmp_path.name}/results/flow_digits n=64" in page(tmp_path)


def test_what_has_no_result_is_listed_with_its_cost(tmp_path):
    write_record(tmp_path)
    rows = page(tmp_path).partition("## Not trained here")[2]
    assert "| edm_cifar | cifar10 32 x 32 | FID 1.97 (Karras et al. 2022, Table 2) |" in rows
    assert "| flow_digits |" not in rows
    assert "toy_" not in rows


def test_every_machine_and_commit_is_named_once(tmp_path):
    write_record(tmp_path, runs=[run(0, 1.0), run(1, 1.0), run(2, 1.0, commit="def", processor="Other CPU")])
    text = page(tmp_path)
    assert [text.count(word) for word in ("Test CPU", "Other CPU", "`abc`", "`def`")] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"runs": []}', json.dumps({**RECORD, "runs": []}), json.dumps({**RECORD, "runs": [{"seed": 0}]})],
)
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bad.json").write_text(text)
    with pytest.raises(UserError, match=r"bad\.json is damaged"):
        write_page(tmp_path)


def test_metrics_that_are_not_there_are_dashes(tmp_path):
    runs = [run(0, 10.0), run(1, 12.0)]
    del runs[0]["evaluation"]["fid_classifier"], runs[1]["evaluation"]["is_classifier"]
    write_record(tmp_path, runs=runs)
    text = page(tmp_path)
    assert "| fid_classifier | – | 12.0000 [11.0000, 13.0000] | – |" in text
    assert "| is_classifier | 7.0000 | – | – |" in text
    assert "| 40.5 s | 15 | – | 7.000 |" in text


def test_a_published_fid_is_compared_with_that_of_the_same_features_only(tmp_path):
    write_record(tmp_path, "edm_cifar", "edm_cifar", runs=[run(0, 9.0)])
    published = "Published: FID 1.97 (Karras et al. 2022, Table 2)."
    assert f"{published} Metrics of the features classifier cannot be compared with it." in page(tmp_path)
    runs = [run(0, 9.0), run(1, 9.0)]
    for one, fid in zip(runs, (2.0, 3.0), strict=True):
        one["evaluation"]["fid_inception"] = fid
    write_record(tmp_path, "edm_cifar", "edm_cifar", runs=runs)
    assert f"{published} The difference is +0.53." in page(tmp_path)


@pytest.mark.slow
def test_the_page_is_made_of_the_records_beside_it(tmp_path):
    shutil.copytree(DOCS / "results", tmp_path / "docs" / "results")
    (tmp_path / "docs" / "results.md").write_text("old")
    assert page(tmp_path / "docs") == (DOCS / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "folder", [path for path in sorted((DOCS / "results").iterdir()) if path.is_dir()], ids=lambda path: path.name
)
def test_weights_beside_the_page_are_small_and_draw_at_once(tmp_path, folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3e6
    model = checkpoint.load(folder)
    if not model.config["condition"]:
        sample.main([f"ckpt={folder}", "n=2", f"out={tmp_path}", "sampler.steps=2"])
        assert np.load(tmp_path / "samples.npz")["images"].shape[0] == 2
