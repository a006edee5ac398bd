"""python -m score_lightning.eval, end to end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import fails

from score_lightning import checkpoint, sample
from score_lightning import eval as evaluate
from score_lightning.errors import UserError
from score_lightning.evaluation.features import extractors
from score_lightning.generation.generator import Generator


def metrics(folder):
    """(metrics, settings) of a folder's metrics.json."""
    written = json.loads((folder / "metrics.json").read_text())
    settings = written.pop("settings")
    return written, settings


FAST = ["sampler=ddim", "sampler.steps=3"]


@pytest.mark.parametrize("words", [[], ["sampler=ddim", "sampler.steps=4"]])
def test_eval_needs_nothing_but_the_checkpoint(ckpt, tmp_path, words, capsys):
    moved = shutil.copy(ckpt, tmp_path / "moved.ckpt")
    evaluate.main([f"ckpt={moved}", "n=20", *words])
    found, settings = metrics(tmp_path)
    assert settings["n"] == 20
    assert settings["sampler"]["name"] == ("ddim" if words else "ancestral")
    assert settings["evaluations_per_image"] == (4 if words else 3)
    assert f"fid_classifier               {found['fid_classifier']:.4f}" in capsys.readouterr().out
    for name in ("samples", "trajectory", "neighbors", "levels"):
        assert Image.open(tmp_path / f"{name}.png").size[0] >= 512, name
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 4
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".")} == set()  # what was kept on the way


def test_metrics_say_all_that_they_depend_on(ckpt, tmp_path):
    evaluate.main([f"ckpt={ckpt}", "n=20", *FAST, f"out={tmp_path}"])
    found, settings = metrics(tmp_path)
    names = {"fid", "is", "is_std", "kid", "kid_std", "precision", "recall", "f_score", "density", "coverage"}
    assert set(found) == {f"{name}_classifier" for name in names | {"memorization"}}
    assert settings.keys() >= {
        "checkpoint", "step", "weights", "n", "seeds", "sampler", "evaluations_per_image", "features",
        "features_sha256", "reference", "reference_sha256", "reference_images", "held_out_images", "resize",
        "quantizer", "splits", "kid_subsets", "kid_subset_size", "batch_size", "processes", "threads_per_process",
        "device", "versions", "commit", "date", "images_per_second", "validation_loss", "validation_levels",
        "weights_sha256", "reference_shape",
    }  # fmt: skip
    assert settings["reference_images"] == 1617
    assert settings["kid_subset_size"] == 20
    assert len(settings["validation_loss"]) == 10
    assert settings["sampler"] == {"name": "ddim", "eta": 0.0, "steps": 3, "spacing": "uniform", "clip": True}


def test_eval_repeats_to_the_bit(ckpt, tmp_path):
    for name in ("a", "b"):
        evaluate.main([f"ckpt={ckpt}", "n=20", f"out={tmp_path / name}"])
    assert metrics(tmp_path / "a")[0] == metrics(tmp_path / "b")[0]


def test_seeds_give_mean_spread_and_values(ckpt, tmp_path, capsys):
    evaluate.main([f"ckpt={ckpt}", "n=20", "seeds=[0,3]", *FAST, f"out={tmp_path}"])
    found, settings = metrics(tmp_path)
    shown = capsys.readouterr().out
    assert settings["seeds"] == [0, 3]
    single = []
    for seed in (0, 3):
        evaluate.main([f"ckpt={ckpt}", "n=20", f"seed={seed}", *FAST, f"out={tmp_path / str(seed)}"])
        single.append(metrics(tmp_path / str(seed))[0]["fid_classifier"])
    assert found["spread"]["fid_classifier"]["values"] == single
    assert found["fid_classifier"] == pytest.approx(np.mean(single))
    assert found["spread"]["fid_classifier"]["std"] == pytest.approx(np.std(single, ddof=1))
    assert f"{np.mean(single):.4f} ± {np.std(single, ddof=1):.4f}" in shown


