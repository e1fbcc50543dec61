"""Where a goal's points may be, from picture to picture."""

from types import SimpleNamespace

import pytest
import torch
from helpers_planning import HEIGHT, WIDTH
from helpers_points import CELL, ToyPoints, maps_of

from dexworld.planning.point_tracker import PointTracker
from dexworld.planning.protocols import GoalPoints

OPEN = torch.zeros(HEIGHT // 4, WIDTH // 4, dtype=torch.bool)
START = maps_of(object=[(20, 10)])
FOUR = torch.tensor([[20.5, 10.5], [21.5, 10.5], [20.5, 11.5], [21.5, 11.5]]) * CELL


def tracked(pixels, spread=1.0, near=60.0):
    return PointTracker(ToyPoints(near=near), START, GoalPoints(pixels, pixels, torch.ones(len(pixels)), spread=spread))


def motion(*way):
    """A hand that goes from (145, 75) pixels by `way`, as the toy head reads it."""
    pixels = torch.zeros(1, 2, 12, 3)
    pixels[..., :2] = torch.tensor([[145.0, 75.0]])
    pixels[:, 1, :, :2] += torch.tensor(way)
    return SimpleNamespace(pixels=pixels)


def covered(columns, rows):
    """A robot that covers these pixels."""
    mask = OPEN.clone()
    mask[rows[0] // 4 : rows[1] // 4, columns[0] // 4 : columns[1] // 4] = True
    return mask


@pytest.mark.parametrize("to", [(20, 10), (24, 10), (40, 20)])
def test_points_are_found_in_every_new_frame_wherever_they_went(to):
    tracker = tracked(FOUR)
    tracker.observe(maps_of(object=[to]), OPEN)
    moved = torch.tensor([to[0] - 20.0, to[1] - 10.0]) * CELL
    torch.testing.assert_close(tracker.pixels, FOUR + moved, atol=1.0, rtol=0)
    assert tracker.left(FOUR + moved) < 3.0


def test_points_that_hide_go_with_the_others():
    tracker, frame = tracked(FOUR), maps_of(object=[(25, 10)])
    frame.view(32, 56, 3)[11, 26] = 77.0  # a finger is on the last one
    tracker.observe(frame, OPEN)
    torch.testing.assert_close(tracker.pixels, FOUR + torch.tensor([5.0, 0.0]) * CELL, atol=1.0, rtol=0)


def test_what_the_hand_hides_goes_where_the_hand_took_it():
    tracker = tracked(FOUR)
    tracker.moved(motion(20.0, 10.0))
    torch.testing.assert_close(tracker.expected, FOUR + torch.tensor([20.0, 10.0]), atol=2.5, rtol=0)
    assert tracker.offsets.std(dim=0).mean() > 4.0  # a forecast may be wrong
    tracker.observe(maps_of(object=[]), covered((120, 220), (40, 140)))
    torch.testing.assert_close(tracker.pixels, tracker.expected, atol=4.0, rtol=0)


def test_a_place_that_is_seen_without_it_is_none_of_its_places():
    tracker = tracked(FOUR, spread=12.0)
    tracker.observe(maps_of(object=[]), covered((150, 392), (0, 224)))
    assert (tracker.offsets[:, 0] > -3.0).float().mean() > 0.9  # the centre of the points is at 147 pixels


def test_hypotheses_are_opinions_of_a_forecast():
    one = FOUR[:1]
    tracker = tracked(one, spread=10.0, near=1e6)
    where = SimpleNamespace(pixels=motion(9.0, 0.0).pixels.expand(5, -1, -1, -1))
    forecast = tracker.follow(where, 5)
    assert forecast.pixels.shape == (5, 1, 12, 1, 2)
    assert forecast.spread.shape == (5, 1, 12, 1)
    assert 6.0 < forecast.pixels[0, 0, :, 0].std(dim=0).mean() < 14.0
    torch.testing.assert_close(forecast.pixels.mean(dim=2)[0, 0], one + torch.tensor([9.0, 0.0]), atol=2.0, rtol=0)
    assert 8.0 < tracker.left(one) < 17.0  # expected distance: not known to be there


def test_without_points_nothing_is_followed():
    tracker = tracked(FOUR[:0])
    tracker.moved(motion(9.0, 0.0))
    tracker.observe(START, OPEN)
    assert tracker.pixels.shape == (0, 2)
