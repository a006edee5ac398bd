"""EDM's preconditioning, D(y; sigma) = c_skip y + c_out F(c_in y; c_noise) (Karras et al. 2022, Eq. 7)."""

from typing import NamedTuple

from torch import Tensor


class Coefficients(NamedTuple):
    """Of the denoiser D around the network F, each of sigma's shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor, sigma_data: float) -> Coefficients:
    """The coefficients for data of standard deviation sigma_data with noise sigma (Karras et al. 2022, Table 1)."""
    total = sigma**2 + sigma_data**2
    return Coefficients(
        c_skip=sigma_data**2 / total,
        c_out=sigma * sigma_data / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=sigma.log() / 4,
    )
