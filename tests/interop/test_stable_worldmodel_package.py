"""stable-worldmodel's CEM plans with our model, and ours is no worse at its budget."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "stable_worldmodel_cem.py"


def test_the_cem_of_stable_worldmodel_plans_with_our_model_and_ours_is_no_worse(foreign):
    foreign("stable_worldmodel.solver.cem")
    costs = runpy.run_path(str(EXAMPLE))["main"]()
    assert costs["dexworld"] <= costs["stable-worldmodel"]
