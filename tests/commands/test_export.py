"""Weights out: read back by this project, and by diffusers, to the same trajectories; and diffusers' weights in."""

import json

import pytest
import torch
from support import fails, run, slow_but

from score_lightning import checkpoint, eval, export, import_weights, sample, train
from score_lightning.samplers import DDIM, Ancestral, trajectory

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()

D, A, U, V = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"
CIFAR = {  # google/ddpm-cifar10-32
    "sample_size": 32, "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2,
    "down_block_types": (D, A, D, D), "up_block_types": (U, U, V, U), "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1, "attention_head_dim": None, "norm_eps": 1e-6, "norm_num_groups": 32,
}  # fmt: skip
NARROW = {**CIFAR, "block_out_channels": (32, 64, 64, 64)}
OTHER = {  # diffusers' own defaults, with labels and learned variances
    "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "down_block_types": (D, A),
    "up_block_types": (V, U), "out_channels": 6, "num_class_embeds": 5, "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 32,
}  # fmt: skip
ADM = {  # with resolution changed in residual blocks, of which one level has no attention
    **OTHER, "block_out_channels": (32, 32, 64), "attention_head_dim": 16, "downsample_type": "resnet",
    "down_block_types": ("ResnetDownsampleBlock2D", A, A), "up_block_types": (V, V, "ResnetUpsampleBlock2D"),
    "upsample_type": "resnet",
}  # fmt: skip


