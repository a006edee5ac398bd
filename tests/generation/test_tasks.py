"""Labels, guidance, tasks on pictures and likelihoods from the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support import fails, run
from torch.testing import assert_close

from score_lightning import checkpoint, config, sample, train
from score_lightning import eval as evaluate
from score_lightning.conditional import Measurement
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import PixelRange
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.loading import image_key
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.generation.tasks import interpolation, read_known


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A checkpoint of a model conditioned on labels."""
    words = ["optimizer.lr=0.02", "ema.decay=0", "evaluation.n=0", "samples.n=0"]
    return run(tmp_path_factory.mktemp("labeled"), *words, exp="ddpm_digits_labels") / "checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def colored(tmp_path_factory):
    """A checkpoint of a model of color images of 8 x 8 pixels."""
    root = tmp_path_factory.mktemp("colored")
    np.savez(root / "data.npz", images=np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        words = ["data=npz", f"data.path={root}/data.npz", "images.channels=3", "evaluation.n=0"]
        return run(root, *words) / "checkpoints/last.ckpt"


def picture(path, size, seed=0, mode="RGB"):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def drawn(folder):
    return np.load(folder / "samples.npz")["images"]


def test_labels_choose_what_is_drawn_and_guidance_exaggerates_it(labeled, tmp_path):
    results = []
    for i, words in enumerate(
        [["label=3"], ["label=4"], ["label=3", "labels.guidance=5"], ["label=3", "labels.guidance=0"]]
    ):
        sample.main([f"ckpt={labeled}", "n=3", f"out={tmp_path / str(i)}", *words])
        results.append(drawn(tmp_path / str(i)).astype(int))
    assert np.array_equal(results[0], results[3])
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_without_a_label_image_i_has_label_i_modulo_their_number(labeled, tmp_path):
    sample.main([f"ckpt={labeled}", "n=12", f"out={tmp_path / 'all'}"])
    experiment = checkpoint.open_checkpoint(labeled, []).experiment
    batch = experiment.generator(label="2").batch(experiment.model, [2], 0)
    found = torch.from_numpy(drawn(tmp_path / "all")[2]).permute(2, 0, 1).int()
    assert (found - batch.images[0].int()).abs().max() <= 1  # another batch size


def test_guidance_counts_both_evaluations(labeled):
    experiment = checkpoint.open_checkpoint(labeled, ["labels.guidance=1", "sampler.steps=5"]).experiment
    assert experiment.generator().evaluations(experiment.model) == 10


def test_dropped_labels_are_a_share_and_the_rest_stays():
    module = TrainingExperiment(config.load(["labels.drop=0.25"], "ddpm_digits_labels")).module
    from score_lightning.runtime.randomness import BatchNoise

    labels = torch.arange(10).repeat(2000)
    labels_after, _ = module._augmentation.given(labels, torch.zeros(len(labels), 1, 1, 1), BatchNoise(0))
    assert (labels_after == -1).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(labels_after[labels_after >= 0], labels[labels_after >= 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels.guidance=2"], "labels.guidance=2 needs a model conditioned on labels"),
        (["label=3"], "label=K needs a model conditioned on labels"),
        (["task=paint"], "task must be one of inpaint, colorize, upsample, deblur, edit, interpolate"),
        (["image=x.png"], "image=… goes with task="),
        (["task=inpaint", "image=x.png"], "task=inpaint needs mask=FILE"),
        (["task=inpaint", "mask=x.png"], "task=inpaint needs image=FILE"),
        (["task=inpaint", "image=/nowhere.png", "mask=x.png"], "there is no picture /nowhere.png"),
        (["task=upsample", "image=x.png", "mask=x.png"], "task=upsample takes no mask"),
        (["task=interpolate", "image=x.png"], "needs two pictures"),
        (["task=interpolate", "image=[a,b]", "label=3"], "task=interpolate takes no label"),
        (["task=colorize", "image=PICTURE"], "needs a model of images in color"),
        (
            ["task=upsample", "image=PICTURE"],
            "whose side divides 8, such as 4 x 4 pixels; PICTURE has 20 x 12",
        ),
        (["task=inpaint", "image=PICTURE", "mask=MASK"], "the mask MASK has 20 x 13 pixels, PICTURE 20 x 12"),
        (["task=inpaint", "image=PICTURE", "mask=NOTES"], "NOTES cannot be read: not a picture"),
        (["noise=5"], "noise=… goes with task=inpaint|colorize|upsample|deblur"),
        (["task=edit", "image=x.png", "noise=5"], "task=edit takes no noise"),
        (["task=upsample", "image=x.png", "blur=2"], "task=upsample takes no blur: blur=… goes with task=deblur"),
        (["task=upsample", "image=x.png", "strength=1"], "strength=… goes with task=edit"),
        (["task=upsample", "image=x.png", "noise=-1"], "noise must lie between 0 and 255 gray levels, got -1"),
        (["task=upsample", "image=x.png", "noise=.nan"], "noise must lie between 0 and 255 gray levels, got nan"),
        (["task=upsample", "image=x.png", "noise=much"], "noise takes a value of type float, got 'much'"),
        (["task=upsample", "image=x.png", "method=ddrm"], "method must be one of projection, dps, pigdm, mmps"),
        (["task=upsample", "image=x.png", "noise=5", "method=projection"], "take method=mmps, pigdm or dps"),
        (["task=upsample", "image=x.png", "method=dps"], "give noise=S in gray levels, or take method=mmps"),
        (["task=deblur", "image=x.png", "blur=1", "method=projection"], "take method=mmps for task=deblur"),
        (["task=deblur", "image=x.png"], "needs either blur=STD in pixels, or motion=LENGTH,ANGLE"),
        (["task=deblur", "image=x.png", "blur=1", "motion=3,0"], "needs either blur=STD"),
        (["task=deblur", "image=x.png", "blur=0"], "blur=STD must be a positive number of pixels, got 0"),
        (["task=deblur", "image=PICTURE", "blur=1e308"], "further than the model's images, of 8 pixels"),
        (["task=deblur", "image=PICTURE", "motion=16,0"], "further than the model's images, of 8 pixels"),
        (["task=deblur", "image=PICTURE", "motion=3"], "motion=LENGTH,ANGLE takes pixels and degrees, got '3'"),
        (
            ["task=deblur", "image=PICTURE", "motion=1,0"],
            "task=deblur: motion blur needs a length of at least 2 pixels",
        ),
        (["task=edit", "image=x.png", "strength=0"], "strength must lie above 0 and at most at 1, got 0"),
        (["task=edit", "image=x.png", "strength=1.5"], "strength must lie above 0 and at most at 1, got 1.5"),
        (["task=edit"], "task=edit needs image=FILE"),
        (["task=edit", "image=PICTURE", "strength=0.1"], "strength=0.1 leaves 1 of the sampler's 3 times"),
    ],
)
def test_mistakes_get_one_message(arguments, message, ckpt, tmp_path, capsys, monkeypatch):
    names = {"PICTURE": picture(tmp_path / "a.png", (20, 12)), "MASK": picture(tmp_path / "b.png", (20, 13))}
    names["NOTES"] = tmp_path / "notes.txt"
    names["NOTES"].write_text("not a picture")
    for key, path in names.items():
        arguments = [word.replace(key, str(path)) for word in arguments]
        message = message.replace(key, str(path))
    assert message in fails(sample, [f"ckpt={ckpt}", *arguments, f"out={tmp_path / 'out'}"], capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels.classes=5"], "labels.classes=5: the images have 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"),
        (["labels.classes=10", "net=mlp", "conditioning=log_sigma"], "net mlp cannot take labels"),
        (["labels.guidance=1"], "needs a model conditioned on labels"),
        (["labels.classes=10", "labels.drop=0", "labels.guidance=1"], "also trained without labels"),
        (["labels.classes=10", "labels.drop=1"], "labels.drop must lie between 0 and 1"),
        (["labels.classes=10", "net.name=unett"], "did you mean unet?"),
        (["objective=hybrid"], "objective hybrid needs learned variances: train with net.learned_variance=true"),
        (["sampler.variance=learned"], "or take sampler.variance=small or large"),
        (["schedule=vp", "objective=variational_bound", "objective.importance=true"], "need discrete levels"),
        (["schedule=geometric", "schedule.sigma_min=0"], "objective.clean=true"),
        (["continuous=true", "schedule=geometric", "conditioning=level"], "visits the levels of a discrete schedule"),
    ],
)  # fmt: skip
def test_mistakes_in_training_leave_nothing_behind(arguments, message, tmp_path, capsys, monkeypatch):
    given = ["exp=ddpm_digits", *arguments, "logger=off", f"out={tmp_path}/runs"]
    assert message in fails(train, given, capsys, monkeypatch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sampler", [["sampler=ddim"], ["sampler=predictor_corrector"]])
def test_inpainting_keeps_what_is_known_to_the_bit(ckpt, tmp_path, sampler):
    image, mask = picture(tmp_path / "a.png", (8, 8)), np.zeros((8, 8), np.uint8)
    mask[2:6, 3:7] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    arguments = [
        f"ckpt={ckpt}",
        "task=inpaint",
        f"image={image}",
        f"mask={tmp_path}/mask.png",
        "n=3",
        f"out={tmp_path}",
    ]
    sample.main([*arguments, *sampler, "sampler.steps=5"])
    images, given = drawn(tmp_path)[..., 0], np.asarray(Image.open(image).convert("L"))
    assert images.shape == (3, 8, 8)
    for one in images:
        assert np.array_equal(one[mask == 0], given[mask == 0])
    assert images[:, mask > 0].std(axis=0).max() > 0
    with Image.open(tmp_path / "samples.png") as shown:
        assert shown.width >= 512


def test_colorization_keeps_the_mean_of_the_channels(colored, tmp_path):
    image = picture(tmp_path / "a.png", (16, 16), mode="L")
    sample.main([f"ckpt={colored}", "task=colorize", f"image={image}", "n=2", f"out={tmp_path}", "sampler.steps=5"])
    gray = read_known({"task": "colorize", "image": image}, Shape(8, 3), PixelRange()).picture[0]
    means = drawn(tmp_path).astype(float).mean(3)
    assert np.abs(means - gray.numpy()).max() <= 1
    assert ((drawn(tmp_path) == 0) | (drawn(tmp_path) == 255)).any()  # also where colors reach the ends of their range


def test_upsampling_keeps_the_means_of_squares(ckpt, tmp_path):
    image = picture(tmp_path / "small.png", (4, 4))
    sample.main([f"ckpt={ckpt}", "task=upsample", f"image={image}", "n=2", f"out={tmp_path}", "sampler.steps=5"])
    small = np.asarray(Image.open(image).convert("L")).astype(float)
    blocks = drawn(tmp_path)[..., 0].astype(float).reshape(2, 4, 2, 4, 2)
    assert np.abs(blocks.mean(axis=(2, 4)) - small).max() <= 1
    assert ((blocks == 0) | (blocks == 255)).any()  # also where pixels are black or white


@pytest.mark.parametrize(
    "words",
    [
        ["task=deblur", "blur=0.8"],
        ["task=deblur", "motion=3,45", "noise=10", "method=pigdm"],
        ["task=inpaint", "noise=25.5", "method=dps"],
        ["task=inpaint", "noise=10"],
        ["task=inpaint", "method=mmps"],
    ],
    ids=" ".join,
)
def test_pictures_with_noise_or_blur_are_restored(ckpt, tmp_path, words):
    image, mask = picture(tmp_path / "a.png", (8, 8), mode="L"), np.zeros((8, 8), np.uint8)
    mask[2:6, 3:7] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masked = [f"mask={tmp_path}/mask.png"] if words[0] == "task=inpaint" else []
    arguments = [f"ckpt={ckpt}", f"image={image}", *masked, *words, "n=2", "sampler=ddim", "sampler.steps=5"]
    sample.main([*arguments, f"out={tmp_path}"])
    images = drawn(tmp_path)
    assert images.shape == (2, 8, 8, 1)
    assert images.std() > 0
    sample.main([*arguments, f"out={tmp_path / 'again'}"])
    assert np.array_equal(drawn(tmp_path / "again"), images)


def test_what_a_picture_says_is_an_observation_in_the_range_of_the_model(tmp_path):
    image = picture(tmp_path / "a.png", (4, 4), mode="L")
    options = {"task": "upsample", "image": image, "noise": 12.0, "method": "pigdm"}
    for low in (-1.0, 0.0):
        posterior = read_known(options, Shape(8, 1), PixelRange(low, 1.0)).measurement
        levels = torch.from_numpy(np.asarray(Image.open(image)).astype(np.float32))
        assert_close(posterior.observation.y, low + (1 - low) * levels[None, None] / 255)
        # rounding adds a twelfth to the variance
        assert posterior.observation.noise == pytest.approx((1 - low) * (144 + 1 / 12) ** 0.5 / 255)
        assert posterior.method == "pigdm"
    chosen = {
        noise: read_known({**options, "noise": noise, "method": "mmps"}, Shape(8, 1), PixelRange()) for noise in (0, 5)
    }
    assert chosen[0].measurement.method == chosen[5].measurement.method == "mmps"
    del options["method"], options["noise"]
    assert isinstance(read_known(options, Shape(8, 1), PixelRange()).measurement, Measurement)
    assert read_known({**options, "noise": 1.0}, Shape(8, 1), PixelRange()).measurement.method == "mmps"


def test_interrupted_images_are_continued_with_the_same_evidence_only(ckpt, tmp_path):
    image, experiment = picture(tmp_path / "a.png", (4, 4), mode="L"), checkpoint.open_checkpoint(ckpt, []).experiment
    generator, generators = experiment.generator(), []
    for words in [{}, {"noise": 5.0}, {"noise": 6.0}, {"noise": 5.0, "method": "dps"}]:
        known = read_known({"task": "upsample", "image": image, **words}, Shape(8, 1), generator.pixels)
        generators.append(replace(generator, measurement=known.measurement))
    generators += [generator, replace(generator, sampler=replace(generator.sampler, strength=0.5))]
    assert len({image_key(experiment, one, 0, torch.device("cpu")) for one in generators}) == len(generators)


def test_editing_leaves_more_of_the_picture_the_less_its_strength(ckpt, tmp_path):
    image, distances = picture(tmp_path / "a.png", (8, 8), mode="L"), []
    given = np.asarray(Image.open(image)).astype(float)
    for strength in ("0.1", "0.4", "1"):
        words = [f"strength={strength}", "sampler=ddim", "sampler.steps=20", "n=4", f"out={tmp_path / strength}"]
        sample.main([f"ckpt={ckpt}", "task=edit", f"image={image}", *words])
        distances.append(np.abs(drawn(tmp_path / strength)[..., 0] - given).mean())
    assert distances[0] < distances[1] < distances[2]
    assert distances[0] < 20
    assert distances[2] > 40


@pytest.mark.slow
def test_interpolation_starts_and_ends_with_the_pictures(ckpt, tmp_path):
    images = [picture(tmp_path / f"{i}.png", (8, 8), i) for i in range(2)]
    sample.main([f"ckpt={ckpt}", "task=interpolate", f"image=[{images[0]},{images[1]}]", "n=4", f"out={tmp_path}"])
    between = drawn(tmp_path)[..., 0].astype(int)
    assert between.shape == (4, 8, 8)
    for one, path in zip(between[[0, -1]], images, strict=True):
        error = np.abs(one - np.asarray(Image.open(path).convert("L")).astype(int))
        assert error.max() <= 1
        # the error of the solver moves pixels at the ends of intervals; rounding to levels would move a quarter of them
        assert (error > 0).mean() < 0.125
    assert np.abs(between[1] - between[0]).max() > 1


def test_networks_of_levels_have_no_latents():
    model = Experiment(config.load(["conditioning=level"], "ncsn_digits")).model.eval()
    with pytest.raises(UserError, match="visits the levels of a discrete schedule only"):
        interpolation(model, torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 3, PixelRange(0, 1))


def test_a_discrete_model_is_sampled_between_its_levels(ckpt, tmp_path):
    for sampler in ("probability_flow", "euler_maruyama"):
        words = [f"sampler={sampler}", "continuous=true", "sampler.steps=4", f"out={tmp_path / sampler}"]
        sample.main([f"ckpt={ckpt}", "n=2", *words])
        assert drawn(tmp_path / sampler).std() > 0


def test_evaluations_of_adaptive_steps_are_counted(ckpt):
    experiment = checkpoint.open_checkpoint(ckpt, ["sampler=probability_flow", "continuous=true"]).experiment
    model, plain = experiment.model, experiment.resolved.plain()
    loose, strict = (
        Experiment(config.change(plain, "x", [f"sampler.{k}={tol}" for k in ("rtol", "atol")])).generator()
        for tol in (1e-2, 1e-4)
    )
    assert 8 < loose.evaluations(model) < strict.evaluations(model)


@pytest.mark.slow
def test_likelihoods_are_part_of_an_evaluation(ckpt, tmp_path, capsys):
    arguments = ["n=30", "sampler.steps=3", "likelihood=4", "schedule.levels=1000", f"out={tmp_path}"]
    evaluate.main([f"ckpt={ckpt}", *arguments, "evaluation.metrics=[fid]"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    flow, bound = metrics["bits_per_dim_flow"], metrics["bits_per_dim_bound"]
    assert 5 < bound < flow  # hardly trained, but the bound clips x_0
    settings = metrics["settings"]["likelihood"]
    assert settings["n"] == 4
    assert settings["standard_error"]["bits_per_dim_flow"] > 0
    assert f"{flow:.4f} ±" in capsys.readouterr().out
    assert "bits_per_dim_bound" in (tmp_path / "report.html").read_text().replace("<wbr>", "")


def test_more_likelihoods_than_images_are_refused(ckpt, tmp_path, capsys, monkeypatch):
    arguments = [f"ckpt={ckpt}", "n=30", "sampler.steps=3", "likelihood=9999", f"out={tmp_path}"]
    assert "between 2 and the 180 held-out images" in fails(evaluate, arguments, capsys, monkeypatch)


def test_deep_and_transparent_pictures_of_a_task_are_read_as_they_look(tmp_path, capsys):
    rng = np.random.default_rng(0)
    levels, hidden = rng.integers(0, 256, (8, 8), dtype=np.uint8), np.zeros((8, 8), bool)
    hidden[:, :3] = True
    color = Image.fromarray(np.stack([levels] * 3, 2))
    color.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    color.save(tmp_path / "image.png")
    mask = np.where(np.arange(64).reshape(8, 8) % 2, 40_000, 20_000).astype(np.uint16)  # of 65535: white, black
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"task": "inpaint", "image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    known = read_known(options, Shape(8, 3, background="black"), PixelRange())
    painted = mask > 30_000
    expected = np.where(painted, 128, np.where(hidden, 0, levels))
    assert np.array_equal(known.picture.numpy(), np.stack([expected] * 3))
    said = capsys.readouterr().out
    assert "image.png: 8 x 8 pixels, with an alpha channel, composited on images.background=black" in said
    assert "mask.png: 8 x 8 pixels, of more than 8 bits, reduced to 8" in said
