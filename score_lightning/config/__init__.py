"""Configurations: typed settings, parts from YAML files, overrides on the command line."""

from score_lightning.config.compose import Resolved, change, defaults, load, to_plain, to_yaml
from score_lightning.config.describe import describe
from score_lightning.config.files import (
    PART_KINDS,
    ROOT,
    experiments,
    find_experiment,
    folder,
    parts,
    read_yaml,
    show,
    suggest,
)
from score_lightning.config.overrides import parse_override, split_override
from score_lightning.config.schema import Config, Figure
from score_lightning.config.sweeps import split_sweep

__all__ = [
    "PART_KINDS",
    "ROOT",
    "Config",
    "Figure",
    "Resolved",
    "change",
    "defaults",
    "describe",
    "experiments",
    "find_experiment",
    "folder",
    "load",
    "parse_override",
    "parts",
    "read_yaml",
    "show",
    "split_override",
    "split_sweep",
    "suggest",
    "to_plain",
    "to_yaml",
]  # fmt: skip