def test_sweeps_evaluate_each_sampler_and_draw(ckpt, tmp_path):
    words = ["sampler=[ddim,ancestral]", "sampler.steps=[2,3]", "evaluation.metrics=[fid,is]"]
    evaluate.main([f"ckpt={ckpt}", "n=12", *words, f"out={tmp_path}"])
    found, settings = metrics(tmp_path)
    assert [(e["sampler"]["name"], e["evaluations_per_image"]) for e in found["sweep"]] == [
        ("ddim", 2), ("ddim", 3), ("ancestral", 2), ("ancestral", 3),
    ]  # fmt: skip
    assert "sampler" not in settings
    assert (tmp_path / "sweep.png").is_file()
    assert "ancestral" in (tmp_path / "report.html").read_text()
    evaluate.main([f"ckpt={ckpt}", "n=12", "sampler=ddim", "sampler.steps=3", f"out={tmp_path}"])
    assert metrics(tmp_path)[0]["fid_classifier"] == found["sweep"][1]["fid_classifier"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 4  # but for sweep.png, which is there from before
    assert "Sweep" not in page


def test_settings_hold_for_every_sampler_of_a_list(ckpt, tmp_path):
    words = ["sampler=[ddim,ancestral]", "sampler.steps=2", "sampler.clip=false", "evaluation.metrics=[fid]"]
    evaluate.main([f"ckpt={ckpt}", "n=4", *words, f"out={tmp_path}"])
    samplers = [entry["sampler"] for entry in metrics(tmp_path)[0]["sweep"]]
    assert [(s["name"], s["steps"], s["clip"]) for s in samplers] == [("ddim", 2, False), ("ancestral", 2, False)]


def test_raw_weights_are_evaluated_where_asked_for(ckpt, tmp_path):
    state = torch.load(ckpt, weights_only=True)["state_dict"]
    for weights, prefix in {"ema": "average.model", "raw": "model"}.items():
        model = checkpoint.open_checkpoint(ckpt, [], weights).experiment.model
        assert torch.equal(model.net.conv_out.weight, state[f"{prefix}.net.conv_out.weight"])
    evaluate.main([f"ckpt={ckpt}", "weights=raw", *FAST, "n=20", f"out={tmp_path}"])
    assert metrics(tmp_path)[1]["weights"] == "raw"


def test_an_interrupted_evaluation_goes_on(ckpt, tmp_path, monkeypatch):
    words = [f"ckpt={ckpt}", "n=30", "evaluation.batch_size=10", *FAST]
    evaluate.main([*words, f"out={tmp_path / 'whole'}"])
    drawn, batch = [], Generator.batch

    def stop(self, model, indices, *args, **kwargs):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(list(indices))
        return batch(self, model, indices, *args, **kwargs)

    monkeypatch.setattr(Generator, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([*words, f"out={tmp_path / 'part'}"])
    monkeypatch.setattr(
        Generator,
        "batch",
        lambda self, model, indices, *a, **k: drawn.append(list(indices)) or batch(self, model, indices, *a, **k),
    )
    evaluate.main([*words, f"out={tmp_path / 'part'}"])
    assert drawn[:3] == [list(range(10)), list(range(10, 20)), list(range(20, 30))]
    assert len(drawn) == 4  # and the trajectory
    assert metrics(tmp_path / "part")[0] == metrics(tmp_path / "whole")[0]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_give_the_same_images_and_metrics(ckpt, tmp_path):
    """n divisible by nothing, three batches on two ranks; one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [f"ckpt={ckpt}", "n=43", "evaluation.batch_size=16", "seeds=[0,1]", *FAST]
    for devices in (1, 2):
        cache = tmp_path / f"cache{devices}"  # so that both compute the reference, though not fit the classifier again
        cache.mkdir()
        for path in Path(os.environ["SCORE_LIGHTNING_CACHE"]).glob("classifier-*.pt"):
            shutil.copy(path, cache)
        command = [
            sys.executable,
            "-m",
            "score_lightning.eval",
            *words,
            f"devices={devices}",
            f"out={tmp_path}/{devices}",
        ]
        done = subprocess.run(
            command,
            env={**environment, "SCORE_LIGHTNING_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Written:") == 1
    one, two = (metrics(tmp_path / str(devices)) for devices in (1, 2))
    assert (one[1]["processes"], two[1]["processes"]) == (1, 2)
    for name, value in one[0].items():
        if name not in ("spread", "intervals"):
            assert two[0][name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    for name, bounds in one[0]["intervals"].items():
        assert two[0]["intervals"][name] == pytest.approx(bounds, rel=1e-6, abs=1e-9), name
    for name in ("samples", "neighbors", "trajectory"):
        pictures = [(tmp_path / str(devices) / f"{name}.png").read_bytes() for devices in (1, 2)]
        assert pictures[0] == pictures[1], name


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_draw_the_same_images(ckpt, tmp_path):
    words = [f"ckpt={ckpt}", "n=7", "batch_size=2", *FAST]
    for devices in (1, 2):
        command = [
            sys.executable,
            "-m",
            "score_lightning.sample",
            *words,
            f"devices={devices}",
            f"out={tmp_path}/{devices}",
        ]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=True)
    one, two = (np.load(tmp_path / str(devices) / "samples.npz")["images"] for devices in (1, 2))
    assert np.array_equal(one, two)
    assert len(one) == 7


@pytest.fixture
def given(tmp_path):
    """30 images of noise, as an npz and as a folder of PNGs."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"folder/{i:02d}.png")
    return tmp_path


def test_eval_compares_pictures_with_a_data_set(given):
    found = []
    for name in ("mine.npz", "folder"):
        words = [f"images={given / name}", "reference=digits", "features=classifier", f"out={given / 'o'}"]
        evaluate.main(words)
        values, settings = metrics(given / "o")
        assert (settings["n"], settings["reference"], settings["reference_images"]) == (30, "digits", 1617)
        found.append(values)
    assert found[0] == found[1]
    assert "memorization_classifier" in found[0]


def test_pictures_in_a_zip_are_those_in_the_folder(given):
    shutil.make_archive(given / "zipped", "zip", given / "folder")
    found = []
    for name in ("folder", "zipped.zip"):
        words = [f"images={given / name}", "reference=digits", "features=classifier", f"out={given / 'o'}"]
        evaluate.main([*words, "evaluation.metrics=[fid]"])
        found.append(metrics(given / "o")[0])
    assert found[0] == found[1]


def test_results_do_not_go_among_the_images(given, capsys, monkeypatch):
    words = [f"images={given / 'folder'}", "reference=digits", "features=classifier", f"out={given / 'folder'}"]
    assert "set out=DIR" in fails(evaluate, words, capsys, monkeypatch)


@pytest.mark.slow
def test_few_pictures_have_no_held_out_ones_to_compare_with(given):
    few = np.load(given / "mine.npz")["images"][:8]
    np.savez(given / "few.npz", images=few, labels=np.arange(8) % 2)
    words = [f"images={given / 'mine.npz'}", f"reference={given / 'few.npz'}", "features=classifier"]
    evaluate.main([*words, f"out={given / 'o'}"])
    values, _ = metrics(given / "o")
    assert "memorization_classifier" in values["unavailable"]
    assert values["fid_classifier"] > 0


@pytest.mark.slow
def test_eval_compares_pictures_with_pictures_by_any_weights(given, inception_weights):
    words = [f"images={given / 'mine.npz'}", f"reference={given / 'folder'}", "features=random", f"out={given / 'o'}"]
    evaluate.main([*words, f"features.weights={inception_weights}", "n=12"])
    values, settings = metrics(given / "o")
    assert settings["n"] == 12
    assert settings["features"] == "random"
    assert values["precision_random"] == 1  # all of them are in the reference
    assert values["unavailable"].keys() == {"memorization_random"}


@pytest.mark.slow
def test_statistics_as_reference_give_the_same_fid_and_nothing_else(given, inception_weights):
    features = extractors.random(weights=str(inception_weights))
    images = torch.from_numpy(np.load(given / "mine.npz")["images"])[:, None]
    rows = features(images)[0].double().numpy()
    np.savez(given / "statistics.npz", mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    fids = []
    for reference in ("mine.npz", "statistics.npz"):
        words = [f"images={given / 'folder'}", f"reference={given / reference}", "n=9", f"out={given / 'o'}"]
        evaluate.main([*words, "features=random", f"features.weights={inception_weights}"])
        values, settings = metrics(given / "o")
        fids.append(values["fid_random"])
    assert fids[0] == pytest.approx(fids[1], rel=1e-9)
    assert "only fid" in values["unavailable"]["kid_random"]
    assert set(values) == {"fid_random", "is_random", "is_std_random", "unavailable"}
    assert settings["reference_images"] is None
    assert "not available" in (given / "o/report.html").read_text().lower()


@pytest.mark.parametrize(
    ("entry", "words", "message"),
    [
        (evaluate, [], "give either ckpt=PATH or images="),
        (evaluate, ["ckpt=CKPT", "images=x"], "give either"),
        (evaluate, ["ckpt=CKPT", "n=0"], "n must be at least 1"),
        (evaluate, ["ckpt=CKPT", "n=1"], "fid needs at least 2 images"),
        (evaluate, ["ckpt=CKPT", "n=3"], "precision_recall needs at least 4 images"),
        (evaluate, ["ckpt=CKPT", "reference=/nowhere"], "/nowhere does not exist"),
        (evaluate, ["ckpt=CKPT", "reference=/nowhere.npz"], "/nowhere.npz does not exist"),
        (evaluate, ["ckpt=CKPT", "seeds=[]"], "seeds must be a list of different whole numbers"),
        (evaluate, ["ckpt=CKPT", "seeds=[1,1]"], "seeds must be a list of different whole numbers"),
        (evaluate, ["ckpt=CKPT", "seeds=3"], "seeds takes a value of type list"),
        (evaluate, ["ckpt=CKPT", "seeds=[1]", "seed=1"], "either seed=N or seeds="),
        (evaluate, ["ckpt=CKPT", "weights=best"], "weights must be one of ema, raw"),
        (evaluate, ["ckpt=CKPT", "sampler.steps=[]"], "the list is empty"),
        (evaluate, ["ckpt=CKPT", "sampler.steps=[5,x]"], "sampler.steps must be"),
        (evaluate, ["ckpt=CKPT", "sampler=[ddim,dim]"], "did you mean ddim?"),
        (evaluate, ["ckpt=CKPT", "net.channels=[5,6]"], "net.channels must be a whole number"),
        (evaluate, ["ckpt=CKPT", "features=resnet"], "unknown features 'resnet'"),
        (evaluate, ["ckpt=CKPT", "features=inception", "features.weights=FEW/8.png"], "not the published file"),
        (evaluate, ["ckpt=CKPT", "features=random", "features.weights=FEW/8.png"], "is not a file of plain weights"),
        (evaluate, ["ckpt=CKPT", "evaluation.metrics=[fid,fd]"], "must name some of fid, is, kid"),
        (evaluate, ["ckpt=CKPT", "evaluation.kid_subset_size=1"], "kid_subset_size must be at least 2"),
        (evaluate, ["images=/nowhere", "reference=digits"], "/nowhere does not exist"),
        (evaluate, ["images=/nowhere"], "needs reference="),
        (evaluate, ["images=FEW", "reference=digits", "features=classifier"], "fid needs at least 2 images"),
        (evaluate, ["images=FEW", "reference=digits", "n=2"], "n must lie between 1 and that, got 2"),
        (evaluate, ["images=SIZES", "reference=digits"], "must all be of one size; resize them"),
        (evaluate, ["images=FEW", "reference=digits", "seed=1"], "seed=… goes with ckpt=…"),
        (
            evaluate,
            ["images=FEW", "reference=OTHER"],
            "holds images of shape (1, 9, 9), those to evaluate are of",
        ),
        (evaluate, ["ckpt=CKPT", "devices=0"], "devices must be at least 1"),
        (evaluate, ["ckpt=CKPT", "reference=FEW", "evaluation.metrics=[memorization]"], "no metric can be computed"),
        (sample, ["ckpt=CKPT", "weights=best"], "weights must be one of ema, raw"),
    ],
)
def test_mistakes_in_evaluation_get_one_message(entry, words, message, ckpt, tmp_path, capsys, monkeypatch):
    for name, sizes in {"FEW": [8], "SIZES": [8, 9], "OTHER": [9]}.items():
        (tmp_path / name).mkdir()
        for size in sizes:
            Image.fromarray(np.zeros((size, size), np.uint8)).save(tmp_path / name / f"{size}.png")
        words = [word.replace(name, str(tmp_path / name)) for word in words]
    words = [word.replace("CKPT", str(ckpt)) for word in words]
    assert message in fails(entry, [*words, f"out={tmp_path}/out"], capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


def test_nan_in_samples_is_counted_and_refused(ckpt, tmp_path):
    contents = torch.load(ckpt, weights_only=True)
    name = "average.model.net.conv_out.bias"
    contents["state_dict"][name] = contents["state_dict"][name] * torch.nan
    torch.save(contents, tmp_path / "nan.ckpt")
    for entry in (evaluate, sample):
        with pytest.raises(UserError, match="9 of 9 images have pixels that are not finite"):
            entry.main([f"ckpt={tmp_path}/nan.ckpt", "n=9", *FAST, f"out={tmp_path}/out"])
    assert not (tmp_path / "out/metrics.json").exists()
    assert not (tmp_path / "out/samples.npz").exists()
