"""Networks against the published implementations and against calculus."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from score_lightning.networks import MLP, RefineNet, UNet

GOLDEN = Path(__file__).parent / "golden"

UNET_NAMES = [
    (r"^time_(\d)", lambda m: f"temb.dense.{int(m[1]) - 1}"),
    (r"^shrink\.(\d)", r"down.\1.downsample.conv"),
    (r"^grow\.(\d)", lambda m: f"up.{int(m[1]) + 1}.upsample.conv"),
    (r"^middle\.0\.attention", "mid.attn_1"),
    (r"^middle\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"^(down|up)\.(\d)\.(\d)\.attention", r"\1.\2.attn.\3"),
    (r"^(down|up)\.(\d)\.(\d)", r"\1.\2.block.\3"),
    (r"\.time\.", ".temb_proj."),
    (r"\.skip\.", ".nin_shortcut."),
    (r"\.(query|key|value)\.", lambda m: f".{m[1][0]}."),
    (r"(attn[._]\d)\.out\.", r"\1.proj_out."),
    (r"\.(norm|conv)_(\d)\.", r".\1\2."),
]
"""Our names of the U-Net's entries -> those of the published layout, applied in turn."""

REFINENET_NAMES = [
    (r"^conv_in", "begin_conv"),
    (r"^conv_out", "end_conv"),
    (r"^norm_out", "normalizer"),
    (r"^stages\.1\.0\.(conv_2|skip)", r"stages.1.0.\1.conv"),
    (r"^stages\.(\d)", lambda m: f"res{int(m[1]) + 1}"),
    (r"^refine\.(\d)", lambda m: f"refine{int(m[1]) + 1}"),
    (r"\.norm_(\d)\.", r".normalize\1."),
    (r"\.conv_(\d)\.", r".conv\1."),
    (r"\.skip\.", ".shortcut."),
    (r"\.fuse_(norm|conv)s", r".msf.\1s"),
    (r"\.pool", ".crp"),
    (r"\.adapt\.", ".adapt_convs."),
    (r"\.out\.", ".output_convs."),
    (
        r"(adapt_convs\.\d|output_convs)\.(norm|conv)s\.(\d)",
        lambda m: f"{m[1]}.{int(m[3]) // 2 + 1}_{int(m[3]) % 2 + 1}_{m[2]}",
    ),
    (r"\.embedding\.", ".embed."),
]


def published(name, renames):
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def golden_fill(name, shape):
    """The value that every golden case gives to the entry of that name."""
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return n / np.sqrt(np.prod(shape[1:]))
    return 1 + 0.1 * n if name.endswith("weight") else 0.1 * n


def filled(net, renames):
    state = {}
    for name, value in net.state_dict().items():
        state[name] = torch.from_numpy(golden_fill(published(name, renames), tuple(value.shape))).float()
    net.load_state_dict(state)
    return net.eval()


@pytest.mark.parametrize(
    ("net", "renames", "file"),
    [(UNet(), UNET_NAMES, "ddpm_ddim_cifar10"), (RefineNet(), REFINENET_NAMES, "ncsn_cifar10")],
    ids=["unet", "refinenet"],
)
def test_network_equals_the_published_implementation(net, renames, file):
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{file}.npz").items()}
    with torch.no_grad():
        y = filled(net, renames)(golden["x"], golden["arg_0"])
    assert (y - golden["y"]).norm() / golden["y"].norm() < 1e-4


@pytest.mark.parametrize(("net", "parameters"), [(UNet(), 35_746_307), (RefineNet(), 30_117_635)])
def test_defaults_have_the_published_number_of_parameters(net, parameters):
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (UNet(image_size=28, image_channels=1, channels=32, multipliers=(1, 2, 2), attention=(14,), groups=8), 28),
        (UNet(image_size=8, image_channels=1, channels=16, multipliers=(1, 2), attention=(4,), groups=4), 8),
        (RefineNet(image_channels=1, channels=8, levels=3), 28),
    ],
    ids=["unet28", "unet8", "refinenet28"],
)
def test_small_configurations_depend_on_every_parameter_and_on_the_conditioning(net, size):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    x = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    y = net(x, torch.tensor([0, 2]))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert not torch.allclose(y[0], net(x, torch.tensor([1, 2]))[0])
    torch.testing.assert_close(y[1], net(x, torch.tensor([1, 2]))[1])


def test_unet_has_second_derivatives():
    net = UNet(
        image_size=4, image_channels=1, channels=8, multipliers=(1, 1), blocks=1, attention=(4,), groups=2
    ).double()
    nn.init.normal_(net.conv_out.weight)
    nn.init.normal_(net.middle[0].attention.out.weight)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: net(x, torch.tensor([3])), (x,), atol=1e-4)


def test_networks_refuse_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="multiple of 8; got 28"):
        UNet(image_size=28)
    with pytest.raises(ValueError, match="images of 32 pixels"):
        UNet(channels=32)(torch.zeros(1, 3, 16, 16), torch.zeros(1))
    with pytest.raises(ValueError, match="multiples of 2, got"):
        RefineNet(channels=4)(torch.zeros(1, 3, 7, 7), torch.zeros(1, dtype=torch.long))


def test_mlp_distinguishes_points_and_noise():
    net, x = MLP(dim=2, width=16, layers=2), torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    y = net(x, torch.tensor([1, 2, 1]))
    assert y.shape == (3, 2)
    assert not torch.allclose(y[0], y[1])
    assert not torch.allclose(y[0], y[2])
