"""PSNR, in one definition for stores, training and evaluation."""

import math

# Rounding to 8 bits alone costs a mean squared error of a twelfth of a step: nothing closer can be told apart.
QUANTISATION_MSE = (1 / 255) ** 2 / 12
MAX_PSNR = -10 * math.log10(QUANTISATION_MSE)  # dB, 58.9


def psnr_of_mse(mse: float) -> float:
    """PSNR in dB of a mean squared error on a [0, 1] range, at most `MAX_PSNR` (8-bit rounding), so always finite."""
    return -10 * math.log10(max(mse, QUANTISATION_MSE))
