"""What policies of LeRobot read of a store: `observation.state` and `action`, made of the labels of its episodes.

LeRobot normalises every feature whose name begins with `observation` and predicts every one that begins with `action`
(its `dataset_to_policy_features`), so these two are the only ones: float32 vectors without NaN.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dexworld.data.store.labels import Layout, stored_name, track_name
from dexworld.hands import KEYPOINT_NAMES, TRACKED

STATE, ACTION = "observation.state", "action"
_GRIPPER = [f"gripper_{axis}" for axis in "xyz"]
_GRIPPER += [f"gripper_{side}_axis_{axis}" for side in "xy" for axis in "xyz"] + ["gripper_opening"]
_HANDS = [f"{KEYPOINT_NAMES[row]}_{axis}" for row in TRACKED for axis in "xyz"]


@dataclass(frozen=True)
class PolicyColumns:
    """Which labels state and action are made of, one choice for all episodes.

    state: a track's column, `observation.state` of the source or `joint_positions`; "gripper", its position, the x and
    y axes of its frame and its opening; "hands", wrist and fingertips of both, 0 where not valid; both in the world.
    action: a track's column, `action` as recorded or `joint_targets`; "next", the state of the next frame, at the end
    its own. names: of the numbers of each; a name is missing where no label serves.
    """

    state: str
    action: str
    names: Mapping[str, list[str]]

    @classmethod
    def of(cls, layouts: Sequence[Layout]) -> "PolicyColumns":
        """The first choice that every episode's labels allow."""

        def numbered(name: str) -> list[str]:
            """Names for the numbers of a track's column that all episodes have alike; [] where they don't."""
            found = {layout.get(stored_name(name), ("str", ())) for layout in layouts}
            shapes = {shape for _, shape in found}
            alike = len(shapes) == 1 and "str" not in {kind for kind, _ in found}
            return [f"{name}_{number}" for number in range(math.prod(shapes.pop()))] if alike else []

        states = {name: numbered(name) for name in (STATE, "joint_positions")}
        states |= {"gripper": _GRIPPER if numbered("gripper_pose_world") and numbered("gripper_opening") else []}
        states |= {"hands": _HANDS if numbered("keypoints_world") else []}
        state = next((name for name, names in states.items() if names), "")
        actions = {name: numbered(name) for name in (ACTION, "joint_targets")}
        actions |= {"next": [f"next_{name}" for name in states.get(state, ())]}
        action = next((name for name, names in actions.items() if names), "")
        names = {STATE: states.get(state), ACTION: actions.get(action)}
        return cls(state, action, {name: each for name, each in names.items() if each})

    def arrays(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """State and action of an episode, (T, n) or (T,) of one number, from its labels by the store's names."""
        own = {track_name(name): values for name, values in columns.items()}
        if self.state == "gripper":
            poses, length = own["gripper_pose_world"], len(own["gripper_pose_world"])
            axes = poses[:, :3, :2].swapaxes(1, 2).reshape(length, 6)
            own["gripper"] = np.concatenate([poses[:, :3, 3], axes, own["gripper_opening"].reshape(length, -1)], axis=1)
        elif self.state == "hands":
            points, valid = own["keypoints_world"][:, TRACKED], own["keypoints_valid"][:, TRACKED, None]
            own["hands"] = np.where(valid, points, 0.0)
        if self.action == "next":
            own["next"] = np.concatenate([own[self.state][1:], own[self.state][-1:]])
        arrays = {}
        for name, names in self.names.items():
            values = own[self.state if name == STATE else self.action]
            flat = np.nan_to_num(values.astype(np.float32).reshape(len(values), -1))
            arrays[name] = flat if len(names) > 1 else flat[:, 0]
        return arrays
