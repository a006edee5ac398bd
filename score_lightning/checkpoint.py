"""Checkpoints: `load` gives the trained model of one; `read` and `write` are their files of plain data."""

from score_lightning.experiment.loading import load, open_checkpoint
from score_lightning.formats.native import read, write

__all__ = ["load", "open_checkpoint", "read", "write"]
