"""Configurations: typed settings, parts from YAML files, overrides on the command line."""

from score_lightning.config.compose import (
    PART_KINDS,
    ROOT,
    Resolved,
    change,
    defaults,
    describe,
    experiments,
    find_experiment,
    load,
    parse_word,
    parts,
    read_yaml,
    show,
    suggest,
    to_plain,
    to_yaml,
)
from score_lightning.config.sweeps import split_sweep

__all__ = [
    "PART_KINDS",
    "ROOT",
    "Resolved",
    "change",
    "defaults",
    "describe",
    "experiments",
    "find_experiment",
    "load",
    "parse_word",
    "parts",
    "read_yaml",
    "show",
    "split_sweep",
    "suggest",
    "to_plain",
    "to_yaml",
]
