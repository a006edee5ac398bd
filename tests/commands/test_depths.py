"""Pictures that are no squares of 8 bits, from training to evaluation, as commands are typed."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import QUICK, fails, run

from score_lightning import eval as evaluate
from score_lightning import sample, train

SMALL = ["images.size=[64,96]", "images.channels=5", "images.depth=16", "net=unet_light", "net.patch=8"]


def ramp(i):
    """Five channels around 6000, 11000, ... that rise by up to 12000, by rows or by columns: uint16 (64, 96, 5)."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:64, :96]
    rise = 12_000 * rng.uniform(0.5, 1) * (x / 95 if i % 2 else y / 63)
    levels = np.stack([6000 + 5000 * c + rise for c in range(5)], 2) + rng.normal(0, 50, (64, 96, 5))
    return levels.round().astype(np.uint16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(100):
        path = folder / ("columns" if i % 2 else "rows") / f"{i}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, ramp(i), photometric="minisblack", planarconfig="contig")
    return folder


@pytest.mark.slow
def test_pictures_of_64_x_96_pixels_with_5_channels_of_16_bits_are_learned(pictures, tmp_path):
    words = [
        "exp=ddpm_digits", "data=folder", f"data.path={pictures}", "data.validation=0.1", *SMALL, "prediction=x_0",
        "objective.weight=min_snr", "objective.gamma=1", "trainer.batch_size=16", "trainer.progress=false",
        "validation.n=20", "samples.n=4", "evaluation.n=0", "logger=off", f"out={tmp_path}",
    ]  # fmt: skip
    train.main([*words, "trainer.max_steps=60"])
    train.main([*words, "trainer.max_steps=200", "resume=auto"])
    folder = tmp_path / "ddpm_digits/0"
    ckpt = f"ckpt={folder / 'checkpoints/last.ckpt'}"
    sample.main([ckpt, "n=8", f"out={tmp_path}"])
    images = np.load(tmp_path / "samples.npz")["images"]
    assert (images.dtype, images.shape) == (np.uint16, (8, 64, 96, 5))
    means = images.mean((0, 1, 2))
    truth = np.stack([ramp(i) for i in range(100)]).mean((0, 1, 2))
    assert np.abs(means - truth).max() < 2000, means  # of 65,535
    assert images.std((1, 2)).mean() < 6000  # no noise is left: of the data it is about 2600
    evaluate.main([ckpt, "n=20", f"out={tmp_path}"])
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["settings"]["features"] == "classifier"
    assert metrics["fid_classifier"] >= 0
    with Image.open(folder / "samples/step_0000200.png") as grid:
        assert grid.width > 5 * 96  # channels side by side


@pytest.mark.slow
def test_floats_of_a_stated_range_are_trained_sampled_evaluated_and_continued(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "heights.npy", rng.uniform(-400, 8000, (40, 8, 16)).astype(np.float32))
    words = ["data=npz", f"data.path={tmp_path / 'heights.npy'}", "images.size=[8,16]", "images.depth=float"]
    words += ["net.attention=[4]", "features=auto", "images.input_range=[-400,8000]"]
    folder = run(tmp_path / "runs", *words)
    assert (folder / "samples").is_dir()
    ckpt = f"ckpt={folder / 'checkpoints/last.ckpt'}"
    sample.main([ckpt, "n=4", f"out={tmp_path}"])
    images = np.load(tmp_path / "samples.npz")["images"]
    assert (images.dtype, images.shape) == (np.float32, (4, 8, 16, 1))
    assert images.min() >= -400
    assert images.max() <= 8000
    assert images.max() > 256
    small = np.full((4, 8), 2000, np.float32)
    tifffile.imwrite(tmp_path / "small.tif", small)
    sample.main([ckpt, "n=2", "task=upsample", f"image={tmp_path / 'small.tif'}", f"out={tmp_path}"])
    blocks = np.load(tmp_path / "samples.npz")["images"].reshape(2, 4, 2, 8, 2).swapaxes(2, 3).reshape(-1, 4)
    inside = blocks[(blocks.min(1) > -400) & (blocks.max(1) < 8000)]  # others were clipped to the range afterwards
    assert len(inside) > 5
    assert np.abs(inside.mean(1) - 2000).max() < 0.1
    evaluate.main([ckpt, "n=20", f"out={tmp_path}"])
    assert "fid_pixels" in json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    sample.main([ckpt, "n=30", f"out={tmp_path}"])
    given = [f"images={tmp_path / 'samples.npz'}", f"reference={tmp_path / 'heights.npy'}", "features=pixels"]
    evaluate.main([*given, "images.depth=float", "images.input_range=[-400,8000]", f"out={tmp_path / 'again'}"])
    assert json.loads((tmp_path / "again/metrics.json").read_text(encoding="utf-8"))["settings"]["n"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images.size=[64,96]", "net.patch=16"], "must each be a multiple of 4; got 4 x 6"),
        (["images.size=[64,90]"], "patch must divide the image size of (64, 90), got 8"),
        (["images.size=[64]"], "images.size must be N or [H,W] pixels and images.channels positive, got [64], 5"),
        (["images.size=[64,96.5]"], "images.size must be N or [H,W] pixels"),
        (["images.channels=0"], "images.channels positive, got [64, 96], 0"),
        (["images.depth=12"], "images.depth must be 8, 16 or float, got '12'"),
        (["images.depth=float"], "images.input_range must be [black,white], the stored values of both"),
        (["images.input_range=[5,1]"], "black < white, got [5, 1]"),
        (["images.input_range=[0,70000]"], "whole numbers from 0 to 65535"),
        (["images.depth=8"], "holds pixels of type uint16, from 5"),
        (["images.channels=3"], "64 x 96 pixels with 5 channels, the network takes 64 x 96 with 3"),
        (["images.input_range=[0,20000]"], "images.input_range has 16 bits from 0 to 20000: set it to hold them all"),
        (
            ["features=random"],
            "random cannot take images of shape (5, 64, 96) with pixels of 16 bits: it is of",
        ),
        (["images.augment=0.1", "net=ncsnpp"], "images.augment is of squares"),
    ],
)
def test_sizes_depths_and_channels_that_do_not_fit_are_one_message(words, message, tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "a.npz", images=np.stack([ramp(i) for i in range(6)]), labels=np.arange(6) % 2)
    data = ["data=npz", f"data.path={tmp_path / 'a.npz'}", "data.validation=0.34"]
    given = ["exp=ddpm_digits", *QUICK, *data, *SMALL, f"out={tmp_path / 'runs'}", "evaluation.n=2", *words]
    assert message in fails(train, given, capsys, monkeypatch)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.ckpt"))
