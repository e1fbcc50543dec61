"""What scripts do in a scene: their motion, simulated, and whether their sentences came true."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dexworld.sim.hands.hand_physics import HandWorld
from dexworld.sim.hands.hand_scene import HandScene, SceneState
from dexworld.sim.hands.hand_skills import SKILLS, HandScript
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP

Pose = tuple[np.ndarray, np.ndarray, np.ndarray]  # wrist (3,) m, world_from_hand (3, 3), joints (16,) rad

_VIEW_CENTRE, _VIEW_HALF = np.array([0.62, 0.0, 1.0]), np.array([0.2, 0.27, 1.0])  # where an object may end


@dataclass(frozen=True)
class Motion:
    """What a simulation leaves: at every frame the scene's state, and the pose of each hand by its side."""

    states: tuple[SceneState, ...]
    hands: tuple[dict[str, Pose], ...]

    @property
    def moved(self) -> np.ndarray:
        """How far each object is from its start at the end (n,), metres."""
        return np.linalg.norm(self.states[-1].positions - self.states[0].positions, axis=1)


def check_skills(chosen: tuple[str, ...]) -> None:
    """Raise ValueError unless `chosen` are some of `SKILLS`."""
    unknown = set(chosen) - set(SKILLS)
    if unknown or not chosen:
        raise ValueError(f"skills {chosen} must be some of {SKILLS}; unknown: {sorted(unknown)}")


def fixtures_for(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The fixtures that scenes may have when only these skills are drawn."""
    if set(chosen) <= {"drawer", "door"}:
        return chosen
    return ("none", *(kind for kind in ("drawer", "door") if kind in chosen))


def act(
    world: HandWorld, scripts: Sequence[HandScript], frames: int, fps: float, per_frame: int, release: float = 0.0
) -> Motion:
    """The motion from now, frame 0, to frame `frames`, in `per_frame` physics steps a frame.

    release: seconds in which a hand that grasped goes from where the object stopped it to what its script says.
    """
    seconds, steps = 1.0 / (fps * per_frame), frames * per_frame
    states, poses = [], []
    slack: dict[str, tuple[int, np.ndarray]] = {}  # when and how a grasping hand was more open than its script said
    for step in range(steps + 1):
        commands = {script.side: script.command(step / steps) for script in scripts}
        for side, (since, angles) in slack.items():
            if release and not commands[side].close:
                share = max(0.0, 1.0 - (step - since) * seconds / release)
                loose = angles * share * share * (3 - 2 * share)
                commands[side] = replace(commands[side], shape=commands[side].shape + loose)
        world.step(commands, seconds)
        slack |= {s: (step, world.shapes[s] - command.shape) for s, command in commands.items() if command.close}
        if step % per_frame == 0:
            states.append(world.state.copy())
            poses.append({s: (c.position, c.rotation, world.shapes[s].copy()) for s, c in commands.items()})
    return Motion(tuple(states), tuple(poses))


def comes_true(scene: HandScene, scripts: Sequence[HandScript], motion: Motion, at_rest: bool = False) -> bool:
    """Whether every script had its effect, and nothing else was moved by more than 3 cm or out of reach.

    at_rest: the objects must stand on the counter at the end, so a lift counts in between; what scripts without an
    effect do is left to the caller.
    """
    first, last, moved = motion.states[0], motion.states[-1], motion.moved
    opened = scene.opening_metres(last) - scene.opening_metres(first)
    highest = np.max([state.positions[:, 2] for state in motion.states], axis=0) if at_rest else last.positions[:, 2]
    disturbed = max(moved.max(initial=0), opened) > 1e-6
    calm, fixture_used = np.ones(len(moved), bool), False
    for script in scripts:
        if script.effect == 0:
            if disturbed and not at_rest and script.skill != "idle":
                return False
            continue
        if script.target < 0:
            fixture_used, change = True, opened
        else:
            calm[script.target] = False
            rise = highest[script.target] - first.positions[script.target, 2]
            change = rise if "lifts" in script.text else moved[script.target]
        if change < script.effect:
            return False
    in_view = (np.abs(last.positions - _VIEW_CENTRE) < _VIEW_HALF).all()
    bystanders = moved[calm].max(initial=0) < (0.12 if fixture_used else 0.03)
    resting = last.positions[:, 2] - [item.half_height for item in scene.layout.objects] < COUNTER_TOP + 1e-6
    standing = not at_rest or resting.all()
    return bool(in_view and standing and bystanders and (fixture_used or opened < 1e-6))
