"""Boxes that an arm stays out of."""

import pytest
import torch

from dexworld.robots.boxes import ARM_RADIUS, Boxes

TURNED = torch.tensor([[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
TABLE = Boxes(torch.tensor([[0.0, -1.0, -1.0]]), torch.tensor([[2.0, 1.0, 0.0]]), TURNED)


@pytest.mark.parametrize(
    ("world", "depth"),
    [
        ((1.0, 0.0, 0.5), ARM_RADIUS - 0.5),  # above it
        ((1.0, 0.0, 0.05), ARM_RADIUS - 0.05),
        ((1.0, 0.0, -0.1), ARM_RADIUS + 0.1),  # inside
        ((-0.3, 0.0, 0.4), ARM_RADIUS - 0.5),  # before its edge
    ],
)
def test_the_depth_is_that_of_the_deepest_place_along_the_links(world, depth):
    base = TURNED[:3, :3].T @ (torch.tensor(world) - TURNED[:3, 3])
    links = torch.stack([base + torch.tensor([0.0, 0.0, 3.0]), base, base + torch.tensor([0.0, 0.0, 3.0])])
    torch.testing.assert_close(TABLE.depth(links.expand(2, 5, 3, 3)), torch.full((2, 5), depth))


def test_the_nearest_of_several_boxes_counts():
    two = Boxes(torch.cat([TABLE.low, TABLE.low + 0.5]), torch.cat([TABLE.high, TABLE.high + 0.5]), TURNED)
    links = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    assert two.depth(links) == pytest.approx(ARM_RADIUS - 0.5)
