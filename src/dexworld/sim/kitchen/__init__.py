"""The simulated kitchen of the Franka arm with the Allegro hand, registered with Gymnasium as `dexworld/Kitchen-v0`."""

import gymnasium

KITCHEN = "dexworld/Kitchen-v0"

gymnasium.register(KITCHEN, "dexworld.sim.kitchen.kitchen_env:KitchenEnv")
