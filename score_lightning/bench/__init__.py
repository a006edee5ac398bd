"""Measures this project beside what its users would take instead: python -m score_lightning.bench."""
