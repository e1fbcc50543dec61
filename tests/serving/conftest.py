"""Services that several modules ask, made once."""

import pytest
import torch

from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.planning.presets import PlannerOptions
from dexworld.serving.policy_service import PolicyConfig, PolicyService


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """A small world model that knows nothing, and a quick search."""
    torch.manual_seed(0)
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8)])
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder, {"training_seeds": [0, 99]})
    quick = PlannerOptions(samples=8, elites=2, iterations=1, model_budget=4, horizon=2)
    return PolicyConfig(checkpoint=str(folder), planning=quick)


@pytest.fixture(scope="session")
def kinematics():
    """What reaches without a world model's forecasts."""
    return PolicyService(PolicyConfig(policy="kinematics_only"))
