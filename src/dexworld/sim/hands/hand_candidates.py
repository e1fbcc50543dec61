"""Candidate hand trajectories in one scene, each truly simulated: a choice for judges of imagined videos.

As in the DWM paper's action evaluation (section 5), N different hand motions start from the same scene. The goal is the
outcome of one of them, given as a picture and as a sentence. All candidates share scene, camera path and static video.
The goal's final state differs from every other candidate's by `MIN_DISTANCE` somewhere.

Where candidates act on different objects, seeing whose hand passes the place that the goal changes is nearly enough.
Rivals all act on one object, or just miss it: then they differ only in what the hand does to it.
"""

from dataclasses import dataclass

import numpy as np

from dexworld.sim.hands.hand_clips import Artist, HandClip, HandClipConfig, camera_path, simulate, with_idle_hand
from dexworld.sim.hands.hand_motion import Motion, comes_true, every_kind, fixtures_for
from dexworld.sim.hands.hand_scene import HandScene, SceneState, random_hand_layout
from dexworld.sim.hands.hand_skills import HandScript, Writer
from dexworld.sim.render import make_renderer

MIN_DISTANCE = 0.04  # metres between the goal's final state and every other candidate's
MAX_SCENES = 20  # scenes tried for one seed
QUIET_SHARE = 4  # one in so many candidates touches nothing
_TRIES = 4  # draws of one kind of script


@dataclass(frozen=True)
class CandidateSet:
    """N outcomes of N hand trajectories in one scene, and a goal that one of them reaches.

    clips: N clips with equal static videos and camera paths. goal_image: (H, W, 3) uint8, the goal's final state from
    the last camera pose, hands hidden. goal_text: that candidate's sentence. final_distances: (N,) metres, how far the
    final states are from the goal's (the object or handle that differs most).
    """

    clips: tuple[HandClip, ...]
    goal_index: int
    goal_image: np.ndarray
    goal_text: str
    seed: int
    final_distances: np.ndarray


@dataclass(frozen=True)
class _Candidate:
    scripts: tuple[HandScript, ...]
    motion: Motion
    acts: bool  # changes the scene


def record_candidates(
    seed: int, count: int = 8, config: HandClipConfig | None = None, backend: str = "auto", rivals: bool = False
) -> CandidateSet:
    """The candidates of `seed`: `count` trajectories, a quarter of which touch nothing. About 5 CPU-seconds for 8.

    rivals: all of them are about one object of the scene. Raises ValueError for count < 2, RuntimeError if no scene of
    the seed allows `count` different outcomes.
    """
    if count < 2:
        raise ValueError(f"a choice needs at least 2 candidates, got count={count}")
    config = config or HandClipConfig()
    rng = np.random.default_rng([seed, 16 if rivals else 15])
    scene, candidates = _draw_scene(seed, count, config, rng, rivals)
    chosen = [candidates[index] for index in rng.permutation(count)]
    goal = int(rng.choice([index for index, candidate in enumerate(chosen) if candidate.acts]))
    goal_state = chosen[goal].motion.states[-1]
    cameras = camera_path(seed, config)
    with make_renderer(scene.model, *config.drawn_size, backend) as renderer:
        artist = Artist(scene, renderer, config)
        static = artist.static(scene.start, cameras)
        clips = tuple(artist.clip(one.motion, one.scripts, cameras, static) for one in chosen)
        goal_image = artist.static(goal_state, cameras[-1:])[0]
    distances = np.array([state_distance(scene, one.motion.states[-1], goal_state) for one in chosen])
    return CandidateSet(clips, goal, goal_image, clips[goal].prompt, seed, distances)


def state_distance(scene: HandScene, first: SceneState, second: SceneState) -> float:
    """How far two states of a scene are apart: metres of the object, or the fixture's handle, that differs most."""
    objects = np.linalg.norm(first.positions - second.positions, axis=1).max(initial=0.0)
    return float(max(objects, abs(scene.opening_metres(first) - scene.opening_metres(second))))


def _draw_scene(seed: int, count: int, config: HandClipConfig, rng: np.random.Generator, rivals: bool):
    """A scene of `seed`, and `count` candidates in it of which those that act differ."""
    last_camera = camera_path(seed, config)[-1]
    for draw in range(MAX_SCENES):
        scene = HandScene(random_hand_layout(seed, fixtures_for(config.skills), draw), *config.drawn_size)
        about = int(rng.integers(len(scene.layout.objects))) if rivals else None
        search = (Writer(scene, rng), config, last_camera, about)
        candidates = _find(*search, count // QUIET_SHARE, quiet=True)
        candidates += _find(*search, count - len(candidates), quiet=False)
        if len(candidates) == count:
            return scene, candidates
    raise RuntimeError(
        f"seed {seed}: none of {MAX_SCENES} scenes allows {count} different outcomes with skills {config.skills}; "
        "ask for fewer candidates or more skills"
    )


def _find(
    writer: Writer, config: HandClipConfig, last_camera: np.ndarray, about: int | None, count: int, quiet: bool
) -> list[_Candidate]:
    """Up to `count` candidates that act and end differently, or (`quiet`) that touch nothing.

    about: the object that all of them are about, None for any.
    """
    found: list[_Candidate] = []
    scene, rng = writer.scene, writer.rng
    writers = every_kind(scene, config.skills, quiet, about)
    for _ in range(_TRIES):
        order = list(rng.permutation(len(writers)))
        if not quiet and about is None and scene.layout.fixture is not None:
            order.sort(key=lambda kind: kind != 0)  # one of many acts, but what the fixture is there for
        for kind in order:
            if len(found) == count:
                return found
            script = writers[kind](writer)
            if any(script.text == other.scripts[0].text for other in found):
                continue
            scripts = with_idle_hand(writer, script)
            motion = simulate(scene, scripts, config)
            if not comes_true(scene, scripts, motion) or not _in_picture(scene, motion, config, last_camera):
                continue
            apart = [state_distance(scene, motion.states[-1], other.motion.states[-1]) for other in found]
            if quiet or min(apart, default=np.inf) >= MIN_DISTANCE:
                found.append(_Candidate(scripts, motion, not quiet))
    return found


def _in_picture(scene: HandScene, motion: Motion, config: HandClipConfig, last_camera: np.ndarray) -> bool:
    """Whether the last picture shows the centres of all moved objects, which shows the outcome."""
    moved = motion.states[-1].positions[motion.moved > 0.5 * MIN_DISTANCE]
    camera = (moved - last_camera[:3, 3]) @ last_camera[:3, :3]
    reach = np.tan(np.radians(scene.layout.fov_deg) / 2)
    limits = 0.93 * reach * np.array([1.0, config.height / config.width])
    return bool((np.abs(camera[:, :2] / camera[:, 2:]) < limits).all())
