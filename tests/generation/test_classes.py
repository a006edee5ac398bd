"""Classes by name: in checkpoints, in label=, in the captions of grids."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from support import answer, fails, run, state

from score_lightning import eval as evaluation
from score_lightning import export, sample, train
from score_lightning.experiment.checks import find_label
from score_lightning.experiment.loading import open_checkpoint


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Pictures of three classes of unequal size, and a checkpoint of a model that is conditioned on them."""
    root, rng = tmp_path_factory.mktemp("animals"), np.random.default_rng(0)
    for name, n in (("ant", 14), ("cat", 20), ("zebra", 10)):
        (root / "data" / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{i}.png")
    words = ["labels.classes=3", "data=folder", f"data.path={root}/data", "evaluation.n=0", "samples.n=6"]
    words += ["optimizer.lr=0.02", "ema.decay=0"]
    return root / "data", run(root, *words)


def test_checkpoints_hold_the_names_of_classes(animals):
    data = state(animals[1])["data"]
    assert data["classes"] == ["ant", "cat", "zebra"]
    assert len(data["content"]) == 64


def test_a_label_may_be_a_name(animals, tmp_path):
    ckpt, images = animals[1] / "checkpoints/last.ckpt", []
    for label in ("cat", "1", "zebra"):
        sample.main([f"ckpt={ckpt}", "n=2", f"label={label}", f"out={tmp_path / label}"])
        images.append(np.load(tmp_path / label / "samples.npz")["images"])
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_a_label_that_is_no_class_is_refused(animals, tmp_path, capsys, monkeypatch):
    arguments = [f"ckpt={animals[1] / 'checkpoints/last.ckpt'}", "label=act", f"out={tmp_path}"]
    message = "label must be one of the classes ant, cat, zebra, or a number from 0 to 2; got 'act': did you mean cat?"
    assert message in fails(sample, arguments, capsys, monkeypatch)


def test_names_that_are_numbers_are_taken_for_names(animals):
    config = open_checkpoint(animals[1] / "checkpoints/last.ckpt", []).experiment.config
    assert find_label(config, "2", ["1", "2", "3"]) == 1
    assert "one of the classes 1, 2, 3; got '0'" in str(answer(lambda _: find_label(config, "0", ["1", "2", "3"]), []))


def test_exported_weights_keep_the_names(animals, tmp_path):
    export.main([f"ckpt={animals[1] / 'checkpoints/last.ckpt'}", "format=safetensors", f"out={tmp_path / 'x'}"])
    assert json.loads((tmp_path / "x/config.json").read_text(encoding="utf-8"))["data"]["classes"][1] == "cat"
    assert open_checkpoint(tmp_path / "x", []).experiment.classes == ("ant", "cat", "zebra")


def test_grids_show_the_classes(animals, tmp_path):
    ckpt = animals[1] / "checkpoints/last.ckpt"
    for label in ("ant", "zebra"):
        sample.main([f"ckpt={ckpt}", "n=4", f"label={label}", f"out={tmp_path / label}"])
    ant, zebra = (Image.open(tmp_path / label / "samples.png").convert("L") for label in ("ant", "zebra"))
    assert ant.size == zebra.size
    assert ant.height > ant.width  # two by two squares, each with a strip below
    cell = ant.height // 2
    strips = [np.asarray(image)[cell - 14 : cell - 2, 8:-8] for image in (ant, zebra)]
    assert all((strip < 100).any() and (strip > 250).mean() > 0.6 for strip in strips)  # dark on white
    assert not np.array_equal(*strips)
    assert sorted((animals[1] / "samples").glob("step_*.png"))


def test_other_numbers_of_classes_are_refused(animals, tmp_path, capsys, monkeypatch):
    words = ["exp=ddpm_digits", "data=folder", f"data.path={animals[0]}", "logger=off", f"out={tmp_path / 'runs'}"]
    message = "labels.classes=10: the images have 3 classes (ant, cat, zebra); set labels.classes=3"
    assert message in fails(train, [*words, "labels.classes=10"], capsys, monkeypatch)
    Image.new("L", (8, 8)).save(animals[0] / "loose.png")
    try:
        said = fails(train, [*words, "labels.classes=3"], capsys, monkeypatch)
    finally:
        (animals[0] / "loose.png").unlink()
    assert "these have none: no classes, since pictures lie beside the class folders (loose.png)" in said
    np.savez(tmp_path / "x.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.array([0, 2, 0, 2, 0, 2]))
    words = ["exp=ddpm_digits", "data=npz", f"data.path={tmp_path / 'x.npz'}", "logger=off", f"out={tmp_path / 'runs'}"]
    assert "no image has the label 1" in fails(train, [*words, "labels.classes=3"], capsys, monkeypatch)
    assert not (tmp_path / "runs").exists()


def test_a_training_says_what_it_reads(animals, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in animals[0].rglob("*.png"):
            archive.write(path, f"all/{path.relative_to(animals[0])}")
        archive.writestr("all/read me.txt", "text")
    run(tmp_path, "data=folder", f"data.path={tmp_path}/data.zip", "evaluation.n=0", "samples.n=0")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("folder: "))
    assert line == (
        "folder: 44 images, 42 to train on, 2 held out; 3 classes: ant 14, cat 20, zebra 10; "
        "skipped: 1 of unknown format (all/read me.txt)"
    )


def test_an_evaluation_says_what_it_reads(animals, tmp_path, capsys):
    words = [f"images={animals[0] / 'cat'}", f"reference={animals[0]}", "features=random", "evaluation.metrics=[fid]"]
    evaluation.main([*words, f"out={tmp_path}"])
    said = capsys.readouterr().out
    assert f"{animals[0] / 'cat'}: 20 images" in said
    assert f"reference {animals[0]}: 44 images; 3 classes: ant 14, cat 20, zebra 10" in said
