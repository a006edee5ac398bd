"""Score networks: `net(x, c)` of x (B, ...) and a conditioning c (B,), with plain keyword arguments."""

from score_lightning.networks.energy import Energy
from score_lightning.networks.light import LightUNet
from score_lightning.networks.mlp import MLP
from score_lightning.networks.ncsnpp import NCSNpp
from score_lightning.networks.refinenet import RefineNet
from score_lightning.networks.unet import UNet

__all__ = ["MLP", "Energy", "LightUNet", "NCSNpp", "RefineNet", "UNet"]
