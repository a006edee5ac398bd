"""Files as their authors published them, through the command, to the published output."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import GOLDEN, SMALL, fails, golden_state, slow_but

from score_lightning import checkpoint, export, import_weights, sample, train
from score_lightning import eval as evaluate
from score_lightning.errors import UserError


def optimizer():
    """The state of an optimizer with NumPy's numbers in it, as learning rates of score_sde_pytorch are."""
    return {"state": {}, "param_groups": [{"lr": np.float64(2e-4) * np.minimum(1.0, 0.5), "betas": (0.9, 0.999)}]}


def wrapped(state):
    """Weights of a network in DataParallel, other ones than the average."""
    return {f"module.{name}": value + 1 for name, value in state.items()}


def as_list(state):
    return [wrapped(state), optimizer(), 3, 777, {key: v for key, v in state.items() if key != "sigmas"}]


def as_ncsn(state):
    return [{f"module.{name}": value for name, value in state.items()}, optimizer()]


def as_score_sde(state):
    frozen = ("sigmas", "all_modules.0.W")
    model = {name: state[name.removeprefix("module.")] if "0.W" in name else v for name, v in wrapped(state).items()}
    average = {"decay": 0.999, "num_updates": 5, "shadow_params": [v for key, v in state.items() if key not in frozen]}
    return {"optimizer": optimizer(), "model": model, "ema": average, "step": 777}


def eps_of(model, x, t):
    return model(x, t.long()).eps


def score_of_level(model, x, level):
    return model(x, model.schedule.levels - 1 - level).score


def score_of_sigma(model, x, sigma):
    return model(x, model.schedule.time_of(sigma.double())).score


