"""A toy head of points, over latents that are its own maps."""

from dataclasses import dataclass

import torch
from helpers_planning import HEIGHT, WIDTH

from dexworld.forecast import Forecast

CELL = 7
MAP = (HEIGHT // CELL, WIDTH // CELL)


@dataclass
class ToyPoints:
    """A head over "latents" that are its own maps (P, D), and hands that take along what their wrist is near."""

    map_size, image_size = MAP, (HEIGHT, WIDTH)
    near: float = 60.0

    def maps(self, latents):
        return latents.unflatten(1, MAP).movedim(-1, 1)

    def look(self, maps, pixels):
        cells = (pixels / CELL).long()
        return maps[torch.arange(len(maps))[:, None], :, cells[..., 1], cells[..., 0]]

    def find(self, looks, maps):
        same = (looks[:, None, :, :, None, None] == maps[:, :, None]).all(dim=3)
        return 50.0 * same, torch.where(same.flatten(3).any(-1), -1.0, 1.0)

    def movable(self, looks):
        return torch.where(looks[..., 2:] == 9.0, 5.0, -5.0)

    def read(self, logits):
        peak = logits.flatten(-2).argmax(-1)
        return torch.stack([(peak % MAP[1] + 0.5) * CELL, (peak // MAP[1] + 0.5) * CELL], dim=-1)

    def follow(self, looks, pixels, motion):
        wrist = motion.pixels[:, :, 6, :2]
        near = (wrist[:, :1] - pixels).norm(dim=-1) < self.near  # (N, Q)
        gone = (wrist[:, 1:] - wrist[:, :1])[:, :, None] * near[:, None, :, None]
        places = pixels[:, None] + gone
        return Forecast(places[:, :, None], torch.full(places.shape[:-1], 0.5)[:, :, None])


def maps_of(**places):
    """Maps as latents (P, 3): every cell is of its own, and the cells at (column, row) show `object`."""
    cells = torch.stack(torch.meshgrid(torch.arange(MAP[0]), torch.arange(MAP[1]), indexing="ij"), dim=-1)
    maps = torch.cat([cells, torch.zeros(*MAP, 1)], dim=-1).float()
    for column, row in places["object"]:
        for x in range(2):
            for y in range(2):
                maps[row + y, column + x] = torch.tensor([float(y), float(x), 9.0])
    return maps.flatten(0, 1)
