"""ADM's weights, as guided-diffusion and EDM publish them, through the commands to the published output."""

import os
import pickle

import numpy as np
import pytest
import torch
from support import GOLDEN, fails, golden_state

from score_lightning import checkpoint, export, import_weights, sample, train

ADM_64 = [
    "exp=adm_imagenet64", "images.size=32", "labels.classes=7", "net.channels=32", "net.attention=[16,8,4]",
    "net.head_channels=32",
]  # fmt: skip
ADM_128 = [
    "exp=adm_imagenet128", "images.size=16", "labels.classes=null", "net.channels=32", "net.multipliers=[1,1,2]",
    "net.attention=[8,4]",
]  # fmt: skip
EDM = [
    "exp=edm_imagenet64", "images.size=16", "labels.classes=7", "net.channels=128", "net.multipliers=[1,2]",
    "net.blocks=1", "net.attention=[8]",
]  # fmt: skip


@pytest.fixture
def publish(tmp_path):
    """A function that writes the state dict of a golden file, changed, and gives the file and the other arrays."""

    def publish(case, change=dict):
        state, golden = golden_state(GOLDEN / f"small/{case}.npz")
        torch.save(change(state), tmp_path / "published.pt")
        return tmp_path / "published.pt", golden

    return publish


def imported(path, words):
    import_weights.main([f"path={path}", *words, f"out={path.parent / 'a.ckpt'}"])
    return checkpoint.load(path.parent / "a.ckpt")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("adm_64", ADM_64),
        pytest.param("adm_64", [*ADM_64, "format=guided-diffusion"], marks=pytest.mark.slow),
        ("adm_128", ADM_128),
        ("adm_128", [*ADM_128, "format=improved-diffusion"]),  # the same layout
    ],
)
def test_guided_diffusions_weights_give_its_output(case, words, publish, capsys):
    path, golden = publish(case)
    model = imported(path, words)
    named = [word for word in words if word.startswith("format=")] or ["format=guided-diffusion"]
    assert f"{named[0]}, as they are" in capsys.readouterr().out
    with torch.no_grad():
        estimate = model(golden["x"], golden["arg_0"], golden.get("labels"))
    y = torch.cat([estimate.eps, 2 * estimate.fraction - 1], 1)
    assert (y - golden["y"]).norm() / golden["y"].norm() < 1e-4


@pytest.mark.slow
def test_the_order_of_query_key_and_value_matters(publish):
    path, golden = publish("adm_64")
    model = imported(path, [*ADM_64, "net.heads_first=true"])
    with torch.no_grad():
        eps = model(golden["x"], golden["arg_0"], golden["labels"]).eps
    assert (eps - golden["y"][:, :3]).norm() / golden["y"][:, :3].norm() > 0.01


@pytest.mark.parametrize("prefix", ["", "model."])
def test_edms_adm_gives_its_output_inside_its_preconditioning(prefix, publish):
    path, golden = publish("edm_adm", lambda state: {prefix + name: value for name, value in state.items()})
    model, sigma = imported(path, EDM), torch.exp(4 * golden["arg_0"].double())
    s = sigma.float().view(-1, 1, 1, 1)
    x_t = golden["x"] * (s**2 + 0.25).sqrt()
    with torch.no_grad():
        x_0 = model(x_t, sigma, golden["labels"]).x_0
    expected = 0.25 / (s**2 + 0.25) * x_t + 0.5 * s / (s**2 + 0.25).sqrt() * golden["y"]
    assert (x_0 - expected).norm() / expected.norm() < 1e-5
    scaled = (x_0 - 0.25 / (s**2 + 0.25) * x_t) / (0.5 * s) * (s**2 + 0.25).sqrt()
    assert (scaled - golden["y"]).norm() / golden["y"].norm() < 1e-4


def test_imported_networks_are_sampled_exported_and_trained_further(publish, tmp_path):
    imported(publish("adm_128")[0], ADM_128)
    ckpt, words = tmp_path / "a.ckpt", ["n=2", "sampler=ddim", "sampler.steps=2"]
    sample.main([f"ckpt={ckpt}", *words, f"out={tmp_path / 'drawn'}"])
    drawn = np.load(tmp_path / "drawn/samples.npz")["images"]
    assert drawn.shape == (2, 16, 16, 3)
    export.main([f"ckpt={ckpt}", "format=safetensors", f"out={tmp_path / 'folder'}"])
    sample.main([f"ckpt={tmp_path / 'folder'}", *words, f"out={tmp_path / 'again'}"])
    assert np.array_equal(np.load(tmp_path / "again/samples.npz")["images"], drawn)
    train.main([f"init={ckpt}", *ADM_128, "net.heads_first=false", "dry_run=true"])  # a file's order, not the network's


def test_networks_with_labels_are_sampled_by_class_and_without_guidance(publish, tmp_path, capsys, monkeypatch):
    imported(publish("edm_adm")[0], EDM)
    words = [f"ckpt={tmp_path / 'a.ckpt'}", "n=2", "sampler.steps=2", f"out={tmp_path / 'drawn'}"]
    sample.main([*words, "label=3"])  # by the recipe's stochastic sampler
    assert np.load(tmp_path / "drawn/samples.npz")["images"].shape == (2, 16, 16, 3)
    assert "also trained without labels" in fails(sample, [*words, "labels.guidance=1"], capsys, monkeypatch)