# arg_0 of iDDPM is what the network is given; its recipe gives it a quarter of the time
CASES = {
    "ddpm_ddim_cifar10": ("ddim", "ddpm_cifar", as_list, eps_of, 777),
    "iddpm_cifar10": ("improved-diffusion", "iddpm_cifar", dict, lambda m, x, t: m.net(x, t), 0),
    "ncsn_cifar10": ("ncsn", "ncsn_cifar", as_ncsn, score_of_level, 0),
    "ncsnv2_cifar10": ("ncsnv2", "ncsnv2_cifar", as_list, score_of_level, 777),
    "sde_ve_cifar10_ncsnpp_continuous": (
        "score_sde", "ncsnpp_ve_cifar_continuous", as_score_sde, score_of_sigma, 777
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", slow_but({"ncsn_cifar10"}, CASES))
def test_published_checkpoints_give_the_published_output(case, tmp_path, capsys):
    name, exp, published, output, step = CASES[case]
    state, golden = golden_state(GOLDEN / f"{case}.npz")
    path, out = tmp_path / "published.pth", tmp_path / "new/imported.ckpt"
    torch.save(published(state), path, _use_new_zipfile_serialization=name != "ncsn")
    named = [f"format={name}"] if case == "iddpm_cifar10" else []
    import_weights.main([f"path={path}", f"exp={exp}", f"out={out}", *named])
    assert f"format={name}" in capsys.readouterr().out
    model = checkpoint.load(out)
    with torch.no_grad():
        y = output(model, golden["x"], golden["arg_0"])
    assert (y - golden["y"]).norm() / golden["y"].norm() < 1e-4
    contents = checkpoint.read(out)
    assert contents["global_step"] == step
    assert contents["imported"]["format"] == name
    assert [file.name for file in out.parent.iterdir()] == ["imported.ckpt"]


@pytest.mark.slow
def test_the_network_of_improved_ddpm_is_given_times_of_a_thousand_levels(tmp_path):
    state, _ = golden_state(GOLDEN / "iddpm_cifar10.npz")
    torch.save(state, tmp_path / "ema.pt")
    import_weights.main([f"path={tmp_path / 'ema.pt'}", "exp=iddpm_cifar", f"out={tmp_path / 'a.ckpt'}"])
    model, x = checkpoint.load(tmp_path / "a.ckpt"), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        eps, fraction = model.net(x, torch.tensor([999.75])).chunk(2, 1)
        estimate = model(x, torch.tensor(3999))
    torch.testing.assert_close(estimate.eps, eps)
    torch.testing.assert_close(estimate.fraction, (fraction + 1) / 2)


@pytest.fixture
def published(tmp_path):
    state, _ = golden_state(GOLDEN / "small/ddim.npz")
    torch.save(state, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def test_imported_weights_are_sampled_like_any_checkpoint(published, tmp_path):
    out = tmp_path / "imported.ckpt"
    import_weights.main([f"path={published}", "exp=ddpm_cifar", f"out={out}", *SMALL])
    sample.main([f"ckpt={out}", "n=2", f"out={tmp_path / 'drawn'}", "sampler=ddim", "sampler.steps=2"])
    assert np.load(tmp_path / "drawn/samples.npz")["images"].shape == (2, 16, 16, 3)


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "truncated, damaged or no checkpoint"),
        ("text", "truncated, damaged or no checkpoint"),
        ("torch", "would run code"),
        ("pickle", "would run code"),
        ("nothing", "holds no weights"),
        ("other", "closest known format is ddim"),
        ("missing", "1 entry missing: temb.dense.0.weight"),
        ("shape", "of another shape"),
        ("format=score_sde", "looks like format=ddim"),
        ("exp=ncsn_cifar", "holds a UNet, exp=ncsn_cifar has a RefineNet"),
        ("format=dim", "did you mean ddim?"),
    ],
)
def test_what_cannot_be_imported_is_named_and_leaves_nothing(damage, message, published, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    state, words = torch.load(published), [f"path={published}", *SMALL]
    if damage == "truncated":
        published.write_bytes(published.read_bytes()[:-1000])
    elif damage == "text":
        published.write_text("<html>404</html>")
    elif damage == "torch":
        torch.save({"model": state, "ema": Harmful()}, published)
    elif damage == "pickle":
        published.write_bytes(pickle.dumps({"ema": Harmful()}))
    elif damage == "nothing":
        torch.save({"epoch": 3}, published)
    elif damage == "other":
        torch.save({name.replace("temb.dense", "time.dense"): value for name, value in state.items()}, published)
    elif damage == "missing":
        torch.save({name: value for name, value in state.items() if name != "temb.dense.0.weight"}, published)
    elif damage == "shape":
        words += ["net.channels=64"]
    else:
        words = [*words, damage]
    if not damage.startswith("exp="):
        words += ["exp=ddpm_cifar"]
    else:
        words = [word for word in words if "net." not in word]
    before = sorted(tmp_path.iterdir())
    assert message in fails(import_weights, [*words, f"out={tmp_path / 'out.ckpt'}"], capsys, monkeypatch)
    assert sorted(tmp_path.iterdir()) == before


UNET_TINY = ["exp=ddpm_digits", "net=unet_tiny", "prediction=eps"]
SMALL_SDE = ["net.channels=16", "net.multipliers=[1,2,2]", "net.blocks=1", "net.attention=[8]", "images.size=16"]


@pytest.mark.parametrize("exp", ["ddpmpp_vp_cifar_continuous", "ddpmpp_subvp_cifar_continuous"])
def test_continuous_networks_are_told_the_time_in_units_of_a_thousand(exp, tmp_path):
    state, golden = golden_state(GOLDEN / "small/sde_ddpmpp.npz")
    torch.save(state, tmp_path / "published.pth")
    import_weights.main([f"path={tmp_path / 'published.pth'}", f"exp={exp}", f"out={tmp_path / 'a.ckpt'}", *SMALL_SDE])
    with torch.no_grad():  # arg_0 is 777
        eps = checkpoint.load(tmp_path / "a.ckpt")(golden["x"], golden["arg_0"] / 999).eps
    torch.testing.assert_close(eps, golden["y"], rtol=1e-4, atol=1e-4)


def test_edm_is_preconditioned_and_told_labels(tmp_path):
    state, golden = golden_state(GOLDEN / "small/edm_ddpmpp.npz")
    path, out = tmp_path / "edm.pt", tmp_path / "a.ckpt"
    torch.save({f"model.{name}": value for name, value in state.items()}, path)
    small = [word.replace("[1,2,2]", "[2,2]") for word in SMALL_SDE]
    import_weights.main([f"path={path}", "exp=edm_cifar_labels", f"out={out}", *small])
    model, n = checkpoint.load(out), 3.0
    y, labels, c = golden["x"], golden["labels"], torch.tensor(n).log() / 4
    with torch.no_grad():
        raw = model.net(y / (n**2 + 0.25) ** 0.5, c.expand(2), labels)
        x_0 = model(y, torch.tensor(n), labels).x_0
    expected = 0.25 / (n**2 + 0.25) * y + n * 0.5 / (n**2 + 0.25) ** 0.5 * raw
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-5)
    assert train.main([f"init={out}", "exp=edm_cifar_labels", *small, "dry_run=true"]) is None
    words = [f"init={out}", "exp=edm_cifar_labels", *small, "dry_run=true", "images.augment=0", "net.augmentation=9"]
    train.main(words)  # the same network, no longer conditioned on augmentation


