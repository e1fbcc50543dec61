"""Keypoints of hands that follow scripts without a scene: nothing stops them, and they move nothing."""

from collections.abc import Sequence

import mujoco
import numpy as np

from dexworld.sim.hands.hand_skills import HandScript
from dexworld.sim.hands.human_hands import ABSENT, SIDES, HandLooks, HandModel, add_hand


class HandPuppet:
    """Two hands. hands: those of a scene; without them, hands of an adult's size alone."""

    def __init__(self, hands: HandModel | None = None) -> None:
        self.hands = hands or _alone()
        self._data = mujoco.MjData(self.hands.model)

    def keypoints(self, scripts: Sequence[HandScript], frames: int) -> tuple[np.ndarray, np.ndarray]:
        """World keypoints (frames, 42, 3) float32 in metres, zeros for a hand without a script, and valid (42,)."""
        present = tuple(script.side for script in scripts)
        rows = []
        for time in np.linspace(0.0, 1.0, frames):
            commands = {script.side: script.command(float(time)) for script in scripts}
            for side in SIDES:
                key = commands.get(side)
                self.hands.set_hand(
                    self._data, side, *(ABSENT if key is None else (key.position, key.rotation, key.shape))
                )
            mujoco.mj_kinematics(self.hands.model, self._data)
            rows.append(self.hands.keypoints(self._data, present))
        points, valid = zip(*rows, strict=True)
        return np.stack(points), valid[0]

    def lowest(self, rotation: np.ndarray, shape: np.ndarray) -> float:
        """How far a right hand in this pose reaches below its wrist, metres, as a number of at most 0."""
        centres = self.hands.spheres_at(rotation, shape)
        return min(0.0, float((centres[:, 2] - self.hands.sphere_radius).min()))


def _alone() -> HandModel:
    spec = mujoco.MjSpec()
    looks = HandLooks((0.9, 0.7, 0.6), (0.5, 0.5, 0.5))
    for side in SIDES:
        add_hand(spec.worldbody, side, looks)
    return HandModel(spec.compile())
