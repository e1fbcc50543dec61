"""What a point head learns from windows, and which parts of it a run trains."""

from types import SimpleNamespace

import pytest
import torch

from dexworld.models.config import PointsConfig
from dexworld.models.points import PointHead
from dexworld.training.train_points import PointsTrainConfig, PointTask, movable_loss

SIZE = (56, 56)
START = torch.tensor([[10.0, 10.0], [40.0, 30.0], [25.0, 45.0]])  # the last one is never seen


def window(moved: list[bool]):
    """Two frames in which such points have moved by ten pixels."""
    points = torch.stack([START, START + 10.0 * torch.tensor(moved)[:, None]])[None]
    return SimpleNamespace(
        track={"points": points, "points_visible": torch.tensor([True, True, False]).expand(1, 2, 3)}
    )


@pytest.fixture
def head():
    torch.manual_seed(0)
    made = PointHead(PointsConfig(dim=16, depth=1, heads=2, channels=4), 8, (2, 2), SIZE, (6, 7))
    torch.nn.init.zeros_(made.movable.bias)
    with torch.no_grad():
        made.movable.weight.copy_(torch.tensor([[8.0, 0.0, 0.0, 0.0]]))
    return made


@pytest.fixture
def maps():
    """The left half of a picture looks movable, the right one doesn't."""
    values = torch.zeros(1, 2, 4, 8, 8)
    values[..., 0, :, :4], values[..., 0, :, 4:] = 1.0, -1.0
    return values


@pytest.mark.parametrize(("moved", "expected"), [([True, False, True], 0.0), ([False, True, True], 8.0)])
def test_what_moves_is_movable_and_points_never_seen_say_nothing(head, maps, moved, expected):
    assert movable_loss(head, window(moved), maps).item() == pytest.approx(expected, abs=0.01)


def test_what_is_movable_leaves_the_maps_as_they_are(head, maps):
    maps.requires_grad_(True)
    movable_loss(head, window([True, False, False]), maps).backward()
    assert maps.grad is None
    assert head.movable.weight.grad is not None


@pytest.mark.parametrize(
    ("parts", "kinds"), [(("find", "movable", "follow"), ["a", "b"]), (("movable",), ["b"]), (("follow",), [])]
)
def test_a_run_reads_the_data_that_its_parts_need(parts, kinds):
    task = PointTask(None, PointsTrainConfig(parts=parts), ["a", "b"], "pushes")
    assert task.sources == kinds


@pytest.mark.parametrize("parts", [(), ("find", "nothing")])
def test_parts_that_there_are_not_are_refused(parts):
    with pytest.raises(ValueError, match="choose from find, movable, follow"):
        PointsTrainConfig(parts=parts)