def test_noise_levels_in_the_file_are_compared(tmp_path, capsys, monkeypatch):
    state, _ = golden_state(GOLDEN / "small/ncsnv2_deeper.npz")
    words = [
        f"path={tmp_path / 'a.pth'}",
        "exp=ncsnv2_church",
        "net.channels=16",
        "images.size=16",
        f"out={tmp_path / 'a.ckpt'}",
    ]
    torch.save({**state, "sigmas": torch.logspace(1, -1, 5)}, tmp_path / "a.pth")
    assert "its 5 noise levels go from 10 to 0.1" in fails(import_weights, words, capsys, monkeypatch)
    import_weights.main([*words, "schedule.levels=5", "schedule.sigma_max=10", "schedule.sigma_min=0.1"])


def test_starting_from_other_weights_lists_every_difference(published, tmp_path, capsys, monkeypatch):
    out = tmp_path / "imported.ckpt"
    import_weights.main([f"path={published}", "exp=ddpm_cifar", f"out={out}", *SMALL])
    words = [f"init={out}", "exp=ddpm_cifar", *SMALL, "labels.classes=10", "images.channels=1", "dry_run=true"]
    monkeypatch.setattr("sys.argv", ["x", *words])
    with pytest.raises(UserError) as error:
        train.main(words)
    assert str(error.value).splitlines()[1:] == [
        "  net.conv_in.weight: (32, 3, 3, 3) in the file, (32, 1, 3, 3) in the network",
        "  net.conv_out.bias: (3,) in the file, (1,) in the network",
        "  net.conv_out.weight: (3, 32, 3, 3) in the file, (1, 32, 3, 3) in the network",
        "  net.label.weight: none in the file, (11, 128) in the network",
    ]
    assert "start from it with init=" in fails(train, [f"resume={out}"], capsys, monkeypatch)


def test_where_the_checkpoint_cannot_be_written_is_said_before_or_without_a_trace(
    published, tmp_path, capsys, monkeypatch
):
    words = [f"path={published}", "exp=ddpm_cifar", *SMALL]
    (tmp_path / "notes.txt").write_text("mine")
    for out, message in [
        (tmp_path, "must be a file to write"), (tmp_path / "notes.txt/a.ckpt", "cannot be written"),
        ("", "out= is empty"), (published, "the published file itself"),
    ]:  # fmt: skip
        assert message in fails(import_weights, [*words, f"out={out}"], capsys, monkeypatch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "notes.txt"]


def test_a_pickle_of_edm_is_refused_with_the_way_to_a_state_dict(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps({"ema": Harmful(), "loss_fn": Harmful()}))
    words = [f"path={tmp_path / 'edm.pkl'}", "format=edm", "exp=edm_cifar", f"out={tmp_path / 'a.ckpt'}"]
    assert "['ema'].state_dict()" in fails(import_weights, words, capsys, monkeypatch)
    assert [file.name for file in tmp_path.iterdir()] == ["edm.pkl"]


