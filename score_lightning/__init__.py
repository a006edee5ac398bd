"""Train, sample and evaluate score-based generative models."""

__version__ = "0.2.0"
