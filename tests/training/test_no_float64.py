"""Training and sampling where the device has no float64, as on MPS."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from score_lightning import config, perturbation
from score_lightning.experiment.build import Experiment
from score_lightning.runtime.randomness import BatchNoise

WORDS = [
    "images.size=16",
    "net.channels=32",
    "net.blocks=1",
    "trainer.batch_size=4",
    "preview.steps=3",
    "images.flip=false",
]
SMALL = {"edm_cifar": ["net.attention=[8]"], "iddpm_cifar_vlb": ["net.attention=[8]"]}


class NoFloat64(TorchDispatchMode):
    """Refuses batches of float64; numbers and tables for a whole schedule stay on the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64 and tensor.ndim and len(tensor) == 4:
                raise AssertionError(f"{func} gives float64 of shape {tuple(tensor.shape)}")
        return result


@pytest.mark.parametrize(
    "name",
    [
        "ddpm_cifar",
        "iddpm_cifar",
        "iddpm_cifar_vlb",
        "ncsnpp_ve_cifar_continuous",
        "ddpmpp_vp_cifar_continuous",
        "edm_cifar",
    ],
)
def test_a_step_and_samples_need_no_float64(name, monkeypatch):
    monkeypatch.setattr(perturbation, "has_float64", lambda device: False)
    experiment = Experiment(config.load([*WORDS, *SMALL.get(name, [])], name))
    model, schedule = experiment.model, experiment.model.schedule
    noise, x_0 = BatchNoise(0), torch.rand(4, 3, 16, 16)
    with NoFloat64():
        t = experiment.objective.draw_t(schedule, noise.rand(4))
        losses = experiment.objective(model, x_0, t, noise.randn_like)
        losses.mean().backward()
    assert losses.isfinite().all()
    with NoFloat64(), torch.no_grad():
        x = schedule.prior((4, 3, 16, 16))
        assert experiment.preview_sampler(model, x).shape == x.shape


@pytest.mark.parametrize("times", ["log_normal", "importance"])
def test_times_of_few_digits_are_near_those_of_many(times, monkeypatch):
    words = [f"objective.times={times}", "objective.weight=edm", *WORDS]
    experiment = Experiment(config.load(words, "edm_cifar"))
    u = torch.rand(1000)
    wide = experiment.objective.draw_t(experiment.schedule, u)
    monkeypatch.setattr(perturbation, "has_float64", lambda device: False)
    narrow = Experiment(config.load(words, "edm_cifar")).objective.draw_t(experiment.schedule, u)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, wide.float(), rtol=1e-3, atol=1e-6)
