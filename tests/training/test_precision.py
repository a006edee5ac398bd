"""Every network trains in mixed precision, with losses close to those of float32 and weights in float32."""

import pytest
import torch
from support import LIGHT, run, slow_but

from score_lightning import config
from score_lightning.experiment import train as experiment_train
from score_lightning.tracking.csv import read_losses

NCSNPP = ["net=ncsnpp", "net.channels=16", "net.multipliers=[1,2]", "net.blocks=1", "net.attention=[4]"]
SMALL = {
    "ddpm": ("ddpm_digits", ["net.channels=16", "net.attention=[4]"]),
    "iddpm": ("ddpm_digits", ["net.learned_variance=true", "objective=hybrid", "net.channels=16"]),
    "ncsn": ("ncsn_digits", []),
    "ncsnpp": ("ddpm_digits", NCSNPP),
    "edm": (
        "ddpm_digits",
        [*NCSNPP, "schedule=edm", "prediction=edm", "conditioning=log_sigma", "sampler=heun", "preview=heun",
         "objective.weight=edm", "objective.times=log_normal"],
    ),
    "mlp": ("toy_two_moons", []),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but({"ddpm", "ncsnpp", "mlp"}, SMALL))
def test_every_network_trains_in_mixed_precision(name, tmp_path):
    exp, words = SMALL[name]
    words = [*words, "trainer.max_steps=6", "samples.n=0", "evaluation.n=0", "trainer.log_every=1"]
    full, mixed = (
        run(tmp_path / kind, *words, f"trainer.precision={kind}", exp=exp)
        for kind in ("32-true", "bf16-mixed")  # 16-mixed is for GPUs alone
    )
    one, other = ([loss for _, loss in read_losses(folder / "metrics.csv")] for folder in (full, mixed))
    assert len(other) == 6
    assert one != other
    assert other == pytest.approx(one, rel=0.1)
    state = torch.load(mixed / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(("unit", "chosen"), [("amx_bf16", "bf16-mixed"), ("", "32-true")])
def test_auto_is_what_the_hardware_has_and_is_recorded(unit, chosen, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment_train, "bf16_units", lambda device: unit)
    words = ["trainer.precision=auto", "trainer.max_steps=1", "samples.n=0", "evaluation.n=0"]
    folder = run(tmp_path, *words)
    assert f"precision: {chosen}" in capsys.readouterr().out
    assert f"precision: {chosen}" in (folder / "config.yaml").read_text()
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["config"]["trainer"]["precision"] == chosen


@pytest.mark.slow
def test_published_recipes_keep_float32():
    assert {config.load([], exp).config.trainer.precision for exp in {*config.experiments()} - LIGHT} == {"32-true"}