def test_no_damage_to_a_file_gets_past_with_a_traceback(published, tmp_path, capsys, monkeypatch):
    whole, rng = published.read_bytes(), np.random.default_rng(0)
    names = zipfile.ZipFile(io.BytesIO(whole)).namelist()
    assert any(name.endswith("data.pkl") for name in names)
    words = [f"path={published}", "exp=ddpm_cifar", *SMALL, f"out={tmp_path / 'out.ckpt'}"]
    for _ in range(10):
        broken = bytearray(whole[: rng.integers(1, len(whole) // 2)])
        broken[rng.integers(len(broken))] ^= 0xFF
        published.write_bytes(broken)
        fails(import_weights, words, capsys, monkeypatch)
    assert not (tmp_path / "out.ckpt").exists()


@pytest.fixture
def pipeline(ckpt, tmp_path):
    """A folder of diffusers with the averaged weights of a short training, and those weights."""
    export.main([f"ckpt={ckpt}", "format=diffusers", f"out={tmp_path / 'pipeline'}"])
    return tmp_path / "pipeline", load_file(tmp_path / "pipeline/unet/diffusion_pytorch_model.safetensors")


def imported(folder, capsys):
    """The imported network, as diffusers has it, and what was printed."""
    out = folder.parent / "imported"
    import_weights.main([f"path={folder}", *UNET_TINY, f"out={out}.ckpt"])
    printed = capsys.readouterr().out
    export.main([f"ckpt={out}.ckpt", "format=diffusers", f"out={out}"])
    return load_file(out / "unet/diffusion_pytorch_model.safetensors"), printed


def save(state, path):
    """Weights in the files that diffusers saves: one, or two where the path is that of their index."""
    write = save_file if ".safetensors" in path.name else torch.save
    if path.suffix != ".json":
        write(state, path)
        return
    names, parts = list(state), {}
    for i, part in enumerate((names[:5], names[5:]), start=1):
        file = f"diffusion_pytorch_model-0000{i}-of-00002.{'bin' if '.bin' in path.name else 'safetensors'}"
        write({name: state[name] for name in part}, path.with_name(file))
        parts |= dict.fromkeys(part, file)
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": parts}))


@pytest.mark.parametrize(
    "name",
    [
        "fp16.safetensors", "fp16.bin", "bin", "safetensors.index.json", "safetensors.index.fp16.json",
        "bin.index.json",
    ],
)  # fmt: skip
def test_variants_and_shards_of_diffusers_are_read(name, pipeline, capsys):
    folder, state = pipeline
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    kind = torch.half if "fp16" in name else torch.float
    save({key: value.to(kind) for key, value in state.items()}, folder / f"unet/diffusion_pytorch_model.{name}")
    again, printed = imported(folder, capsys)
    assert f"weights: unet/diffusion_pytorch_model.{name}\n" in printed
    assert all(torch.equal(again[key], value.to(kind).float()) for key, value in state.items())
    if name.endswith(".json"):  # the index can be given, too
        words = [f"path={folder}/unet/diffusion_pytorch_model.{name}", *UNET_TINY]
        import_weights.main([*words, f"out={folder.parent / 'a.ckpt'}"])


def test_of_several_variants_the_one_in_full_precision_is_read(pipeline, capsys):
    folder, state = pipeline
    unet, zeros = folder / "unet", {key: torch.zeros_like(value) for key, value in state.items()}
    first = unet / "diffusion_pytorch_model.safetensors"
    names = ["bin", "bin.index.json", "fp32.safetensors", "fp16.safetensors", "fp16.bin"]
    for name in names:
        save(zeros, unet / f"diffusion_pytorch_model.{name}")
    again, printed = imported(folder, capsys)
    assert all(torch.equal(again[key], value) for key, value in state.items())
    others = ", ".join(f"diffusion_pytorch_model.{name}" for name in names)
    assert f"weights: unet/{first.name}, rather than {others}\n" in printed


@pytest.mark.parametrize("both", [True, False])
def test_the_average_that_diffusers_trains_is_read_with_or_without_the_weights(both, pipeline, tmp_path, capsys):
    folder, state = pipeline
    (folder / "unet").rename(folder / "unet_ema")
    if both:
        (folder / "unet").mkdir()
        (folder / "unet/config.json").write_bytes((folder / "unet_ema/config.json").read_bytes())
        save({key: value * 0 for key, value in state.items()}, folder / "unet/diffusion_pytorch_model.bin")
    again, printed = imported(folder, capsys)
    assert all(torch.equal(again[key], value) for key, value in state.items())
    assert ("weights: unet/diffusion_pytorch_model.bin\n" in printed) == both
    what = "their average" if both else "weights"
    assert f"{what}: unet_ema/diffusion_pytorch_model.safetensors\n" in printed
    raw = checkpoint.open_checkpoint(tmp_path / "imported.ckpt", [], "raw").experiment.model
    assert any(p.any() for p in raw.parameters()) != both


PIPELINES = {
    "StableDiffusionPipeline": {"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPText"]},
    "LDMPipeline": {"vqvae": ["diffusers", "VQModel"]},
    "DiTPipeline": {"transformer": ["diffusers", "Transformer2DModel"]},
}


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("given", ["", "unet", "unet/diffusion_pytorch_model.safetensors"])
def test_networks_that_do_not_make_images_by_themselves_are_refused(name, given, pipeline, tmp_path):
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    index = {"_class_name": name, "safety_checker": [None, None], **PIPELINES[name], **parts}
    (pipeline[0] / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=rf"a pipeline \({name}\) with {', '.join(sorted(PIPELINES[name]))}: only"):
        import_weights.main([f"path={pipeline[0] / given}", *UNET_TINY, f"out={tmp_path / 'a.ckpt'}"])


def test_an_autoencoder_is_noticed_without_an_index_and_other_pipelines_of_one_network_are_read(pipeline, capsys):
    folder, state = pipeline
    (folder / "model_index.json").write_text('{"_class_name": "MyPipeline", "unet": ["diffusers", "UNet2DModel"]}')
    assert imported(folder, capsys)[0].keys() == state.keys()
    (folder / "model_index.json").unlink()
    (folder / "vae").mkdir()
    with pytest.raises(UserError, match="with vae: only a UNet2DModel that makes images by itself"):
        import_weights.main([f"path={folder}", *UNET_TINY, f"out={folder.parent / 'a.ckpt'}"])


@pytest.mark.parametrize(
    ("damage", "given", "message"),
    [
        ("shard", "", "2 files of weights beside it, 1 of them missing: diffusion_pytorch_model-00002-of-00002.bin"),
        ("one of two", "unet/diffusion_pytorch_model-00001-of-00002.bin", "one of 2: give the index"),
        ("index", "", "it has no weight_map"),
        ("name", "", "but it has config.json, model.safetensors"),
        ("average", "", "unet_ema has no weights: expected diffusion_pytorch_model.safetensors or"),
        ("scheduler", "", "its scheduler, ScoreSdeVeScheduler, has no betas"),
        (
            "config",
            "",
            "neither unet/config.json nor config.json, but README.md, ddpm_digits.yaml, metrics.json, model_index.json",
        ),
    ],
)
def test_what_a_folder_of_diffusers_lacks_is_named(damage, given, message, pipeline, tmp_path, capsys, monkeypatch):
    folder, state = pipeline
    unet = folder / "unet"
    if damage in ("shard", "one of two", "index"):
        (unet / "diffusion_pytorch_model.safetensors").unlink()
        save(state, unet / "diffusion_pytorch_model.bin.index.json")
    if damage == "shard":
        (unet / "diffusion_pytorch_model-00002-of-00002.bin").unlink()
    elif damage == "index":
        (unet / "diffusion_pytorch_model.bin.index.json").write_text("{}")
    elif damage == "name":
        (unet / "diffusion_pytorch_model.safetensors").rename(unet / "model.safetensors")
    elif damage == "average":
        (folder / "unet_ema").mkdir()
    elif damage == "scheduler":
        settings = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 1348.0}
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    elif damage == "config":
        (unet / "config.json").unlink()
    words = [f"path={folder / given}", *UNET_TINY, f"out={tmp_path / 'a.ckpt'}"]
    assert message in fails(import_weights, words, capsys, monkeypatch)


@pytest.fixture
def denoising_diffusion(tmp_path):
    """What the trainer of denoising-diffusion-pytorch saves, with a few of its network's entries."""
    names = ["init_conv.weight", "downs.0.0.block1.proj.weight", "downs.0.2.to_qkv.weight", "final_conv.weight"]
    model = {"betas": torch.ones(10), **{f"model.{name}": torch.ones(1) for name in names}}
    ema = {"initted": torch.tensor(True), "step": torch.tensor(9)}
    ema |= {f"{kind}_model.{name}": value for kind in ("online", "ema") for name, value in model.items()}
    contents = {"step": 9, "model": model, "opt": {"state": {}}, "ema": ema, "scaler": None, "version": "2.2.5"}
    torch.save(contents, tmp_path / "model-1.pt")
    return tmp_path / "model-1.pt"


def test_a_checkpoint_of_denoising_diffusion_is_recognized_by_every_command(
    denoising_diffusion, tmp_path, capsys, monkeypatch
):
    recipes = {"ncsn": "ncsn_cifar", "ncsnv2": "ncsnv2_cifar", "edm": "edm_cifar"}
    commands = [(import_weights, [f"path={denoising_diffusion}", "exp=ddpm_cifar"])]
    for name in import_weights.NAMES:
        exp = recipes.get(name, "ddpm_cifar")
        commands.append((import_weights, [f"path={denoising_diffusion}", f"exp={exp}", f"format={name}"]))
    commands += [(sample, [f"ckpt={denoising_diffusion}"]), (evaluate, [f"ckpt={denoising_diffusion}"])]
    commands += [(train, [f"{key}={denoising_diffusion}", "exp=ddpm_digits"]) for key in ("init", "resume")]
    for entry, words in commands:
        message = fails(entry, [*words, f"out={tmp_path / 'out'}"], capsys, monkeypatch)
        assert "was written by denoising-diffusion-pytorch" in message
        assert ", ".join(import_weights.NAMES) in message
    assert not (tmp_path / "out").exists()


def test_what_else_a_file_is_or_what_to_do_with_it_is_said(published, ckpt, tmp_path, capsys, monkeypatch):
    state = torch.load(published)
    larger = {f"net.model.{name}": value for name, value in state.items()}
    contents = {
        "lightning": ({"state_dict": larger, "callbacks": {}}, "look like format=ddim in a larger module"),
        "latents": ({"state_dict": {"first_stage_model.a": torch.ones(1)}}, "makes latents for an autoencoder"),
        "hyper": ({"state_dict": state, "hyper_parameters": Harmful()}, "weights_only=False)['state_dict']"),
        "names": ({"weights": state, "args": 3}, "it has weights, args"),
    }
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    for name, (saved, message) in contents.items():
        torch.save(saved, tmp_path / name)
        words = [f"path={tmp_path / name}", "exp=ddpm_cifar", f"out={tmp_path / 'a.ckpt'}"]
        assert message in fails(import_weights, words, capsys, monkeypatch)
    words = [f"path={ckpt}", *UNET_TINY, f"out={tmp_path / 'a.ckpt'}"]
    assert "take its checkpoints as they are" in fails(import_weights, words, capsys, monkeypatch)
    for given in (published, tmp_path / "lightning"):
        assert "import_weights makes one" in fails(sample, [f"ckpt={given}"], capsys, monkeypatch)
    assert "a folder without model.safetensors" in fails(sample, [f"ckpt={tmp_path}"], capsys, monkeypatch)
    assert "would run code" in fails(sample, [f"ckpt={tmp_path / 'hyper'}"], capsys, monkeypatch)


@pytest.mark.parametrize("name", ["ema", "ema_model", "model_ema", "ema_state_dict"])
def test_averages_are_read_under_the_names_that_trainers_give_them(name, published, tmp_path, capsys):
    state = torch.load(published)
    torch.save({"model": {key: value + 1 for key, value in state.items()}, name: state}, published)
    import_weights.main([f"path={published}", "exp=ddpm_cifar", f"out={tmp_path / 'a.ckpt'}", *SMALL])
    assert "format=ddim, averaged" in capsys.readouterr().out
    model = checkpoint.load(tmp_path / "a.ckpt")
    assert torch.equal(model.net.conv_in.weight, state["conv_in.weight"])
