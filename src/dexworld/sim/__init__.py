"""The simulators. Importing this package registers the kitchen with Gymnasium.

`dexworld/Kitchen-v0` takes a task as its argument; each task has its own id, as `dexworld/PickPlace-v0`.
"""

import gymnasium

import dexworld.sim.renderer  # noqa: F401  imports mujoco first of all, whatever MUJOCO_GL says

KITCHEN = "dexworld/Kitchen-v0"
_ENVIRONMENT = "dexworld.sim.kitchen.kitchen_env:KitchenEnv"

gymnasium.register(KITCHEN, _ENVIRONMENT)
for _task in ("reach", "grasp", "place", "push", "pick_place", "push_around", "reach_clutter", "grasp_unseen"):
    gymnasium.register(f"dexworld/{_task.title().replace('_', '')}-v0", _ENVIRONMENT, kwargs={"task": _task})
