import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.report.demo import EpisodeResult, PlanRecord
from dexworld.writing import write_json


def debug_model() -> DexWM:
    """A debug model with an encoder of random pictures."""
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8)])
    return model.eval()


@pytest.fixture(scope="session")
def model() -> DexWM:
    torch.manual_seed(0)
    return debug_model()


@pytest.fixture
def other_model() -> DexWM:
    """A model with an encoder of its own."""
    return debug_model()


@pytest.fixture(scope="session")
def checkpoint(model, tmp_path_factory) -> Path:
    """The model's folder, with measured rates of a task beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    training = {"training_seeds": [0, 99], "seconds": 600.0, "datasets": [{"training_episodes": 90}]}
    model.save_pretrained(folder, training)
    rates = {"success": 0.5, "low": 0.4, "high": 0.6, "n": 100, "expert": 0.9, "random": None}
    write_json(folder / "evaluation.json", {"tasks": {"reach": rates}, "tasks_source": "100 scenes."})
    return folder


@pytest.fixture(scope="session")
def text_of() -> Callable[[Path], str]:
    """What a reader of a page sees: no tags, no data."""

    def text(page: Path) -> str:
        shown = re.sub(r"<(style|script)>.*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))

    return text


@pytest.fixture
def moving_disc() -> np.ndarray:
    """Six frames of a dark disc of 8 pixels that crosses a light ground."""
    rows, columns = np.mgrid[:56, :98]
    frames = np.full((6, 56, 98, 3), 210, dtype=np.uint8)
    for step, frame in enumerate(frames):
        frame[(columns - 15 - 12 * step) ** 2 + (rows - 28) ** 2 <= 64] = (40, 60, 90)
    return frames


@pytest.fixture
def make_episode(moving_disc):
    """Episodes of a moving disc with two plans each."""

    def make(task: str = "reach", seed: int = 1_000_000, success: bool = True, **changes) -> EpisodeResult:
        fields = {
            "start_image": moving_disc[0],
            "goal_image": moving_disc[-1],
            "outcome": moving_disc,
            "outcome_fps": 5.0,
            "goal_keypoints": np.full((12, 2), 30.0),
            "goal_keypoints_shown": np.arange(12) >= 6,
            "distances": (0.40, 0.05 if success else 0.3),
            "limit": 0.15,
            "plans": tuple(PlanRecord(each, each, 2.0) for each in moving_disc[1:3]),
        }
        return EpisodeResult(task, seed, success, **(fields | changes))

    return make