@pytest.mark.slow
def test_what_diffusers_has_an_equal_for_is_exported_with_the_same_output(publish, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    path, golden = publish("adm_64")
    imported(path, ADM_64)
    export.main([f"ckpt={tmp_path / 'a.ckpt'}", "format=diffusers", f"out={tmp_path / 'pipeline'}"])
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "pipeline")
    with torch.no_grad():
        y = pipeline.unet(golden["x"], golden["arg_0"], golden["labels"]).sample
    assert (y - golden["y"]).norm() / golden["y"].norm() < 1e-4
    assert pipeline.scheduler.config["variance_type"] == "learned_range"


@pytest.mark.parametrize(
    ("case", "words", "message"),
    [("adm_128", ADM_128, "counts channels per head"), ("edm_adm", EDM, "this is a unet conditioned on edm")],
)
def test_what_diffusers_has_no_equal_for_is_named(case, words, message, publish, tmp_path, capsys, monkeypatch):
    imported(publish(case)[0], words)
    words = [f"ckpt={tmp_path / 'a.ckpt'}", "format=diffusers", f"out={tmp_path / 'pipeline'}"]
    assert message in fails(export, words, capsys, monkeypatch)
    assert not (tmp_path / "pipeline").exists()


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def upsampler(state):
    """A network of super-resolution, which takes the small image beside the noisy one."""
    first = state["input_blocks.0.0.weight"]
    return {**state, "input_blocks.0.0.weight": torch.cat([first, first], 1)}


def classifier(state):
    encoder = {key: value for key, value in state.items() if not key.startswith(("out", "label_emb"))}
    return {**encoder, "out.2.qkv_proj.weight": torch.ones(3, 1, 1), "out.2.c_proj.weight": torch.ones(1, 1, 1)}


@pytest.mark.parametrize(
    ("case", "change", "words", "message"),
    [
        ("adm_64", without("time_embed.0.weight"), ADM_64, "1 entry missing: time_embed.0.weight"),
        ("adm_64", lambda state: {**state, "extra.weight": torch.ones(1)}, ADM_64, "1 entry unexpected: extra.weight"),
        ("adm_64", upsampler, ADM_64, "input_blocks.0.0.weight, of shape (32, 6, 3, 3), for one of (32, 3, 3, 3)"),
        ("adm_64", classifier, ADM_64, "a classifier of guided-diffusion for classifier guidance"),
        ("adm_64", dict, [*ADM_64, "labels.classes=5"], "label_emb.weight, of shape (7, 128), for one of (6, 128)"),
        ("adm_64", dict, [*ADM_64, "net.learned_variance=false", "sampler=ddim", "objective=denoising"], "out.2.bias"),
        ("adm_64", dict, [*ADM_64, "format=edm"], "looks like format=guided-diffusion"),
        ("adm_64", dict, ["exp=edm_ffhq"], "holds a UNet, exp=edm_ffhq has a NCSNpp"),
        ("adm_64", dict, ["exp=iddpm_imagenet64_labels", *ADM_64[1:]], "entries missing: input_blocks"),
        ("iddpm_labels", dict, [*ADM_64, "images.size=16", "net.attention=[8,4]"], "entries missing: input_blocks"),
        ("edm_adm", without("out_norm.bias"), EDM, "1 entry missing: model.out_norm.bias"),
        ("edm_adm", lambda state: {**state, "map_x.bias": torch.ones(1)}, EDM, "1 entry unexpected: model.map_x.bias"),
        ("edm_adm", dict, ["exp=edm_ffhq", "images.size=16"], "not the recipe's network in format=edm"),
        ("edm_ddpmpp", dict, EDM, "not the recipe's network in format=edm"),
        ("edm_adm", dict, [*ADM_64, "images.size=16", "net.attention=[8]"], "not the recipe's network in format=edm"),
        ("edm_adm", lambda state: {"ema": state, "code": Harmful()}, EDM, "would run code"),
        ("adm_64", lambda state: {"model": state, "code": Harmful()}, ADM_64, "would run code"),
    ],
)
def test_what_is_no_such_network_is_named_and_leaves_nothing(
    case, change, words, message, publish, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    path, _ = publish(case, change)
    assert message in fails(import_weights, [f"path={path}", *words, f"out={tmp_path / 'a.ckpt'}"], capsys, monkeypatch)
    assert [file.name for file in tmp_path.iterdir()] == ["published.pt"]


def test_edms_snapshot_is_refused_with_the_way_to_a_state_dict(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    (tmp_path / "edm-imagenet-64x64-cond-adm.pkl").write_bytes(pickle.dumps({"ema": Harmful()}))
    words = [f"path={tmp_path / 'edm-imagenet-64x64-cond-adm.pkl'}", *EDM, f"out={tmp_path / 'a.ckpt'}"]
    assert "['ema'].state_dict()" in fails(import_weights, words, capsys, monkeypatch)
    assert [file.name for file in tmp_path.iterdir()] == ["edm-imagenet-64x64-cond-adm.pkl"]
