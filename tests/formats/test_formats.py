"""Published layouts against outputs of the published implementations, in configurations that exercise every option."""

from functools import partial

import pytest
import torch
from support import GOLDEN, golden_state

from score_lightning import formats
from score_lightning.networks import NCSNpp, RefineNet, UNet

LEVELS = {"image_size": 16, "channels": 16, "multipliers": (1, 2, 2), "blocks": 1, "attention": (8,)}
VE = {**LEVELS, "unit_range": True}
EDM = {**LEVELS, "multipliers": (2, 2), "fourier_counted": False}
PLAIN = {"embedding": "positional", "fir": False, "pyramid_in": "none"}
SKIPS = {"pyramid_in": "skip", "pyramid_out": "skip"}
WIDE = {**LEVELS, "channels": 32}
IDDPM = {**WIDE, "learned_variance": True, "symmetric": True, "endpoint": False, "norm_eps": 1e-5}
ADM = {"by_blocks": True, "adaptive": True, "endpoint": False, "norm_eps": 1e-5}
ADM_64 = {**ADM, "image_size": 32, "channels": 32, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (16, 8, 4)}
DEEPER = {"multipliers": (1, 2, 2, 4, 4), "dilations": (1, 1, 1, 2, 4)}
DEEPEST = {"multipliers": (1, 2, 2, 2, 4, 4), "dilations": (1, 1, 1, 1, 2, 4)}

CASES = {
    "ncsnv2_deeper": ("ncsnv2", partial(RefineNet, channels=16, conditional=False, **DEEPER)),
    "ncsnv2_deepest": ("ncsnv2", partial(RefineNet, channels=16, conditional=False, **DEEPEST)),
    "ddim": ("ddim", partial(UNet, **{**WIDE, "multipliers": (1, 1, 2, 2, 4)})),
    "iddpm_labels": (
        "improved-diffusion",
        partial(UNet, **{**IDDPM, "multipliers": (1, 2, 3), "attention": (8, 4)}, classes=7, heads=4, adaptive=True),
    ),
    "iddpm_added": ("improved-diffusion", partial(UNet, **{**IDDPM, "multipliers": (1, 1, 2)})),
    "adm_64": (
        "guided-diffusion",
        partial(UNet, **ADM_64, head_channels=32, heads_first=False, classes=7, learned_variance=True),
    ),
    "adm_128": (
        "guided-diffusion",
        partial(
            UNet,
            **ADM,
            **{**WIDE, "multipliers": (1, 1, 2), "blocks": 2, "attention": (8, 4)},
            heads=4,
            learned_variance=True,
        ),
    ),
    "sde_ddpm": ("score_sde", partial(UNet, **WIDE, attend_last=True)),
    "sde_ddpmpp": ("score_sde", partial(NCSNpp, **LEVELS, **PLAIN)),
    "sde_ncsnpp_discrete": ("score_sde", partial(NCSNpp, **VE, embedding="positional")),
    "sde_ncsnpp_skip": ("score_sde", partial(NCSNpp, **VE, **SKIPS)),
    "sde_ncsnpp_narrow": ("score_sde", partial(NCSNpp, **{**VE, "multipliers": (1, 2, 4, 8)}, **SKIPS)),
    "edm_ddpmpp": ("edm", partial(NCSNpp, **EDM, **PLAIN, classes=10, augmentation=9)),
    "edm_ncsnpp": ("edm", partial(NCSNpp, **EDM)),
    "edm_adm": (
        "edm",
        partial(UNet, 16, 3, 128, (1, 2), 1, (8,), head_channels=64, classes=7, **ADM),
    ),
    "edm_skip": ("edm", partial(NCSNpp, **EDM, **SKIPS)),
}


@pytest.mark.parametrize("case", CASES)
def test_network_equals_the_published_implementation(case):
    name, make = CASES[case]
    net = make()
    state, golden = golden_state(GOLDEN / "small" / f"{case}.npz")
    assert formats.detect(state) == name
    sources = formats.FORMATS[name].sources(net)
    net.load_state_dict(formats.translate(net, formats.Published(state), sources, name)["ema"])
    c, sigma = golden["arg_0"], golden.get("sigma", golden["arg_0"])
    divided = name == "ncsnv2" or "sde_ncsnpp" in case  # by sigma, as predictions are here
    if "sde_ncsnpp" in case and c.is_floating_point():
        c = c.log()
    conditions = {key: golden[key] for key in ("labels", "augmentation") if key in golden}
    with torch.no_grad():
        y = net.eval()(golden["x"], c, **conditions) / (sigma.view(-1, 1, 1, 1) if divided else 1)
    assert (y - golden["y"]).norm() / golden["y"].norm() < 1e-5


@pytest.mark.parametrize("case", ["ddim", "iddpm_labels"])
def test_a_part_of_the_entries_is_never_taken(case):
    name, make = CASES[case]
    net, (state, _) = make(), golden_state(GOLDEN / "small" / f"{case}.npz")
    sources = formats.FORMATS[name].sources(net)
    first, second, *_ = state
    state["extra.weight"] = state.pop(first)
    state[second] = state[second][:-1]
    with pytest.raises(formats.UserError) as error:
        formats.translate(net, formats.Published(state), sources, name)
    for words in (
        f"1 entry missing: {first}",
        "1 entry unexpected: extra.weight",
        f"another shape: {second}, of shape",
    ):
        assert words in str(error.value)


def test_the_average_is_taken_by_name_or_in_the_order_of_trained_weights():
    name, make = CASES["sde_ncsnpp_skip"]
    net, (state, _) = make(), golden_state(GOLDEN / "small/sde_ncsnpp_skip.npz")
    sources = formats.FORMATS[name].sources(net)
    zeros = {key: torch.zeros_like(value) for key, value in state.items()}
    trained = [value for key, value in state.items() if key not in ("sigmas", "all_modules.0.W")]
    both = formats.translate(net, formats.Published(zeros, trained), sources, name)
    plain = formats.translate(net, formats.Published(state), sources, name)["raw"]
    for own, value in plain.items():
        assert torch.equal(both["raw"][own], torch.zeros_like(value))
        assert torch.equal(both["ema"][own], value if own != "fourier.frequencies" else torch.zeros_like(value))
    with pytest.raises(formats.UserError, match="its network"):
        formats.translate(net, formats.Published(zeros, trained[1:]), sources, name)


def test_an_unknown_layout_is_told_the_closest():
    state = {f"down_block.{i}.resnets.0.time_emb_proj.weight": torch.zeros(1) for i in range(3)}
    assert formats.detect(state) is None
    assert formats.closest(state) == "diffusers"
    assert formats.closest({"fc.weight": torch.zeros(1)}) is None
