"""The inception score."""

import numpy as np
import torch
from torch import Tensor

from score_lightning.evaluation.intervals import Subsamples

SEED = 2020  # torch-fidelity's, so that the splits are the same


def inception_scores(logits: Tensor, splits: int, subsamples: Subsamples) -> Tensor:
    """exp E KL(p(y | x) || p(y)) (Salimans et al. 2016, Sec. 4) of each split of the shuffled images.

    E KL = E sum_y p(y | x) log p(y | x) - sum_y p(y) log p(y) with p(y) = E p(y | x): sums over images suffice.

    Args:
        logits: (n, classes).
        splits: consecutive parts, at most n.
        subsamples: of the images.

    Returns:
        float64 (splits, 1 + S), of each subsample; NaN where it has no image in a split.
    """
    n, order = len(logits), torch.from_numpy(np.random.RandomState(SEED).permutation(len(logits)))
    scores = []
    for i in range(splits):
        part = order[i * n // splits : (i + 1) * n // splits]
        log_p = logits[part.to(logits.device)].double().log_softmax(1).cpu()
        p, weights = log_p.exp(), subsamples.weights[:, part]
        count = weights.sum(1, keepdim=True)
        marginal, negative_entropy = weights @ p / count, weights @ (p * log_p).sum(1, keepdim=True) / count
        divergence = negative_entropy - torch.special.xlogy(marginal, marginal).sum(1, keepdim=True)
        scores.append(divergence[:, 0].exp())
    return torch.stack(scores)
