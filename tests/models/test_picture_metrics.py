import math

import numpy as np
import pytest
import torch

from dexworld.models.picture_metrics import masked_mean, psnr, ssim_map
from dexworld.pictures import MAX_PSNR


def grey(value: int, frames: int = 2, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.full((frames, *size, 3), value, np.uint8)


def noise(seed: int, frames: int = 3, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, *size, 3)).astype(np.uint8)


def ssim(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    return masked_mean(ssim_map(prediction, truth), mask)


def test_psnr_of_a_constant_error_is_its_closed_form():
    assert psnr(grey(100), grey(151)) == pytest.approx(20 * math.log10(5))  # 51 is a fifth of 255


def test_psnr_of_a_clip_comes_from_the_mean_squared_error_of_all_frames_and_is_no_mean_of_frame_psnrs():
    prediction = np.concatenate([grey(0, 1), grey(0, 1)])
    truth = np.concatenate([grey(51, 1), grey(0, 1)])
    assert psnr(prediction, truth) == pytest.approx(-10 * math.log10((51 / 255) ** 2 / 2), abs=1e-5)


def test_equal_videos_have_the_psnr_of_8_bit_rounding_and_an_ssim_of_one():
    assert psnr(noise(0), noise(0)) == MAX_PSNR == pytest.approx(58.92, abs=0.01)
    assert ssim(noise(0), noise(0)) == pytest.approx(1.0)


def test_psnr_inside_a_region_sees_only_the_region():
    truth, prediction = grey(0), grey(0)
    prediction[:, :, :8] = 51
    region = np.zeros(truth.shape[:3], bool)
    region[:, :, :16] = True
    assert psnr(prediction, truth, region) == pytest.approx(-10 * math.log10((51 / 255) ** 2 / 2), abs=1e-5)
    assert psnr(prediction, truth, ~region) == MAX_PSNR


def test_ssim_of_two_flat_videos_is_its_luminance_term():
    a, b = 102 / 255, 204 / 255
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert ssim(grey(102), grey(204)) == pytest.approx(expected, abs=1e-4)


def test_ssim_inside_and_outside_average_to_the_whole():
    prediction, truth = noise(1), noise(2)
    region = np.random.default_rng(3).random(truth.shape[:3]) < 0.3
    share = region.mean()
    parts = share * ssim(prediction, truth, region) + (1 - share) * ssim(prediction, truth, ~region)
    assert parts == pytest.approx(ssim(prediction, truth), abs=1e-6)


def test_an_empty_region_has_no_value():
    nothing = np.zeros((3, 40, 56), bool)
    assert psnr(noise(1), noise(2), nothing) is None
    assert ssim(noise(1), noise(2), nothing) is None


def test_values_are_those_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    truth = noise(5)
    prediction = np.clip(truth.astype(int) // 2 + noise(6) // 4 + 30, 0, 255).astype(np.uint8)
    planes = [torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255 for video in (prediction, truth)]
    theirs = functional.peak_signal_noise_ratio(*planes, data_range=1.0)
    assert psnr(prediction, truth) == pytest.approx(float(theirs), abs=1e-3)
    theirs = functional.structural_similarity_index_measure(*planes, data_range=1.0)
    assert ssim(prediction, truth) == pytest.approx(float(theirs), abs=1e-4)


@pytest.mark.parametrize(
    ("prediction", "truth", "said"),
    [
        (grey(0, 2), grey(0, 3), "compare equal shapes"),
        (grey(0).astype(float), grey(0), "uint8"),
        (grey(0, size=(8, 8)), grey(0, size=(8, 8)), "smaller than the SSIM window"),
    ],
)
def test_what_can_not_be_compared_is_refused(prediction, truth, said):
    with pytest.raises(ValueError, match=said):
        psnr(prediction, truth)
