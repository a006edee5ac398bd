"""Whatever is no weight and no activation is float32, whatever the default type is."""

import pytest
import torch
from support import run

from score_lightning.models import CONDITIONINGS
from score_lightning.networks.embedding import Fourier, sinusoidal
from score_lightning.objectives import Denoising, ImportanceSampled, VariationalBound
from score_lightning.runtime.randomness import BatchNoise, ImageNoise
from score_lightning.schedules import EDM, VP, linear_beta
from score_lightning.training.module import ScoreModule

DTYPES = [torch.bfloat16, torch.float16, torch.float64]
TIMES = {
    "discrete": (Denoising(), linear_beta(1e-4, 0.02, 1000)),
    "antithetic": (Denoising(times="antithetic"), linear_beta(1e-4, 0.02, 1000)),
    "continuous": (Denoising(), VP()),
    "log_normal": (Denoising(times="log_normal"), EDM()),
    "importance": (Denoising("likelihood", times="importance"), VP()),
}


@pytest.fixture
def default(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def everything():
    """Draws, times and embeddings of a batch."""
    noise, image_noise = BatchNoise(0), ImageNoise(0, range(64))
    u = noise.rand(64)
    results = {"u": u, "z": image_noise(torch.empty(64, 3, dtype=torch.float32))}
    for name, (objective, schedule) in TIMES.items():
        results[name] = objective.draw_t(schedule, u)
    for name, conditioning in CONDITIONINGS.items():
        for kind, schedule in (("discrete", linear_beta(1e-4, 0.02, 1000)), ("continuous", VP())):
            if (name, kind) != ("level", "continuous"):
                t = torch.arange(0, 1000, 37) if kind == "discrete" else torch.linspace(1e-3, 1, 9, dtype=torch.float64)
                results[f"{name} {kind}"] = conditioning(schedule, t, *schedule(t))
    t = torch.arange(0, 1000, 37)
    results["sinusoidal"] = sinusoidal(t, 32)
    torch.manual_seed(0)
    fourier = Fourier(32)
    results["frequencies"], results["fourier"] = fourier.frequencies.detach(), fourier(torch.linspace(-4, 4, 9))
    return results


EXPECTED = everything()


@pytest.mark.parametrize("default", DTYPES, indirect=True)
def test_draws_and_embeddings_do_not_depend_on_the_default_type(default):  # noqa: ARG001
    for name, value in everything().items():
        if name == "fourier":  # its input here has the default type
            continue
        assert torch.equal(value, EXPECTED[name]), name
        assert value.dtype == EXPECTED[name].dtype, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counted", [True, False])
def test_frequencies_stay_what_they_are_in_a_network_of_another_precision(dtype, counted):
    fourier = Fourier(32, counted=counted)
    before = fourier.frequencies.detach().clone()
    converted = torch.nn.Sequential(fourier, torch.nn.Linear(32, 1)).to(dtype)
    assert converted[1].weight.dtype == dtype
    assert torch.equal(fourier.frequencies, before)
    assert fourier.to("meta").frequencies.device.type == "meta"


@pytest.mark.slow
def test_training_in_bfloat16_draws_every_level(tmp_path, monkeypatch):
    times, losses = [], ScoreModule.losses

    def watched(self, batch):
        t, values = losses(self, batch)
        times.append(t)
        return t, values

    monkeypatch.setattr(ScoreModule, "losses", watched)
    words = ["trainer.precision=bf16-true", "trainer.batch_size=4096", "net.channels=8", "net.groups=4"]
    words += ["net.multipliers=[1]", "net.blocks=1", "net.attention=[]"]
    run(tmp_path, *words, "evaluation.n=0", "samples.n=0", "trainer.max_steps=3")
    drawn = torch.cat(times)
    assert len(drawn.unique()) > 990
    assert drawn.max() == 999


def test_remembered_losses_stay_float32_in_a_module_of_half_precision():
    sampled = ImportanceSampled(VariationalBound(), 4, kept=2)
    assert torch.nn.Sequential(sampled).to(torch.bfloat16)[0].losses.dtype == torch.float32
