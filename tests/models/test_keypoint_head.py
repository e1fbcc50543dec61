"""The keypoint head and its readout."""

import pytest
import torch

from dexworld.models.config import PRESETS, KeypointHeadConfig
from dexworld.models.keypoint_head import KeypointHead, refine_peak

GRID, IMAGE_SIZE = (8, 14), (224, 392)


def head(**changes) -> KeypointHead:
    torch.manual_seed(0)
    return KeypointHead(KeypointHeadConfig(dim=16, depth=1, heads=2, **changes), 10, GRID, IMAGE_SIZE)


def gaussian_maps(pixels: torch.Tensor, model: KeypointHead, sigma_px: float) -> torch.Tensor:
    """Maps (..., h, w) with peak 1 at image pixels (..., 2)."""
    height, width = model.map_size
    x, y = (torch.arange(width) + 0.5) * IMAGE_SIZE[1] / width, (torch.arange(height) + 0.5) * IMAGE_SIZE[0] / height
    across, down = x - pixels[..., 0, None], y - pixels[..., 1, None]
    return torch.exp(-0.5 * (across[..., None, :] ** 2 + down[..., :, None] ** 2) / sigma_px**2)


def test_maps_have_a_cell_of_pixels_for_each_token_in_its_place():
    model = head(cell=7)
    for value in model.parameters():
        torch.nn.init.zeros_(value)
    model.norm.bias.data.fill_(1.0)
    model.project_out.bias.data.copy_(torch.arange(7 * 7 * 12))
    logits = model(torch.zeros(2, 3, 112, 10))
    assert logits.shape == (2, 3, 12, 56, 98)
    cell = torch.arange(49.0).view(7, 7)
    assert torch.equal(logits[1, 2, 5], (5 * 49 + cell).repeat(8, 14))
    assert torch.equal(model(torch.zeros(112, 10)), logits[0, 0])


def test_the_paper_head_has_its_size_and_draws_full_resolution_maps():
    config = PRESETS["paper-xl"]
    with torch.device("meta"):
        model = KeypointHead(config.keypoint_head, 1024, config.grid, config.image_size)
        assert model(torch.zeros(1, 448, 1024)).shape == (1, 12, 224, 392)
    # 5.67 M in the release with 256 positions; ours has one for each of the 448 tokens.
    count = sum(value.numel() for value in model.parameters())
    assert abs(count - (448 - 256) * 256 - 5.67e6) < 0.01e6


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_gaussian_map_is_read_to_a_fraction_of_a_pixel(loss):
    model = head(loss=loss)
    points = torch.tensor([[100.3, 57.9], [260.0, 120.5], [30.7, 200.2]]).repeat(4, 1)
    maps = gaussian_maps(points, model, 4.0)
    pixels, confidence = model.read(maps.clamp_min(1e-30).log() if loss == "cross_entropy" else maps)
    assert pixels.shape == (12, 2)
    assert (pixels - points).abs().max() < 0.6
    assert confidence.min() > 0.8
    assert confidence.max() <= 1.0 + 1e-6


def test_confidence_is_low_where_the_head_sees_nothing():
    for loss in ("mse", "cross_entropy"):
        _, confidence = head(loss=loss).read(torch.zeros(12, 56, 98))
        assert confidence.max() < 0.01


def test_a_peak_at_the_border_stays_inside_the_image():
    maps = torch.zeros(2, 5, 9)
    maps[0, 0, 0], maps[1, 4, 8] = 1.0, 1.0
    centre, mass, peak = refine_peak(maps)
    assert centre.tolist() == [[0.5, 0.5], [8.5, 4.5]]
    assert mass.tolist() == peak.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("grid", [(0, 4), (4, -1), (4, 4, 4)])
def test_a_head_of_impossible_places_is_refused(grid):
    with pytest.raises(ValueError, match=r"sizes must be positive|token_grid is rows and columns"):
        KeypointHeadConfig(token_grid=grid)
