"""PSNR and SSIM of videos; they live in `models/picture_metrics.py`, where training can use them too."""

from dexworld.models.picture_metrics import (
    checked_mask,
    checked_videos,
    masked_mean,
    psnr,
    psnr_of,
    region_means,
    squared_error_map,
    ssim,
    ssim_map,
)
from dexworld.pictures import MAX_PSNR, psnr_of_mse

__all__ = [
    "MAX_PSNR",
    "checked_mask",
    "checked_videos",
    "masked_mean",
    "psnr",
    "psnr_of",
    "psnr_of_mse",
    "region_means",
    "squared_error_map",
    "ssim",
    "ssim_map",
]
