"""The choice of a feature network where none is named."""

from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.errors import UserError
from score_lightning.evaluation.features import extractors
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.extractors import Split
from score_lightning.evaluation.features.pixels import pixels
from score_lightning.runtime.startup import is_first


def auto(split: Split, channels: int = 3, depth: Depth = EIGHT_BITS) -> Features:
    """Inception if its weights can be had, else, with a message, the classifier if the data have labels.

    Of images that are not of 8 bits, in gray or in color, the classifier, or, without labels, pixels.

    Args:
        split: reads the training and validation images.
        channels: of the images.
        depth: of the images.

    Raises:
        UserError: when none is possible.
    """
    if channels not in (1, 3) or depth != EIGHT_BITS:
        try:
            features = extractors.classifier(split)
        except UserError:
            features = pixels(depth)
        if is_first():
            kind = f"with {channels} channels of {depth}"
            print(f"Evaluation uses features={features.name}: there is no published network of images {kind}")
        return features
    try:
        return extractors.inception()
    except UserError as error:
        try:
            features = extractors.classifier(split)
        except UserError:
            raise error from None
        if is_first():
            print(f"Evaluation uses the features of a classifier of the data's own labels: {error}")
        return features
