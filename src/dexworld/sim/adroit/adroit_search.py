"""Where a search in Adroit's own physics looks: the arm's joints, and the fingers by two synergies.

Every joint of 28 by itself is too much for a few hundred candidates: in the door's scene they hardly ever meet the
handle. This search begins with a hand that goes to what it works on and closes; at the door it then pulls.
"""

import numpy as np

from dexworld.robots.environment import SearchSpace
from dexworld.sim.adroit.adroit_simulation import AdroitSimulation
from dexworld.sim.adroit.adroit_tasks import MOVES

_FOUR, _THUMB = ("FF", "MF", "RF", "LF"), "TH"
_SPREADS = ("FFJ3", "MFJ3", "RFJ3", "LFJ3", "LFJ4")  # sideways
_BENT = ((0.2, 0.2), (0.6, 0.5), (0.8, 0.5), (0.8, 0.5), (0.8, 0.5))  # shares of closing of fingers and thumb, by move
_ARM_STD, _FINGER_STD = 0.25, 0.4  # shares of a joint's range
_PULL, _PULLED = "ARTz", (0.5, 1.0)  # the forearm's slide, and its share of the way back in the last moves


def search_space(simulation: AdroitSimulation, pulls: bool) -> SearchSpace:
    """The space of an episode in its present state. pulls: whether the last moves draw the forearm back."""
    names, limits = list(simulation.robot.joints), simulation.robot.limits.numpy()
    span, start = limits[:, 1] - limits[:, 0], simulation.joint_targets
    arm = [names.index(name) for name in simulation.scene.arm]
    bending = np.array([name[:2] in _FOUR and name not in _SPREADS for name in names])
    thumb = np.array([name.startswith(_THUMB) for name in names])
    directions = np.zeros((len(arm) + 2, len(names)))
    directions[range(len(arm)), arm] = span[arm]
    directions[-2, bending], directions[-1, thumb] = span[bending], (limits[:, 1] - start)[thumb]
    opened = np.where(bending, limits[:, 0], start)
    opened[arm] = simulation.arm_to(simulation.thing)[0][arm]
    moves = opened + np.array(_BENT) @ directions[-2:]
    if pulls:
        slide = names.index(_PULL)
        moves[MOVES - len(_PULLED) :, slide] += np.array(_PULLED) * (limits[slide, 0] - opened[slide])
    return SearchSpace(moves, directions, np.array([_ARM_STD] * len(arm) + [_FINGER_STD] * 2))
