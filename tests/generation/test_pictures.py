"""Pictures of samples."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from score_lightning.generation.pictures import save_grid


@pytest.mark.parametrize(
    ("n", "channels", "columns", "height"), [(7, 1, 3, 20), (6, 3, 3, 50), (2, 3, 5, 20), (1, 1, None, 20)]
)
def test_a_grid_is_torchvisions(n, channels, columns, height, tmp_path):
    images = torch.randint(256, (n, channels, height, 36), dtype=torch.uint8)
    grid = np.asarray(Image.open(save_grid(images, tmp_path / "grid.png", smallest=1, columns=columns)))
    expected = make_grid(images, nrow=columns or 1, padding=height // 16, pad_value=255)
    if n == 1:  # which has no border there
        grid = grid[1:-1, 1:-1]
    assert np.array_equal(grid, expected.permute(1, 2, 0).numpy())
