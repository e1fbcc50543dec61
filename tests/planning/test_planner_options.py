"""What a run changes in its planner preset."""

import pytest

from dexworld.planning.presets import PlannerOptions, task_preset


@pytest.mark.parametrize("name", ["cpu", "paper"])
@pytest.mark.parametrize("task", ["reach", "place", "push"])
def test_options_replace_what_they_name_and_leave_the_rest_of_the_preset(name, task):
    chosen = task_preset(name, task)
    unchanged = PlannerOptions().applied(chosen)
    assert (unchanged.config, unchanged.solver) == (chosen.config, chosen.solver)
    changed = PlannerOptions(horizon=5, samples=16, elites=4, model_budget=8, rewiden=0.1).applied(chosen)
    search = getattr(changed.solver, "solver", changed.solver)
    assert (search.samples, search.elites, changed.config.horizon, changed.config.rewiden) == (16, 4, 5, 0.1)
    assert changed.config.model.model_budget == 8
    assert changed.config.finger_std == chosen.config.finger_std


@pytest.mark.parametrize("wrong", [{"elites": 1000}, {"horizon": 0}, {"model_budget": 0}, {"arm_std": -1.0}])
def test_options_that_the_planner_refuses_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlannerOptions(**wrong).applied(task_preset("cpu", "reach"))
