"""What pyproject.toml cannot say: configs/ and experiments/ stand beside the package, and come into it in a wheel."""

from setuptools import find_packages, setup

SHIPPED = {f"score_lightning.shipped.{name}": name for name in ("configs", "experiments")}

setup(
    packages=[*find_packages(include=["score_lightning*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={"": ["py.typed", "**/*.yaml"]},
)
