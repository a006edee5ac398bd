"""The model card of exported weights is what the Hugging Face Hub reads, and true."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from support import fails, run

from score_lightning import checkpoint, config, export, import_weights, sample
from score_lightning import eval as evaluate
from score_lightning.experiment.commands import _differing
from score_lightning.formats.licenses import KNOWN, read_license

hub = pytest.importorskip("huggingface_hub")


def exported(ckpt, out, *words, form="safetensors"):
    """The card of an export, and its text."""
    export.main([f"ckpt={ckpt}", f"format={form}", f"out={out}", *words])
    card = hub.ModelCard.load(out / "README.md")
    return card, card.text


def commands(text, name):
    """The words of a command's calls in a card."""
    return [shlex.split(line)[3:] for line in re.findall(rf"^python -m score_lightning\.{name} .*$", text, re.M)]


def altered(trained, tmp_path, **changes):
    """A checkpoint in a run folder of its own, with its metrics.json changed."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").write_bytes((trained / "checkpoints/last.ckpt").read_bytes())
    metrics = json.loads((trained / "metrics.json").read_text())
    settings = {**metrics["settings"], **changes.pop("settings", {})}
    (folder / "metrics.json").write_text(json.dumps({**metrics, **changes, "settings": settings}))
    return folder / "checkpoints/last.ckpt"


def test_the_hub_reads_license_library_data_and_metrics(trained, ckpt, tmp_path, capsys):
    card, text = exported(ckpt, tmp_path / "my digits", "license=cc-by-4.0")
    data, metrics = card.data, json.loads((trained / "metrics.json").read_text())
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-4.0", "score_lightning", "unconditional-image-generation"
    )  # fmt: skip
    assert {"diffusion", "cosine"} <= set(data.tags)
    assert "datasets" not in data.to_dict()
    results = {result.metric_type: result for result in data.eval_results}
    fid = results["fid_classifier"]
    assert fid.metric_value == metrics["fid_classifier"]
    assert (fid.dataset_name, fid.task_type) == ("digits", "unconditional-image-generation")
    assert fid.metric_name == "Fréchet distance (classifier), 30 images"
    assert not any("_std" in name for name in results)
    assert data.model_name == "ddpm_digits"
    assert (tmp_path / "my digits/samples.png").read_bytes() == (trained / "samples/step_0000004.png").read_bytes()
    for part in (
        "![Samples](samples.png)", f"| Fréchet distance (classifier) | {metrics['fid_classifier']:.4f} |",
        "30 images against digits", "3 network evaluations per image", "cc-by-4.0, for the weights",
        "sampler `ddim`", "of step 4",
    ):  # fmt: skip
        assert part in text
    shown = capsys.readouterr().out
    assert f"hf upload OWNER/NAME '{tmp_path / 'my digits'}'" in shown
    assert "No metrics" not in shown
    assert "unknown" not in shown


def test_the_block_is_the_same_for_the_hubs_own_writer(ckpt, tmp_path):
    card, _ = exported(ckpt, tmp_path / "a", "license=mit")
    again = hub.ModelCardData(**{**card.data.to_dict(), "model_name": "x"})
    assert again.license == "mit"
    block = yaml.safe_load((tmp_path / "a/README.md").read_text(encoding="utf-8").split("---\n")[1])
    written = yaml.safe_load(card.data.to_yaml())
    assert written.pop("model-index")[0]["name"] == block["model-index"][0]["name"]
    assert written == {name: value for name, value in block.items() if name != "model-index"}
    assert sum(len(result["metrics"]) for result in block["model-index"][0]["results"]) == len(card.data.eval_results)


def test_the_commands_of_the_card_are_understood_and_train_the_same(ckpt, tmp_path, monkeypatch, capsys):
    _, text = exported(ckpt, tmp_path / "shared")
    monkeypatch.chdir(tmp_path)
    (words,) = commands(text, "train")
    resolved = config.load(words[1:], words[0].removeprefix("exp="))
    assert _differing(resolved.plain(), checkpoint.load(ckpt).config) == {}
    assert resolved.config.trainer.max_steps == 4
    assert resolved.config.exp == "ddpm_digits"
    (words,) = commands(text, "sample")
    sample.main([*words, "n=2", "sampler.steps=2"])
    (words,) = commands(text, "eval")
    evaluate.main([*words, "n=12", "sampler.steps=2", "evaluation.metrics=[fid]"])
    assert (tmp_path / "evaluation/metrics.json").is_file()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    names = {}
    exec(code, names)
    assert torch.isfinite(names["model"](torch.zeros(1, 1, 8, 8), torch.tensor(5)).score).all()
    assert "unknown" in capsys.readouterr().out


def test_the_command_below_metrics_evaluates_as_they_were_evaluated(trained, ckpt, tmp_path):
    (words,) = commands(exported(ckpt, tmp_path / "a")[1], "eval")
    assert words[:2] == ["ckpt=a", "n=30"]
    assert words[2:4] == ["sampler=ddim", "sampler.steps=3"]  # those of the evaluation within the training
    changes = {"seeds": [1, 2], "reference": "mine.npz", "labels": {"guidance": 0.5}, "continuous": True}
    (words,) = commands(exported(altered(trained, tmp_path / "run", settings=changes), tmp_path / "b")[1], "eval")
    assert {"seeds=[1,2]", "reference=mine.npz", "labels.guidance=0.5", "continuous=true"} < set(words)


def test_metrics_of_other_weights_are_left_out(trained, tmp_path, capsys):
    changes = [{"settings": {"step": 3}}, {"settings": {"weights": "raw"}}, {"settings": {"weights_sha256": "0" * 64}}]
    for i, change in enumerate(changes):
        ckpt = altered(trained, tmp_path / str(i), **change)
        card, text = exported(ckpt, tmp_path / f"out{i}")
        assert card.data.eval_results is None
        assert "There are no metrics of these weights" in text
        assert not (tmp_path / f"out{i}/metrics.json").exists()
        assert "metrics.json is not of these weights" in capsys.readouterr().out
    for i, broken in enumerate(("{", "[]", '{"settings": "x"}', '{"settings": {"step": 4, "weights": "ema"}}')):
        (tmp_path / "0/run/metrics.json").write_text(broken)
        card, _ = exported(tmp_path / "0/run/checkpoints/last.ckpt", tmp_path / f"broken{i}")
        assert card.data.eval_results is None


def test_guidance_of_the_evaluation_is_stated(trained, tmp_path):
    by_classes = {"labels": {"classes": 10, "drop": 0.1, "guidance": 1.5}, "guidance": 0.0}
    assert (
        "guidance 1.5 by the classes"
        in exported(altered(trained, tmp_path / "a", settings=by_classes), tmp_path / "out-a")[1]
    )
    by_model = {"guide": "worse.ckpt", "guidance": 0.25}
    assert (
        "guidance 0.25 by worse.ckpt"
        in exported(altered(trained, tmp_path / "b", settings=by_model), tmp_path / "out-b")[1]
    )


def test_without_metrics_and_pictures_a_card_says_so(trained, tmp_path, capsys):
    (tmp_path / "alone.ckpt").write_bytes((trained / "checkpoints/last.ckpt").read_bytes())
    card, text = exported(tmp_path / "alone.ckpt", tmp_path / "out")
    assert card.data.eval_results is None
    assert card.data.license == "unknown"
    assert "samples.png" not in text
    assert "license of these weights is not stated" in text
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("No ", "The license"))]
    assert [line.split()[1] for line in lines] == ["picture", "metrics", "license"]
    assert "metrics.json is not there" in lines[1]


def test_intervals_spread_and_sweeps_are_shown(trained, tmp_path):
    ckpt = altered(
        trained, tmp_path, intervals={"fid_classifier": [1.5, 20.25]}, spread={"is_classifier": {"std": 0.125}}
    )
    card, text = exported(ckpt, tmp_path / "a")
    assert "| metric | value | standard deviation over seeds | 95 % interval |" in text
    assert re.search(r"\| Fréchet distance \(classifier\) \| [\d.]+ \| – \| 1.5000 to 20.2500 \|", text)
    assert re.search(r"\| inception score \(classifier\) \| [\d.]+ \| 0.1250 \| – \|", text)
    metrics = json.loads((ckpt.parents[1] / "metrics.json").read_text())
    sweep = [
        {"sampler": {"name": "ddim", "steps": k}, "evaluations_per_image": k, "fid_inception": 2.0 * k, "x": None}
        for k in (5, 10)
    ]
    settings = {k: v for k, v in metrics["settings"].items() if k not in ("sampler", "evaluations_per_image")}
    settings["likelihood"] = {"n": 7}
    (ckpt.parents[1] / "metrics.json").write_text(
        json.dumps({"sweep": sweep, "bits_per_dim_ode": 3.25, "kid_x": float("nan"), "settings": settings})
    )
    card, text = exported(ckpt, tmp_path / "b")
    found = [(r.metric_type, r.metric_value, r.metric_name) for r in card.data.eval_results]
    assert found == [
        ("fid", 10.0, "Fréchet distance (inception), ddim, 5 evaluations, 30 images"),
        ("fid", 20.0, "Fréchet distance (inception), ddim, 10 evaluations, 30 images"),
        ("bits_per_dim_ode", 3.25, "bits per dimension (ode), 7 images"),
    ]
    assert "### ddim, 10 evaluations" in text


def test_an_evaluation_of_the_checkpoint_gives_metrics_and_picture(ckpt, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/a.ckpt").write_bytes(ckpt.read_bytes())
    words = [f"ckpt={tmp_path / 'checkpoints/a.ckpt'}", "n=40", "sampler.steps=2", "evaluation.metrics=[fid]"]
    evaluate.main(words)
    card, text = exported(tmp_path / "checkpoints/a.ckpt", tmp_path / "out", "license=mit")
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert card.data.eval_results[0].metric_value == written["fid_classifier"]
    assert (tmp_path / "out/samples.png").read_bytes() == (tmp_path / "samples.png").read_bytes()
    low, high = written["intervals"]["fid_classifier"]
    assert f"{low:.4f} to {high:.4f}" in text


def test_an_exported_folder_is_exported_again_with_all_that_it_knows(ckpt, tmp_path):
    first, text = exported(ckpt, tmp_path / "copy-1", "license=mit")
    second, again = exported(tmp_path / "copy-1", tmp_path / "copy-2", "license=mit")
    assert first.data.to_dict() == second.data.to_dict()
    assert again == text.replace("copy-1", "copy-2")
    assert "wall time" in again
    for name in ("samples.png", "metrics.json", "run.json", "config.json", "model.safetensors"):
        assert (tmp_path / "copy-1" / name).read_bytes() == (tmp_path / "copy-2" / name).read_bytes()


def test_a_pipeline_of_diffusers_has_a_card_and_comes_back(ckpt, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    card, text = exported(ckpt, tmp_path / "pipe", "license=mit", form="diffusers")
    assert card.data.library_name == "diffusers"
    assert "DDPMPipeline" in text
    assert (tmp_path / "pipe/samples.png").is_file()
    monkeypatch.chdir(tmp_path)
    (words,) = commands(text, "import_weights")
    import_weights.main(words)
    ours, back = checkpoint.load(ckpt), checkpoint.load(tmp_path / "model.ckpt")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([7, 300])
    torch.testing.assert_close(back(x, t).eps, ours(x, t).eps, rtol=1e-4, atol=1e-5)
    card, text = exported(tmp_path / "model.ckpt", tmp_path / "again")
    assert "not trained with score_lightning" in text


def test_toy_experiments_have_a_card_without_the_task_of_images(tmp_path):
    folder = run(tmp_path, "variants={}", "trainer.max_steps=1", "samples.n=20", exp="toy_two_moons")
    card, text = exported(folder / "checkpoints/last.ckpt", tmp_path / "out", "license=cc0-1.0")
    assert card.data.pipeline_tag is None
    assert "| shape | 2 |" in text
    assert "score_lightning.eval" not in text


def test_a_model_of_pictures_given_pictures_is_image_to_image(tmp_path, monkeypatch):
    folder = run(tmp_path, "trainer.max_steps=1", "samples.n=2", "evaluation.n=12", exp="sr_digits")
    card, text = exported(folder / "checkpoints/last.ckpt", tmp_path / "out", "license=mit")
    assert card.data.pipeline_tag == "image-to-image"
    psnr = next(result for result in card.data.eval_results if result.metric_type == "psnr")
    assert psnr.task_type == "image-to-image"
    Image.new("L", (4, 4), 128).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    (words,) = commands(text, "sample")
    sample.main([*words, "sampler.steps=2"])
    assert (tmp_path / "samples/samples.png").is_file()


def test_licenses_are_those_of_the_hub(ckpt, tmp_path, capsys, monkeypatch):
    assert read_license("mit") == {"license": "mit"}
    assert read_license("other:our terms") == {"license": "other", "license_name": "our terms"}
    assert {"apache-2.0", "cc-by-nc-4.0", "unknown"} <= KNOWN
    for wrong in ("MIT", "free", "other", "other:"):
        message = fails(
            export,
            [f"ckpt={ckpt}", "format=safetensors", f"out={tmp_path / 'x'}", f"license={wrong}"],
            capsys,
            monkeypatch,
        )
        assert "not a license that the Hugging Face Hub knows" in message
    assert not list(Path(tmp_path).iterdir())
    card, text = exported(ckpt, tmp_path / "x", "license=other:our terms")
    assert card.data.license_name == "our terms"
    assert "our terms, for the weights" in text
