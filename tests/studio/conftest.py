import numpy as np
import pytest

from dexworld.models.reference import REFERENCE
from dexworld.studio.film_painter import FilmPainter
from dexworld.studio.imagination import Imaginer, TrueScene
from dexworld.studio.planner import Planner


@pytest.fixture(scope="session")
def imaginer():
    return Imaginer(REFERENCE)


@pytest.fixture(scope="session")
def planner():
    return Planner(REFERENCE)


@pytest.fixture(scope="session")
def true_scene():
    return TrueScene()


@pytest.fixture(scope="session")
def painter():
    return FilmPainter()


@pytest.fixture(scope="session")
def hand():
    """Keypoints (42, 3) of two hands that point ahead, palms down."""
    keypoints = np.zeros((42, 3))
    for side, across in ((0, -0.2), (21, 0.2)):
        for finger in range(5):
            for joint in range(4):
                ahead = 0.05 + 0.03 * joint
                keypoints[side + 1 + 4 * finger + joint] = (ahead, 0.02 * (finger - 2) * (-1 if side else 1), 0.0)
        keypoints[side : side + 21] += (0.0, across, 1.0)
    return keypoints
