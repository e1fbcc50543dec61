"""The simulators. Importing this package registers the kitchen with Gymnasium.

`dexworld/Kitchen-v0` takes a task as its argument; `dexworld/Reach-v0`, `Grasp-v0`, `Place-v0`, `Push-v0` have one.
"""

import gymnasium

import dexworld.sim.renderer  # noqa: F401  imports mujoco first of all, whatever MUJOCO_GL says

KITCHEN = "dexworld/Kitchen-v0"
_ENVIRONMENT = "dexworld.sim.kitchen.kitchen_env:KitchenEnv"

gymnasium.register(KITCHEN, _ENVIRONMENT)
for _task in ("reach", "grasp", "place", "push"):
    gymnasium.register(f"dexworld/{_task.title()}-v0", _ENVIRONMENT, kwargs={"task": _task})
