"""Samples of models that are conditioned on pictures: python -m score_lightning.sample ckpt=… image=…"""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support import fails, run

from score_lightning import checkpoint, export, sample
from score_lightning import eval as evaluate
from score_lightning.conditional import Downsample, Given, PictureConditioned
from score_lightning.experiment.loading import image_key, open_checkpoint
from score_lightning.experiment.sample import _read_given
from score_lightning.experiment.unused import unused
from score_lightning.runtime.randomness import ImageNoise

BARE = ["samples.n=0", "evaluation.n=0"]
KINDS = {
    "upsample": ["condition=upsample", "condition.factor=2", "condition.drop=0.2"],
    "inpaint": ["condition=inpaint"],
    "colorize": ["condition=colorize", "images.channels=3", "features=random", "data=npz"],
    "labels": [
        "condition=upsample",
        "condition.factor=2",
        "condition.drop=0.2",
        "labels.classes=10",
        "labels.drop=0.4",
    ],
}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Kind of condition -> checkpoint of a short training."""
    out = tmp_path_factory.mktemp("conditional")
    colored = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(out / "colored.npz", images=colored)
    made = {}
    for kind, words in KINDS.items():
        words = [*words, f"data.path={out / 'colored.npz'}"] if kind == "colorize" else words
        folder = run(out / kind, *BARE, *words, exp="edm_digits")
        made[kind] = folder / "checkpoints/last.ckpt"
    return made


@pytest.fixture
def small(tmp_path):
    """A folder of three 4 x 4 pictures."""
    (tmp_path / "small").mkdir()
    for i in range(3):
        Image.fromarray(PIXELS[i, :4, :4]).save(tmp_path / f"small/{i}.png")
    return tmp_path / "small"


def draw(model, out, *words):
    sample.main([f"ckpt={model}", f"out={out}", "sampler.steps=4", *map(str, words)])
    return torch.from_numpy(np.load(out / "samples.npz")["images"]).permute(0, 3, 1, 2)


def test_image_i_is_of_picture_i_modulo_their_number_and_a_function_of_its_number(models, small, tmp_path):
    drawn = draw(models["upsample"], tmp_path / "a", f"image={small}", "n=2")
    assert drawn.shape == (6, 1, 8, 8)
    e = open_checkpoint(models["upsample"], ["sampler.steps=4"]).experiment
    y = e.pixels.encode(torch.from_numpy(PIXELS[:3, None, :4, :4]))
    picture = e.condition.present(torch.cat([y, y]))
    noise = ImageNoise(0, range(6))
    x = e.model.schedule.prior((6, 1, 8, 8), noise, e.sampler.times(e.schedule)[0])
    with torch.no_grad():
        x = e.sampler(PictureConditioned(e.model, Given(e.condition, picture)), x, noise)
    assert (e.pixels.decode(x).int() - drawn.int()).abs().max() <= 1  # another thread count rounds otherwise
    assert not torch.equal(drawn[:3], drawn[3:])


@pytest.mark.parametrize("form", ["zip", "npz", "one"])
def test_pictures_come_in_many_forms(models, small, tmp_path, form):
    expected = draw(models["upsample"], tmp_path / "a", f"image={small}")
    assert len(expected) == 3
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for path in small.iterdir():
                archive.write(path, path.name)
        assert torch.equal(draw(models["upsample"], tmp_path / "b", f"image={tmp_path / 'x.zip'}"), expected)
    elif form == "npz":
        np.savez(tmp_path / "x.npz", images=PIXELS[:3, :4, :4])
        assert torch.equal(draw(models["upsample"], tmp_path / "b", f"image={tmp_path / 'x.npz'}"), expected)
    else:
        alone = draw(models["upsample"], tmp_path / "b", f"image={small / '0.png'}")
        assert len(alone) == 15
        assert (alone[0].int() - expected[0].int()).abs().max() <= 1
        grid = Image.open(tmp_path / "b/samples.png")
        assert grid.size[0] > 500


def test_a_task_on_top_keeps_the_picture_exactly(models, small, tmp_path):
    y = torch.from_numpy(PIXELS[:3, None, :4, :4]).float()
    distance = []
    for words in ([], ["task=upsample"]):
        drawn = draw(models["upsample"], tmp_path / str(len(words)), f"image={small}", "n=3", *words)
        distance.append((Downsample(2).forward(drawn.float()) - y.repeat(3, 1, 1, 1)).abs())
    assert distance[0].max() > 3  # hardly trained
    assert distance[1].max() <= 0.5  # rounding


def test_colors_are_drawn_for_a_gray_picture(models, tmp_path):
    gray = Image.fromarray(PIXELS[0] // 2 + 64)
    gray.save(tmp_path / "gray.png")
    drawn = draw(models["colorize"], tmp_path / "a", f"image={tmp_path / 'gray.png'}", "n=4", "task=colorize")
    assert drawn.shape == (4, 3, 8, 8)
    means = drawn.float().mean(1)
    assert (means - torch.from_numpy(PIXELS[0] // 2 + 64).float()).abs().max() <= 0.5
    assert drawn.float().var(1).mean() > 1


def test_what_a_mask_leaves_is_kept_to_the_bit(models, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "masks").mkdir()
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, 2:5], masks[1, :, 5:] = 255, 255
    for i in range(2):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"whole/{i}.png")
        Image.fromarray(masks[i]).save(tmp_path / f"masks/{i}.png")
    one = draw(models["inpaint"], tmp_path / "a", f"image={tmp_path / 'whole'}", f"mask={tmp_path / 'masks'}", "n=2")
    for i, image in enumerate(one[:, 0].numpy()):
        known = masks[i % 2] == 0
        assert np.array_equal(image[known], PIXELS[i % 2][known])
        assert not np.array_equal(image[~known], PIXELS[i % 2][~known])
    all_of_one = draw(
        models["inpaint"], tmp_path / "b", f"image={tmp_path / 'whole'}", f"mask={tmp_path / 'masks/0.png'}"
    )
    assert np.array_equal(all_of_one[1, 0][masks[0] == 0], PIXELS[1][masks[0] == 0])


def test_guidance_by_pictures_changes_samples_and_counts(models, small, tmp_path):
    plain, guided, again = (
        draw(models["upsample"], tmp_path / f"{i}", f"image={small}", f"condition.guidance={w}")
        for i, w in enumerate((0, 2, 2))
    )
    assert not torch.equal(plain, guided)
    assert torch.equal(guided, again)
    labels = open_checkpoint(models["labels"], ["condition.guidance=1", "labels.guidance=1"]).experiment
    steps = labels.generator().evaluations(labels.model)
    alone = open_checkpoint(models["labels"], []).experiment
    assert steps == 4 * alone.generator().evaluations(alone.model)


def test_a_model_that_lost_pictures_in_training_draws_without(models, tmp_path):
    assert len(draw(models["upsample"], tmp_path, "n=3")) == 3


def test_labels_go_with_pictures(models, small, tmp_path):
    threes, modulo = (
        draw(models["labels"], tmp_path / str(len(words)), f"image={small}", *words) for words in (["label=1"], [])
    )
    assert torch.equal(threes[1], modulo[1])
    assert not torch.equal(threes[0], modulo[0])


def test_interrupted_images_are_continued_with_the_same_pictures_only(models, small):
    e = open_checkpoint(models["upsample"], []).experiment
    keys = set()
    for options in ({"image": str(small)}, {"image": str(small / "0.png")}, {"image": str(small), "task": "upsample"}):
        generator = replace(e.generator(), conditions=_read_given(e, options))
        keys.add(image_key(e, generator, 0, torch.device("cpu")))
    keys.add(image_key(e, e.generator(), 0, torch.device("cpu")))
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("inpaint", [], "this model needs pictures (condition=inpaint): give image=FILE|DIR|NPZ"),
        ("inpaint", ["image=WHOLE"], "give mask=…, of the picture's size, white where to paint"),
        ("inpaint", ["image=WHOLE", "mask=SMALL/0.png"], "the mask SMALL/0.png has 4 x 4 pixels, WHOLE 8 x 8"),
        ("inpaint", ["image=WHOLE", "mask=SMALL"], "mask=SMALL holds 3 masks for 1 pictures"),
        ("upsample", ["mask=WHOLE"], "mask=… needs image=FILE|DIR|NPZ"),
        ("upsample", ["image=SMALL", "mask=WHOLE"], "mask=… goes with a model that paints a part of a picture"),
        ("upsample", ["image=WHOLE"], "WHOLE has 8 x 8 pixels, this model takes pictures of 4 x 4"),
        ("upsample", ["image=ARRAYS"], "ARRAYS holds pictures of shape (1, 8, 8), this model takes (1, 4, 4)"),
        ("upsample", ["image=/nowhere"], "there is no picture /nowhere"),
        ("upsample", ["image=SMALL", "task=inpaint"], "task=inpaint: this model is conditioned on pictures itself"),
        ("upsample", ["image=SMALL", "task=edit"], "task=upsample makes samples keep its picture exactly"),
        ("upsample", ["image=SMALL", "task=upsample", "noise=5"], "keeps its picture by projection alone"),
        ("upsample", ["task=upsample"], "task=upsample needs image=FILE|DIR|NPZ"),
        ("labels", ["labels.guidance=1", "labels.drop=0.2", "image=SMALL"], "lost labels only together with pictures"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(kind, words, message, models, small, tmp_path, capsys, monkeypatch):
    Image.fromarray(PIXELS[0]).save(tmp_path / "whole.png")
    np.savez(tmp_path / "arrays.npz", images=PIXELS)
    names = {"WHOLE": tmp_path / "whole.png", "SMALL": small, "ARRAYS": tmp_path / "arrays.npz"}
    for key, path in names.items():
        words, message = [word.replace(key, str(path)) for word in words], message.replace(key, str(path))
    assert message in fails(sample, [f"ckpt={models[kind]}", *words, f"out={tmp_path / 'out'}"], capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


def test_an_unconditional_model_takes_no_picture(ckpt, small, tmp_path, capsys, monkeypatch):
    for words in ([f"image={small}"], [f"mask={small}"]):
        said = fails(sample, [f"ckpt={ckpt}", *words, f"out={tmp_path / 'out'}"], capsys, monkeypatch)
        assert "or with a model that is conditioned on pictures, which this one is not" in said


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_an_evaluation_compares_with_the_truths(models, tmp_path, capsys):
    words = [f"ckpt={models['upsample']}", "n=20", "seeds=[0,1,2]", "sampler.steps=4", "likelihood=3"]
    evaluate.main([*words, f"out={tmp_path}"])
    written, printed = metrics(tmp_path), capsys.readouterr().out
    assert {"psnr", "ssim", "consistency", "psnr_of_mean", "diversity", "calibration", "bits_per_dim_flow"} <= set(
        written
    )
    assert written["spread"]["psnr"]["std"] > 0
    assert written["settings"]["condition"]["name"] == "upsample"
    assert written["settings"]["reference"] == "digits, held out"
    assert written["settings"]["reference_images"] == 180
    assert len(written["settings"]["validation_loss"]) == 10
    assert f"calibration                  {written['calibration']:.4f}" in printed
    page = (tmp_path / "report.html").read_text()
    assert "In rows of what images are given" in page
    assert all(name in page.replace("<wbr>", "") for name in ("psnr_of_mean", "diversity", "calibration"))
    e = open_checkpoint(models["upsample"], ["sampler.steps=4"]).experiment
    truths = e.split[1][:20]
    generator = replace(e.generator(), conditions=e.conditions(e.split[1]))
    images = generator.batch(e.model, range(20), 0).images
    error = (images.double() - truths.double()).square().mean((1, 2, 3))
    expected = (10 * torch.log10(255**2 / error)).mean().item()
    assert written["spread"]["psnr"]["values"][0] == pytest.approx(expected, rel=1e-3)


def test_conditions_are_made_of_the_pictures_of_a_reference(models, tmp_path):
    (tmp_path / "faces").mkdir()
    for i in range(6):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"faces/{i}.png")
    words = [f"ckpt={models['upsample']}", "n=6", "sampler.steps=3", f"reference={tmp_path / 'faces'}"]
    evaluate.main([*words, "evaluation.metrics=[fid]", f"out={tmp_path}"])
    written = metrics(tmp_path)
    assert written["settings"]["reference_images"] == 6
    grid = np.asarray(Image.open(tmp_path / "samples.png").convert("L"))
    cell = grid.shape[1] // (4 * 9 + 1)
    truth = grid[::cell, ::cell][1 + 2 * 9 :][:8, 1:9]  # the third row
    assert np.array_equal(truth, PIXELS[0])


def test_known_pixels_have_no_density_but_a_bound(models, tmp_path):
    evaluate.main([f"ckpt={models['inpaint']}", "n=8", "sampler.steps=3", "likelihood=2", "evaluation.metrics=[fid]",
                   f"out={tmp_path}"])  # fmt: skip
    assert metrics(tmp_path)["unavailable"]["bits_per_dim_flow"] == "pixels that are known have no density"


DEPTHS = {"16": (np.uint16, 65535, []), "float": (np.float32, 1.0, ["images.input_range=[0,1]"])}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", ["upsample", "inpaint", "pairs"])
def test_images_may_be_of_any_size_channels_and_depth(depth, name, tmp_path):
    """Four channels of 8 x 12 pixels, and pictures of two."""
    dtype, white, more = DEPTHS[depth]
    rng = np.random.default_rng(0)
    images, shown = ((rng.random((20, 8, 12, k)) * white).astype(dtype) for k in (4, 2))
    np.savez(tmp_path / "x.npz", images=images, **({"conditions": shown} if name == "pairs" else {}))
    words = [f"data={'pairs' if name == 'pairs' else 'npz'}", f"data.path={tmp_path / 'x.npz'}", "data.validation=0.5"]
    words += ["images.size=[8,12]", "images.channels=4", f"images.depth={depth}", *more, "features=pixels"]
    words += [
        f"condition={name}",
        *{"upsample": ["condition.factor=2"], "pairs": ["condition.picture_channels=2"]}.get(name, []),
    ]
    words += ["samples.n=3", "evaluation.n=6", "evaluation.metrics=[fid]", "images.flip=true"]
    folder = run(tmp_path / "runs", *words, exp="edm_digits")
    values = metrics(folder)
    assert values["psnr"] > 0
    assert (folder / "samples/step_0000004.png").is_file()
    given = {"upsample": images[:2, ::2, ::2], "inpaint": images[:2], "pairs": shown[:2]}[name]
    np.savez(tmp_path / "given.npz", images=given)
    np.savez(tmp_path / "mask.npz", images=np.tile(np.uint8([255] * 6 + [0] * 6), (1, 8, 1)))
    mask = [f"mask={tmp_path / 'mask.npz'}"] if name == "inpaint" else []
    words = [f"ckpt={folder / 'checkpoints/last.ckpt'}", f"image={tmp_path / 'given.npz'}", *mask, "sampler.steps=3"]
    sample.main([*words, f"out={tmp_path / 'out'}", "n=2"])
    drawn = np.load(tmp_path / "out/samples.npz")["images"]
    assert (drawn.shape, drawn.dtype) == ((4, 8, 12, 4), dtype)
    if name == "inpaint":
        np.testing.assert_allclose(drawn[:2, :, 6:], images[:2, :, 6:], rtol=1e-6, atol=1e-6 * white)
    if name == "upsample":
        sample.main([*words, f"out={tmp_path / 'exact'}", "task=upsample"])
        exact = np.load(tmp_path / "exact/samples.npz")["images"].astype(float).reshape(2, 4, 2, 6, 2, 4)
        np.testing.assert_allclose(exact.mean((2, 4)), given, rtol=0, atol=2e-3 * white)


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_evaluate_and_draw_the_same(models, small, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for devices in (1, 2):
        commands = {
            "eval": ["n=43", "evaluation.batch_size=16", "seeds=[0,1]", "sampler.steps=3"],
            "sample": [f"image={small}", "n=5", "batch_size=4", "sampler.steps=3"],
        }
        for name, words in commands.items():
            program = [
                sys.executable,
                "-m",
                f"score_lightning.{name}",
                f"ckpt={models['inpaint' if name == 'eval' else 'upsample']}",
            ]
            done = subprocess.run(
                [*program, *words, f"devices={devices}", f"out={tmp_path}/{devices}"],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    one, two = (metrics(tmp_path / str(devices)) for devices in (1, 2))
    for name in ("psnr", "ssim", "psnr_of_mean", "diversity", "calibration"):
        assert two[name] == pytest.approx(one[name], rel=1e-9), name
    first, second = (np.load(tmp_path / f"{devices}/samples.npz")["images"] for devices in (1, 2))
    assert np.array_equal(first, second)


def test_a_guide_is_given_the_same_pictures(models, small, tmp_path, capsys, monkeypatch):
    words = [f"guide={models['upsample']}", "guidance=1", f"image={small}"]
    assert torch.equal(
        draw(models["upsample"], tmp_path / "a", *words), draw(models["upsample"], tmp_path / "b", f"image={small}")
    )
    other = [f"ckpt={models['upsample']}", f"guide={models['inpaint']}", "guidance=1", f"image={small}"]
    assert "another condition" in fails(sample, [*other, f"out={tmp_path / 'c'}"], capsys, monkeypatch)


def test_a_checkpoint_holds_its_condition_and_no_pipeline_takes_it(models, tmp_path, capsys, monkeypatch):
    model = checkpoint.load(models["inpaint"])
    assert model.condition_channels == 2
    assert model.config["condition"]["name"] == "inpaint"
    export.main([f"ckpt={models['inpaint']}", "format=safetensors", f"out={tmp_path / 'weights'}"])
    assert checkpoint.load(tmp_path / "weights").condition_channels == 2
    unet = ["net=unet_tiny", "prediction=eps", "schedule=cosine", "conditioning=time", "objective=denoising"]
    folder = run(tmp_path / "unet", *BARE, *unet, "sampler=ancestral", "condition=inpaint", exp="edm_digits")
    words = [f"ckpt={folder / 'checkpoints/last.ckpt'}", "format=diffusers", f"out={tmp_path / 'pipeline'}"]
    assert "gives its network no picture (condition=inpaint)" in fails(export, words, capsys, monkeypatch)


def test_an_interval_is_of_use_where_pictures_guide(models):
    config = open_checkpoint(models["upsample"], ["condition.guidance=1"]).experiment.config
    assert not list(unused(config, ["guidance_interval"], "sample"))
    config = open_checkpoint(models["upsample"], []).experiment.config
    assert list(unused(config, ["guidance_interval"], "sample"))