def pipeline(settings, folder):
    """A random network in a pipeline's folder."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**settings).eval()
    for p in unet.parameters():  # what is 0 or 1 at the start, too
        p.data.add_(0.02 * torch.randn_like(p))
    kind = "learned_range" if settings.get("out_channels") == 6 else "fixed_large"
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(variance_type=kind)).save_pretrained(folder)
    return unet


def imported(folder, out, *words):
    import_weights.main([f"path={folder}", "exp=ddpm_cifar", f"out={out}", *words])
    return checkpoint.load(out)


@pytest.mark.parametrize(
    "settings",
    [pytest.param(CIFAR, marks=pytest.mark.slow), OTHER, ADM],
    ids=["google/ddpm-cifar10-32", "own defaults", "ADM"],
)
def test_a_network_of_diffusers_gives_the_same_output_here(settings, tmp_path, capsys):
    unet = pipeline(settings, tmp_path / "pipeline")
    model = imported(tmp_path / "pipeline", tmp_path / "a.ckpt")
    assert ("net.channels: 32 by config.json, 128 in the recipe" in capsys.readouterr().out) == (settings is not CIFAR)
    assert model.config["sampler"]["variance"] == ("learned" if settings is not CIFAR else "large")
    x, t = torch.randn(2, 3, settings["sample_size"], settings["sample_size"]), torch.tensor([3, 777])
    labels = torch.tensor([4, 0]) if "num_class_embeds" in settings else None
    with torch.no_grad():
        theirs, ours = unet(x, t, labels).sample, model(x, t, labels)
    torch.testing.assert_close(ours.eps, theirs[:, :3], rtol=1e-4, atol=1e-5)
    if settings is not CIFAR:
        torch.testing.assert_close(ours.fraction, (theirs[:, 3:] + 1) / 2, rtol=1e-4, atol=1e-5)


def test_a_bare_file_is_of_the_recipes_network_and_averages_are_taken(tmp_path, capsys):
    unet = pipeline(NARROW, tmp_path / "training")
    torch.save(unet.state_dict(), tmp_path / "bare.bin")
    unet.save_pretrained(tmp_path / "training/unet_ema")
    with torch.no_grad():
        for p in unet.parameters():
            p.zero_()
    unet.save_pretrained(tmp_path / "training/unet")
    bare = imported(tmp_path / "bare.bin", tmp_path / "a.ckpt", "net.channels=32", "net.multipliers=[1,2,2,2]")
    assert "the network's settings are the recipe's" in capsys.readouterr().out
    averaged = imported(tmp_path / "training", tmp_path / "b.ckpt")
    assert "numbers in format=diffusers, averaged" in capsys.readouterr().out
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([500])
    with torch.no_grad():
        assert torch.equal(bare(x, t).eps, averaged(x, t).eps)
    raw = checkpoint.open_checkpoint(tmp_path / "b.ckpt", [], "raw").experiment.model
    assert not any(p.any() for p in raw.parameters())


def test_weights_are_not_taken_for_another_function(tmp_path, capsys, monkeypatch):
    pipeline(OTHER | {"out_channels": 3, "num_class_embeds": None}, tmp_path / "pipeline")
    imported(tmp_path / "pipeline", tmp_path / "a.ckpt")
    words = ["exp=ddpm_cifar", f"init={tmp_path / 'a.ckpt'}", "dry_run=true", "images.size=16"]
    words += ["net.channels=32", "net.multipliers=[1,2]", "net.blocks=1", "net.attention=[8]", "net.adaptive=true"]
    message = fails(train, words, capsys, monkeypatch)
    assert "trained as another function of them" in message
    more = message.partition(": add ")[2].split()
    assert set(more) == {"net.head_channels=8", "net.symmetric=true", "net.endpoint=false", "net.norm_eps=1e-05"}
    train.main([*words, *more])
    assert 'prediction="eps"' in fails(train, [*words, *more, "prediction=v"], capsys, monkeypatch)


def test_files_from_before_version_0_18_are_read(tmp_path):
    unet = pipeline(NARROW, tmp_path / "pipeline")
    folder, old = tmp_path / "flat", {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    folder.mkdir()
    state = {}
    for name, value in unet.state_dict().items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        state[name] = value
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    (tmp_path / "pipeline/unet/config.json").rename(folder / "config.json")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("dropout", "add_attention")})
    )
    (tmp_path / "pipeline/scheduler/scheduler_config.json").rename(folder / "scheduler_config.json")
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([500])
    for path in (folder, folder / "diffusion_pytorch_model.bin"):
        model = imported(path, tmp_path / "a.ckpt", "net.heads=4")
        with torch.no_grad():
            torch.testing.assert_close(model(x, t).eps, unet(x, t).sample, rtol=1e-4, atol=1e-5)
        assert model.config["net"]["dropout"] == 0.1  # the recipe's, where config.json is silent


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but({"ddim"}, ["ddpm", "ddim"]))
def test_fifty_steps_are_those_of_diffusers_schedulers(kind, tmp_path):
    unet = pipeline(NARROW, tmp_path / "pipeline")
    model = imported(tmp_path / "pipeline", tmp_path / "a.ckpt")
    noise, x = torch.randn(50, 1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    theirs = [x]
    predictor = Ancestral("large") if kind == "ddpm" else DDIM(0.0)
    given = iter(noise)
    times = model.schedule.times(50, "leading")
    ours = list(trajectory(model, x, times, predictor, randn_like=lambda _: next(given), clip=(-1, 1)))
    if kind == "ddpm":
        scheduler = diffusers.DDPMScheduler(variance_type="fixed_large")
        options = {}
    else:
        scheduler, options = diffusers.DDIMScheduler(), {"use_clipped_model_output": True}
    scheduler.set_timesteps(50)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        module = diffusers.schedulers.scheduling_ddpm
        given_again = iter(noise)
        patch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(given_again))
        for t in scheduler.timesteps:
            theirs.append(scheduler.step(unet(theirs[-1], t).sample, t, theirs[-1], **options).prev_sample)
    assert len(ours) == len(theirs) == 51
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert (a - b).norm() / b.norm() < 1e-4, i


@pytest.mark.parametrize("settings", [NARROW, OTHER, ADM], ids=["ddpm", "own defaults", "ADM"])
def test_the_way_back_gives_diffusers_its_network_again(settings, tmp_path):
    unet = pipeline(settings, tmp_path / "pipeline")
    imported(tmp_path / "pipeline", tmp_path / "a.ckpt")
    export.main([f"ckpt={tmp_path / 'a.ckpt'}", "format=diffusers", f"out={tmp_path / 'back'}"])
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path / "back")
    x, t = torch.randn(1, 3, settings["sample_size"], settings["sample_size"]), torch.tensor([500])
    labels = torch.tensor([2]) if "num_class_embeds" in settings else None
    with torch.no_grad():
        torch.testing.assert_close(again.unet(x, t, labels).sample, unet(x, t, labels).sample, rtol=1e-4, atol=1e-5)
    for beta in (again.scheduler.betas, diffusers.DDPMScheduler().betas):
        torch.testing.assert_close(beta, torch.linspace(0.0001, 0.02, 1000))


def test_a_ddpm_trained_here_is_sampled_by_diffusers(ckpt, tmp_path):
    folder = tmp_path / "pipeline"
    export.main([f"ckpt={ckpt}", "format=diffusers", f"out={folder}"])
    assert not list(tmp_path.glob(".*"))
    pipe, model = diffusers.DDPMPipeline.from_pretrained(folder), checkpoint.load(ckpt)
    alpha, _ = model.schedule(torch.arange(model.schedule.levels))
    torch.testing.assert_close(pipe.scheduler.alphas_cumprod.double(), alpha**2, rtol=1e-4, atol=1e-6)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([7, 300])
    with torch.no_grad():
        torch.testing.assert_close(pipe.unet(x, t).sample, model(x, t).eps, rtol=1e-4, atol=1e-5)
    pipe.set_progress_bar_config(disable=True)
    assert pipe(batch_size=2, num_inference_steps=3, output_type="np").images.shape == (2, 8, 8, 1)
    assert imported(folder, tmp_path / "a.ckpt", "schedule=cosine").schedule.levels == 1000


def test_safetensors_are_read_back_everywhere(ckpt, tmp_path, monkeypatch):
    folder = tmp_path / "exported"
    export.main([f"ckpt={ckpt}", "format=safetensors", f"out={folder}"])
    assert {"config.json", "model.safetensors", "README.md", "samples.png"} <= {path.name for path in folder.iterdir()}
    ours, again = checkpoint.load(ckpt), checkpoint.load(folder)
    assert again.config == ours.config
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    sample.main([f"ckpt={folder}", "n=2", f"out={tmp_path / 'drawn'}", "sampler.steps=2"])
    eval.main([f"ckpt={folder}", "n=12", f"out={tmp_path / 'judged'}", "sampler.steps=2", "evaluation.metrics=[fid]"])
    assert (tmp_path / "judged/metrics.json").is_file()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(tmp_path)
    sample.main([f"ckpt={folder}", "n=2", "sampler.steps=2"])
    eval.main([f"ckpt={folder}", "n=12", "sampler.steps=2", "evaluation.metrics=[fid]"])
    assert (tmp_path / "samples.npz").is_file()
    assert (tmp_path / "metrics.json").is_file()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    started = run(tmp_path / "runs", f"init={folder}", "trainer.max_steps=1", "optimizer.lr=1e-30")
    first = checkpoint.load(started / "checkpoints/last.ckpt")
    torch.testing.assert_close(first.state_dict(), ours.state_dict())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=onnx"], "must be one of safetensors, diffusers"),
        (["format=safetensors", "n=3"], "got 'n=3'"),
        (["format=safetensors", "ckpt=none.ckpt"], "there is no checkpoint none.ckpt"),
    ],
)
def test_what_cannot_be_exported_is_named(words, message, ckpt, tmp_path, capsys, monkeypatch):
    given = [f"ckpt={ckpt}", f"out={tmp_path / 'out'}", *words]
    assert message in fails(export, given, capsys, monkeypatch)
    assert not list(tmp_path.iterdir())


def test_a_damaged_exported_folder_is_named(ckpt, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "exported"
    export.main([f"ckpt={ckpt}", "format=safetensors", f"out={folder}"])
    whole = (folder / "config.json").read_text()
    for text in ("{", "[]", '{"config": "x", "global_step": 3}', whole.replace('"global_step": ', '"global_step": "x')):
        (folder / "config.json").write_text(text)
        assert "no exported checkpoint" in fails(sample, [f"ckpt={folder}", "n=1"], capsys, monkeypatch)
    (folder / "config.json").write_text(whole)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    assert "no exported checkpoint" in fails(sample, [f"ckpt={folder}", "n=1"], capsys, monkeypatch)


def test_a_folder_with_files_is_not_written_over(ckpt, tmp_path, capsys, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    words = [f"ckpt={ckpt}", "format=safetensors", f"out={tmp_path}"]
    assert "no empty folder" in fails(export, words, capsys, monkeypatch)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'"),
        ({"down_block_types": ["SkipDownBlock2D", A, D, D]}, "blocks SkipDownBlock2D are not among"),
        ({"downsample_type": "resnet"}, "upsample_type must be downsample_type, resnet"),
        ({"downsample_type": "resnet", "upsample_type": "resnet"}, "blocks DownBlock2D, UpBlock2D are not among"),
        ({"up_block_types": [U, U, U, U]}, "must have attention where the way down has"),
        ({"block_out_channels": [32, 48, 64, 64]}, "multiples of the first"),
        ({"sample_size": None}, "a sample_size"),
        ({"block_out_channels": [0, 1]}, "makes no sense"),
        ({"down_block_types": None}, "makes no sense"),
        ({"in_channels": None, "out_channels": None}, "makes no sense"),
        ({"norm_num_groups": "32"}, "net.groups must be a whole number"),
    ],
)
def test_networks_of_diffusers_that_ours_cannot_be_are_refused(change, message, tmp_path, capsys, monkeypatch):
    pipeline(NARROW, tmp_path / "pipeline")
    config = tmp_path / "pipeline/unet/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    words = [f"path={tmp_path / 'pipeline'}", "exp=ddpm_cifar", f"out={tmp_path / 'a.ckpt'}"]
    assert message in fails(import_weights, words, capsys, monkeypatch)
    assert not (tmp_path / "a.ckpt").exists()


def test_a_recipe_of_other_noise_levels_or_prediction_is_refused(tmp_path, capsys, monkeypatch):
    pipeline(NARROW, tmp_path / "pipeline")
    words = [f"path={tmp_path / 'pipeline'}", "exp=ddpm_cifar", f"out={tmp_path / 'a.ckpt'}"]
    assert "its scheduler" in fails(import_weights, [*words, "schedule=cosine"], capsys, monkeypatch)
    assert "add prediction=eps" in fails(import_weights, [*words, "prediction=v"], capsys, monkeypatch)
    assert "add conditioning=time" in fails(import_weights, [*words, "images.range=[0,1]"], capsys, monkeypatch)
    scheduler = tmp_path / "pipeline/scheduler/scheduler_config.json"
    for broken in ({"trained_betas": "x"}, {"num_train_timesteps": "many"}, {"prediction_type": ["x"]}):
        scheduler.write_text(json.dumps(broken))
        assert "scheduler_config.json makes no sense" in fails(import_weights, words, capsys, monkeypatch)
    scheduler.write_text(json.dumps({"prediction_type": "flow", "beta_schedule": "squaredcos_cap_v2"}))
    assert "prediction_type must be one of epsilon" in fails(import_weights, words, capsys, monkeypatch)
    scheduler.write_text("{")
    assert "cannot be read as JSON" in fails(import_weights, words, capsys, monkeypatch)
