"""The validation loss at each noise level."""

import torch
from torch import Tensor

from score_lightning.data import ValidationOrder
from score_lightning.images import ImageSet
from score_lightning.models import ScoreModel
from score_lightning.processes import Rank
from score_lightning.training import LevelLosses, ValidationLoss


@torch.no_grad()
def level_losses(
    model: ScoreModel, loss: ValidationLoss, images: ImageSet, n: int, batch_size: int, rank: Rank
) -> tuple[Tensor, Tensor]:
    """(sigma / alpha, mean loss) at each level, both (levels,), of n triples (image, time, noise) over all ranks.

    The same triples as in training's validation; every rank must call.
    """
    device = next(model.parameters()).device
    losses = LevelLosses(len(loss.times)).to(device)
    for _, index in ValidationOrder(n, batch_size, rank.number, rank.count):
        place = index % len(images)
        labels = None if images.labels is None else images.labels[place].to(device)
        losses.update(*loss(model, images[place].to(device), index.to(device), labels))
    alpha, sigma = model.schedule(loss.times)
    return (sigma / alpha).cpu(), losses.compute().view(-1).cpu()
