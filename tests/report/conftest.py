import numpy as np
import pytest

from dexworld.report.demo_results import Distance, EpisodeResult, PlanRecord


def disc_image(x: float, y: float, size: tuple[int, int] = (56, 98)) -> np.ndarray:
    """A dark disc of 8 pixels around (x, y) on a light ground."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.full((*size, 3), 210, dtype=np.uint8)
    image[(columns - x) ** 2 + (rows - y) ** 2 <= 64] = (40, 60, 90)
    return image


@pytest.fixture
def moving_disc() -> np.ndarray:
    """Six frames of a disc that crosses the picture."""
    return np.stack([disc_image(15 + 12 * step, 28) for step in range(6)])


@pytest.fixture
def make_episode(moving_disc):
    """Episodes of a moving disc with two plans each."""

    def make(task: str = "reach", seed: int = 1_000_000, success: bool = True, **changes) -> EpisodeResult:
        plans = tuple(
            PlanRecord(
                moving_disc[step + 1 : 4], moving_disc[step + 1 : 4], [3.0, 2.0, 1.5], [4.0, 2.5, 1.7], 2.0 + step
            )
            for step in range(2)
        )
        keypoints = np.full((12, 2), 30.0)
        fields = {
            "plans": plans,
            "goal_keypoints": keypoints,
            "goal_keypoints_shown": np.arange(12) >= 6,
            "distances": (Distance("Hand to its goal", 0.40, 0.05 if success else 0.3, 0.15),),
        }
        frames = {
            "start_image": moving_disc[0],
            "goal_image": moving_disc[-1],
            "outcome": moving_disc,
            "outcome_fps": 5.0,
        }
        return EpisodeResult(task, seed, success, **(frames | fields | changes))

    return make
