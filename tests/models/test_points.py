"""Points: where they are found, and where hands take them."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import GRID, IMAGE_SIZE, LATENT_DIM, SMALL_MODEL, random_latents, random_motion, randomise, refused

from dexworld.actions import ACTION_ROWS, HandMotion
from dexworld.hands import NUM_TRACKED
from dexworld.models.config import PointsConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.points import PointHead
from dexworld.training.train_points import with_points

SMALL = PointsConfig(dim=16, depth=1, heads=2, channels=8, pieces=3, width=32, layers=1, ensemble=2)
QUERIES = torch.tensor([[[10.0, 8.0], [60.0, 40.0], [30.0, 50.0]]])


def head(lively: bool = False, **changes) -> PointHead:
    torch.manual_seed(0)
    points = PointHead(replace(SMALL, **changes), LATENT_DIM, GRID, IMAGE_SIZE, tuple(range(6, NUM_TRACKED)))
    if lively:
        randomise(points.motion)
    return points


def straight(start: tuple[float, float], by: tuple[float, float], steps: int = 1) -> HandMotion:
    """A hand whose twelve keypoints lie in one pixel and move by so many pixels a step."""
    path = torch.tensor(start) + torch.arange(steps + 1)[:, None] * torch.tensor(by)
    pixels = torch.cat([path, torch.full((steps + 1, 1), 0.8)], dim=-1)[None, :, None].expand(1, -1, NUM_TRACKED, 3)
    visible = torch.ones(1, steps + 1, NUM_TRACKED, dtype=torch.bool)
    return HandMotion(torch.zeros(1, steps, ACTION_ROWS, 3), pixels, visible)


def test_a_point_is_found_where_it_was_when_nothing_changed():
    points = head()
    maps = torch.randn(1, 8, *points.map_size)
    logits, hidden = points.find(points.look(maps, QUERIES), maps[:, None].expand(-1, 2, -1, -1, -1))
    assert (logits.shape, hidden.shape) == ((1, 2, 3, *points.map_size), (1, 2, 3))
    cell = IMAGE_SIZE[0] / points.map_size[0]
    assert ((points.read(20 * logits) - QUERIES[:, None]).abs() < cell).all()


def test_a_point_is_found_where_its_surroundings_went():
    points = head()
    maps = torch.randn(1, 8, *points.map_size)
    moved = maps.roll((1, 3), dims=(2, 3))
    cell = torch.tensor([IMAGE_SIZE[1] / points.map_size[1], IMAGE_SIZE[0] / points.map_size[0]])
    middle = (torch.tensor([[[4.5, 3.5], [6.5, 2.5]]])) * cell  # of cells: a look between cells is a mixture
    logits, _ = points.find(points.look(maps, middle), moved[:, None])
    assert ((points.read(20 * logits)[:, 0] - middle - torch.tensor([3.0, 1.0]) * cell).abs() < 0.5 * cell).all()


def test_new_points_stay_where_they_are_and_their_spread_grows():
    forecast = head().follow(torch.randn(4, 3, 8), QUERIES.expand(4, -1, -1), random_motion(4, 3, dtype=torch.float32))
    assert forecast.pixels.shape == (4, 3, 2, 3, 2)
    assert torch.equal(forecast.pixels, QUERIES[:, None, None].expand(4, 3, 2, 3, 2))
    assert (forecast.spread.diff(dim=1) > 0).all()


def test_candidates_and_points_are_followed_on_their_own():
    points, looks, motion = head(lively=True), torch.randn(4, 3, 8), random_motion(4, 2, dtype=torch.float32)
    together = points.follow(looks, QUERIES.expand(4, -1, -1), motion)
    alone = points.follow(looks[2:3, 1:2], QUERIES[:, 1:2], motion.index(slice(2, 3)))
    torch.testing.assert_close(alone.pixels[0, :, :, 0], together.pixels[2, :, :, 1], atol=1e-4, rtol=1e-4)
    assert (together.pixels[0] - together.pixels[1]).abs().max() > 0.1


def test_a_hand_that_is_not_there_says_nothing():
    points, motion = head(lively=True), random_motion(2, 1, dtype=torch.float32)
    gone = HandMotion(motion.deltas, motion.pixels, torch.zeros_like(motion.visible))
    forecast = points.follow(torch.ones(2, 1, 8), QUERIES[:, :1].expand(2, -1, -1), gone)
    torch.testing.assert_close(forecast.pixels[0], forecast.pixels[1])


def test_a_hand_at_rest_moves_nothing():
    model, place = head(lively=True), torch.tensor([[[60.0, 60.0]]])
    looks = torch.randn(1, 1, model.config.channels)
    rest, pushed = (model.follow(looks, place, straight((58.0, 60.0), by)).pixels for by in ((0.0, 0.0), (9.0, 0.0)))
    torch.testing.assert_close(rest, place[:, None, None].expand_as(rest))
    assert (pushed - place).norm(dim=-1).min() > 0.01


def test_it_learns_that_a_hand_takes_along_what_it_touches():
    points = head(pieces=2, width=48, ensemble=1)
    optimiser = torch.optim.Adam(points.motion.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def pushes(count: int) -> tuple[torch.Tensor, HandMotion, torch.Tensor]:
        """Points at 40, 28; a hand comes from the left and carries them along from where it meets them."""
        start, by = 40 * torch.rand(count, generator=generator), 30 * torch.rand(count, generator=generator)
        place = torch.tensor([40.0, 28.0]).expand(count, 1, 2)
        hand = [straight((float(a), 28.0), (float(b), 0.0)) for a, b in zip(start, by, strict=True)]
        motion = HandMotion(*(torch.cat([getattr(each, name) for each in hand]) for name in vars(hand[0])))
        return place, motion, torch.maximum(place[..., 0], (start + by)[:, None])

    for _ in range(200):
        place, motion, wanted = pushes(64)
        found = points.follow(torch.zeros(64, 1, 8), place, motion).pixels[:, 0, 0]
        optimiser.zero_grad()
        ((found[..., 0] - wanted).abs() + (found[..., 1] - 28).abs()).mean().backward()
        optimiser.step()
    place, motion, wanted = pushes(256)
    with torch.no_grad():
        found = points.follow(torch.zeros(256, 1, 8), place, motion).pixels[:, 0, 0, :, 0]
    assert (found - wanted).abs().mean() < 0.25 * (place[..., 0] - wanted).abs().mean()


def test_a_model_that_learns_points_keeps_what_it_has(tmp_path):
    old = DexWM(SMALL_MODEL)
    randomise(old.predictor)
    new = with_points(old, SMALL)
    latents, motion = random_latents(1, 2, dtype=torch.float32), random_motion(1, 1, dtype=torch.float32)
    torch.testing.assert_close(new.predict(latents, motion), old.predict(latents, motion))
    assert with_points(new, PointsConfig()) is new
    assert new.parameter_counts()["points"] == sum(value.numel() for value in new.points.parameters())
    new.encoder.fit([torch.randint(0, 256, (8, *IMAGE_SIZE, 3), dtype=torch.uint8)])
    new.save_pretrained(tmp_path / "model")
    again = DexWM.from_pretrained(tmp_path / "model")
    assert again.config == new.config
    assert torch.equal(again.points.motion.last.weight, new.points.motion.last.weight)
    assert not hasattr(old, "points")


@pytest.mark.parametrize(("field", "value"), [("ensemble", 0), ("pieces", 0), ("heads", 3)])
def test_sizes_that_make_no_head_are_refused(field, value):
    refused("point head", replace, SMALL, **{field: value})
