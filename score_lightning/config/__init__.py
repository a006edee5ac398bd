"""Configurations: typed settings, parts from YAML files, overrides on the command line."""

from score_lightning.config.compose import Resolved, change, defaults, load, to_plain, to_yaml
from score_lightning.config.describe import describe
from score_lightning.config.files import (
    INSTALLED,
    PART_KINDS,
    ROOT,
    Parts,
    experiments,
    find_experiment,
    folder,
    own_experiments,
    parts,
    read_yaml,
    replaced,
    show,
    suggest,
)
from score_lightning.config.overrides import parse_override, split_override
from score_lightning.config.schema import Config, Figure
from score_lightning.config.sweeps import split_sweep

__all__ = [
    "INSTALLED",
    "PART_KINDS",
    "ROOT",
    "Config",
    "Figure",
    "Parts",
    "Resolved",
    "change",
    "defaults",
    "describe",
    "experiments",
    "find_experiment",
    "folder",
    "load",
    "own_experiments",
    "parse_override",
    "parts",
    "read_yaml",
    "replaced",
    "show",
    "split_override",
    "split_sweep",
    "suggest",
    "to_plain",
    "to_yaml",
]  # fmt: skip
