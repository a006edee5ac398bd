"""200 damaged files: each is read all the same or refused with one message, and nothing is written or changed."""

import hashlib
import io
import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import GOLDEN, QUICK, SMALL, answer, golden_state, slow_but

from score_lightning import eval as evaluate
from score_lightning import export, import_weights, sample, train

QUIET = ["exp=ddpm_digits", *QUICK, "trainer.max_steps=1", "samples.n=0", "evaluation.n=0", "validation.n=10"]
FEW = ["n=4", "sampler.steps=2", "evaluation.metrics=[fid]", "out=out"]


def picture(size=8, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)).save(file, format)
    return file.getvalue()


def packed(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, picture())
    return file.getvalue()


def saved(contents):
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


def declares(content, size):
    """A zip whose first entry says that it unpacks to so many bytes."""
    place = content.index(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def of_size(width, height):
    """The beginning of a picture that says it is so large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + head + b"\0\0\0\0" + picture()[33:]


IMAGES = np.zeros((6, 8, 8), np.uint8)
OBJECTS = np.array([{1: 2}, None], dtype=object)
SIGMA, MU = np.eye(128), np.zeros(128)
WRONG = [b"", b"hello", b"\x80\x04.", picture(), zipped(["a.png"]), packed(a=MU), saved({})]
SPECIAL = {
    "weights.ckpt": [
        *[saved({"config": config, "state_dict": {}}) for config in ({}, None, {"exp": 1}, {"net": {"name": []}})],
        saved({"config": {}, "state_dict": {"a": 1}}),
        saved({"config": {"exp": "a", "trainer": {"max_steps": 1}}, "state_dict": {"average.model.a": torch.ones(1)}}),
    ],
    "published.pth": [saved(c) for c in ([1], [{}], {"model": 3}, {"a": torch.ones(2)}, {"ema": {"shadow_params": 1}})],
    "pictures/1.png": [of_size(10**9, 10**9), of_size(0, 8), of_size(60_000, 60_000), picture(format="BMP")[:60]],
    "pictures.zip": [
        *[zipped(names) for names in ([], ["a.txt"], ["/etc/a.png", "b.png"], ["../a.png", "../../b.png"], [".a.png"])],
        *[declares(zipped("ab"), 2**32 - 2), declares(zipped(["a.png", "b.png"]), 2**32 - 2)],
    ],
    "images.npz": [
        *[packed(images=a) for a in (OBJECTS, IMAGES[0], IMAGES[:0], IMAGES[:1], IMAGES * np.nan, IMAGES[:, :4], MU)],
        *[packed(images=IMAGES, labels=a) for a in (OBJECTS, MU[:2], np.full(6, -1), IMAGES[:, 0], np.array("a"))],
        declares(packed(images=IMAGES), 2**32 - 2),
        packed(images=IMAGES).replace(b"(6, 8, 8), }  ", b"(6, 8, 8**9),}"),
        packed(images=IMAGES).replace(b"(6, 8, 8), }      ", b"(6, 8, 99999999),}"),
    ],
    "statistics.npz": [
        *[packed(mu=MU, sigma=a) for a in (SIGMA[:5], SIGMA * np.nan, -SIGMA, np.triu(SIGMA + 1), OBJECTS, SIGMA[0])],
        *[packed(mu=a, sigma=SIGMA) for a in (MU[:5], MU + np.inf, OBJECTS, SIGMA, np.array("a"), np.float64(1))],
        packed(mu=MU[:0], sigma=SIGMA[:0, :0]),
        packed(mu=MU),
        declares(packed(mu=MU, sigma=SIGMA), 2**32 - 2),
    ],
    "exported/config.json": [b"[]", b'{"config": 3}', b'{"config": {}, "global_step": "x"}', b'{"config": {"net": 1}}'],
    "exported/model.safetensors": [struct.pack("<Q", n) + b"{}" for n in (0, 2, 10**3, 2**62, 2**64 - 1)],
    "diffusers/unet/config.json": [
        json.dumps(c).encode() for c in (
            [], {"block_out_channels": []}, {"block_out_channels": "x"}, {"block_out_channels": [10**12]},
            {"layers_per_block": -1}, {"layers_per_block": 10**30}, {"sample_size": None}, {"sample_size": 10**9},
            {"norm_num_groups": 0}, {"attention_head_dim": 0}, {"in_channels": 1e400}, {"act_fn": []}, {"norm_eps": ""},
        )
    ],
    "diffusers/scheduler/scheduler_config.json": [
        json.dumps(c).encode() for c in (
            [], {"num_train_timesteps": 0}, {"num_train_timesteps": 10**12}, {"num_train_timesteps": "x"},
            {"beta_start": -1}, {"beta_schedule": []}, {"trained_betas": [None]}, {"prediction_type": 3},
        )
    ],
}  # fmt: skip
COMMANDS = {
    "weights.ckpt": [
        (evaluate.main, ["ckpt=FILE", "reference=images.npz", "features=random", *FEW]),
        (sample.main, ["ckpt=FILE", "n=2", "sampler.steps=2", "out=out"]),
        (train.main, [*QUIET, "trainer.max_steps=5", "resume=FILE"]),
        (train.main, [*QUIET, "init=FILE"]),
    ],
    "published.pth": [(import_weights.main, ["path=FILE", "exp=ddpm_cifar", *SMALL, "out=out.ckpt"])],
    "pictures/1.png": [
        (train.main, [*QUIET, "data=folder", "data.path=pictures"]),
        (evaluate.main, ["images=pictures", "reference=statistics.npz", "n=2"]),
    ],
    "pictures.zip": [
        (train.main, [*QUIET, "data=folder", "data.path=FILE"]),
        (evaluate.main, ["images=FILE", "reference=statistics.npz", "n=2"]),
    ],
    "images.npz": [
        (train.main, [*QUIET, "data=npz", "data.path=FILE"]),
        (evaluate.main, ["images=FILE", "reference=statistics.npz", "n=2"]),
    ],
    "statistics.npz": [(evaluate.main, ["ckpt=weights.ckpt", "reference=FILE", *FEW])],
    "exported/config.json": [(sample.main, ["ckpt=exported", "n=2", "sampler.steps=2", "out=out"])],
    "exported/model.safetensors": [(sample.main, ["ckpt=exported", "n=2", "sampler.steps=2", "out=out"])],
    "diffusers/unet/config.json": [(import_weights.main, ["path=diffusers", "exp=ddpm_digits", "out=out.ckpt"])],
    "diffusers/scheduler/scheduler_config.json": [
        (import_weights.main, ["path=diffusers", "exp=ddpm_digits", "out=out.ckpt"])
    ],
}


@pytest.fixture(scope="session")
def whole(trained, tmp_path_factory):
    """A folder with a whole file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    ckpt = trained / "checkpoints/last.ckpt"
    shutil.copy(ckpt, folder / "weights.ckpt")
    for format in ("safetensors", "diffusers"):
        export.main([f"ckpt={ckpt}", f"format={format}", f"out={folder / format}"])
    (folder / "safetensors").rename(folder / "exported")
    torch.save(golden_state(GOLDEN / "small/ddim.npz")[0], folder / "published.pth")
    (folder / "pictures").mkdir()
    for i in range(3):
        (folder / f"pictures/{i}.png").write_bytes(picture())
    (folder / "pictures.zip").write_bytes(zipped(["0.png", "1.png", "2.png"]))
    (folder / "images.npz").write_bytes(packed(images=IMAGES))
    (folder / "statistics.npz").write_bytes(packed(mu=MU, sigma=SIGMA))
    return folder


def damaged(name, content):
    """Contents that a file may come to have: cut off, overwritten, of another kind, and what its format allows."""
    rng = np.random.default_rng(len(name))
    yield from (content[: int(share * len(content))] for share in (0.01, 0.3, 0.9, 0.999))
    for place in (0, len(content) // 3, len(content) // 2, len(content) - 16):
        yield content[:place] + rng.bytes(16) + content[place + 16 :]
    yield from WRONG
    yield from SPECIAL[name]


def tree(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but({"weights.ckpt", "pictures/1.png", "published.pth"}, COMMANDS))
def test_damaged_files_are_read_all_the_same_or_refused(name, whole, tmp_path, monkeypatch):
    folder = tmp_path / "files"
    shutil.copytree(whole, folder)
    monkeypatch.chdir(folder)
    for i, content in enumerate(damaged(name, (whole / name).read_bytes())):
        (folder / name).write_bytes(content)
        before = tree(folder)
        call, words = COMMANDS[name][i % len(COMMANDS[name])]
        message = answer(call, [word.replace("FILE", name) for word in words])
        after = tree(folder)
        assert before.items() <= after.items(), f"damage {i} changed a file"
        if message is not None:
            assert 0 < len(message) < 5000
            assert before == after, f"damage {i}: {message}"
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.rmtree(folder / "runs", ignore_errors=True)
        (folder / "out.ckpt").unlink(missing_ok=True)


@pytest.mark.slow
def test_there_are_two_hundred_damages(whole):
    assert sum(len(list(damaged(name, (whole / name).read_bytes()))) for name in COMMANDS) >= 200
    assert set(SPECIAL) == set(COMMANDS)
    assert all(Path(whole / name).is_file() for name in COMMANDS)
