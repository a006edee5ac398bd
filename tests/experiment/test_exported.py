"""Names of metrics and of data, as a model card has them."""

import pytest

from score_lightning.experiment.exported import describe
from score_lightning.experiment.hub import hub_data


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"name": "cifar10", "path": "data"}, "uoft-cs/cifar10"),
        ({"name": "huggingface", "path": "someone/flowers"}, "someone/flowers"),
        ({"name": "huggingface", "path": "/home/someone/flowers"}, None),
        ({"name": "folder", "path": "someone/flowers"}, None),
    ],
)
def test_data_of_the_hub_are_named(data, name):
    assert hub_data(data) == name


def test_metrics_are_described_in_words():
    assert describe("fid_inception") == "Fréchet distance (inception)"
    assert describe("f_score_dinov2") == "F score (dinov2)"
    assert describe("psnr_of_mean") == "PSNR of the mean"
    assert describe("bits_per_dim") == "bits per dimension"
