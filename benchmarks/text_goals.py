"""Does a world model understand sentences, and does it push as well when told as when a point is clicked?

    python benchmarks/text_goals.py --checkpoint outputs/text/model --seed 904500 --episodes 24 --pictures 400

Understanding: sentences about objects of pictures of held-out scenes, with the words of training, with other words, and
with other pairs of colour and kind. Pushing: starts of push episodes; what the sentence means is the target, which lies
within 3 cm of the episode's own. `click` is told both pixels by the simulator, `seen` and `words` read them from the
sentence, in the words of training and in others.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count, islice
from typing import Any

import numpy as np
import torch

from common import interval_values, parser, write_and_print
from dexworld.data.parallel import Workers
from dexworld.evaluation.guard import check_seeds
from dexworld.evaluation.intervals import mcnemar, wilson
from dexworld.evaluation.policy_setup import policy_setup
from dexworld.evaluation.runner import play
from dexworld.models.world_model import load_world_model
from dexworld.planning.policies import world_model
from dexworld.planning.sentence_goal import sentence_points
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_scene import random_layout
from dexworld.sim.kitchen.kitchen_simulation import MAX_OBJECTS
from dexworld.sim.kitchen.kitchen_tasks import RADIUS, Rejection, draw_episode
from dexworld.sim.kitchen.object_scenes import PairConfig, Points, described, record_pairs
from dexworld.training.captions import Scene, draw_caption, nearest_caption

WORDINGS = ("seen", "words", "pairs")
TOLERANCE = 0.03  # metres between what the sentence means and the episode's target
FRAMES = 4  # pictures of a scene


@lru_cache(maxsize=1)
def model_of(checkpoint: str) -> Any:
    torch.set_num_threads(1)
    return load_world_model(checkpoint).eval()


def pixel_of(point: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Pixel (2,) and depth in metres of a point (3,) in the world, (3,)."""
    seen = np.linalg.inv(world_from_camera)[:3] @ np.append(point, 1.0)
    return np.append((intrinsics @ seen)[:2] / seen[2], seen[2])


def on_plane(pixel: np.ndarray, height: float, world_from_camera: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """The point (2,) of the horizontal plane at `height` that a pixel (2,) shows, metres."""
    ray = world_from_camera[:3, :3] @ np.linalg.inv(intrinsics) @ np.append(pixel, 1.0)
    eye = world_from_camera[:3, 3]
    return eye[:2] + ray[:2] * (height - eye[2]) / ray[2]


def understood(checkpoint: str, seed: int) -> list[dict[str, Any]]:
    """A row for each sentence about the pictures of the scene of `seed`, in each wording."""
    model, track, layout, rows = model_of(checkpoint), record_pairs(seed, PairConfig(FRAMES)), random_layout(seed), []
    camera, rng = track.intrinsics, np.random.default_rng([seed, 7])
    for frame in range(FRAMES):
        names = ("object_kinds", "object_colours", "object_positions", "points_visible")
        kinds, colours, positions, visible = (np.asarray(track[name])[frame] for name in names)
        pose = track.world_from_camera[frame]
        scene = Scene(kinds, colours, positions, visible[:MAX_OBJECTS] & (kinds >= 0), pose)
        for wording in WORDINGS:
            caption = draw_caption(rng, scene, wording)
            if caption is None:
                continue
            start, end = (each[0] for each in sentence_points(model, track.frames.read([frame])[0], caption.sentence))
            moved = caption.meaning.moved
            *place, depth = pixel_of(positions[moved], pose, camera)
            radius, target = layout.objects[moved].radius * camera[0, 0] / depth, scene.end(caption.meaning)
            other = int(rng.choice(np.flatnonzero(kinds >= 0)))
            metres = np.linalg.norm(on_plane(end, target[2], pose, camera) - target[:2])
            rows.append(
                {
                    "wording": wording,
                    "right": bool(np.linalg.norm(start - place) < radius),
                    "chance": other == moved,
                    "start_px": float(np.linalg.norm(start - place)),
                    "end_px": float(np.linalg.norm(end - pixel_of(target, pose, camera)[:2])),
                    "end_cm": float(100 * metres),
                    "still_cm": float(100 * np.linalg.norm(positions[moved, :2] - target[:2])),
                }
            )
    return rows


def understanding(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of each wording: shares with their numbers and intervals, medians of errors."""
    figures: dict[str, Any] = {}
    for wording in WORDINGS:
        found = [row for row in rows if row["wording"] == wording]
        figures[f"{wording}_sentences"] = len(found)
        if not found:
            continue
        right = interval_values(wilson(sum(row["right"] for row in found), len(found)))
        figures |= {f"{wording}_right_{name}": value for name, value in right.items()}
        figures[f"{wording}_chance"] = float(np.mean([row["chance"] for row in found]))
        for name in ("start_px", "end_px", "end_cm", "still_cm"):
            figures[f"{wording}_{name}"] = float(np.median([row[name] for row in found]))
    return figures


def pushed(checkpoint: str, seed: int) -> dict[str, Any] | str:
    """What sentences and clicks made of the push episode of `seed`, or why there is nothing to compare."""
    episode = draw_episode("push", seed)
    if isinstance(episode, Rejection):
        return episode.reason
    model, environment, rng = model_of(checkpoint), KitchenEnv(), np.random.default_rng([seed, 8])
    try:
        image = environment.reset(options={"episode": episode})[0]["image"]
        simulation = environment.simulation
        assert simulation is not None
        look, positions = described(simulation), simulation.object_row()["object_positions"]
        shown = Points(simulation, rng).row()["points_visible"][:MAX_OBJECTS]
        pose, camera = simulation.world_from_camera, simulation.intrinsics
        scene = Scene(look["object_kinds"], look["object_colours"], positions, shown, pose)
        place = scene.axes @ episode.goal_object[:2]
        captions = {wording: nearest_caption(rng, scene, 0, place, wording) for wording in WORDINGS[:2]}
        if captions["seen"] is None:
            return "the object is hidden at the start, or can't be told from the others"
        target = scene.end(captions["seen"].meaning)  # words mean the same
        if np.linalg.norm((target - episode.goal_object)[:2]) > TOLERANCE:
            return "no sentence means a place near the target"
        episode = replace(episode, goal_object=target)
        goals = {"click": tuple(pixel_of(each, pose, camera)[None, :2] for each in (positions[0], target))}
        row: dict[str, Any] = {"seed": seed}
        for name, caption in captions.items():
            assert caption is not None
            row[f"{name}_sentence"], goals[name] = caption.sentence, sentence_points(model, image, caption.sentence)
        for name, points in goals.items():
            apart = (float(np.linalg.norm(a - b)) for a, b in zip(points, goals["click"], strict=True))
            row |= dict(zip((f"{name}_start_px", f"{name}_end_px"), apart, strict=True))
            policy = world_model(policy_setup("push", model, "cpu", environment))
            played = play(policy, environment, seed, {"episode": episode}, goal_points=points)
            row |= {f"{name}_success": played.success, f"{name}_cm": 100 * played.distances[-1]}
        row["still_cm"] = 100 * played.distances[0]
    finally:
        environment.close()
    return row


def pushes(checkpoint: str, first_seed: int, episodes: int, workers: int) -> tuple[list[dict], Counter]:
    """The first so many episodes in the order of seeds, and why others were passed over."""
    rows, passed, seeds = [], Counter(), count(first_seed)
    with Workers(partial(pushed, checkpoint), workers) as pool:
        while len(rows) < episodes:
            for result in pool.map(list(islice(seeds, 2 * (episodes - len(rows))))):
                if isinstance(result, str):
                    passed[result] += 1
                elif len(rows) < episodes:
                    rows.append(result)
                    print(f"push {len(rows)} of {episodes}: {result}", flush=True)
    return rows, passed


def comparison(rows: list[dict]) -> Iterator[tuple[str, Any]]:
    """Figures of pushing by click and by sentences; `p` of their difference by McNemar's test."""
    won = {name: np.array([row[f"{name}_success"] for row in rows]) for name in ("click", *WORDINGS[:2])}
    for name, successes in won.items():
        rate = interval_values(wilson(int(successes.sum()), len(rows)))
        yield from ((f"push_{name}_{key}", value) for key, value in rate.items())
        yield f"push_{name}_cm", float(np.mean([row[f"{name}_cm"] for row in rows]))
        if name != "click":
            yield f"push_{name}_p", float(mcnemar(won["click"], successes))
            for error in ("start_px", "end_px"):
                yield f"push_{name}_{error}", float(np.median([row[f"{name}_{error}"] for row in rows]))
    yield "push_still_cm", float(np.mean([row["still_cm"] for row in rows]))


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/text_goals")
    arguments.add_argument("--checkpoint", default="reference")
    arguments.add_argument("--pictures", type=int, default=400, help=f"of held-out scenes, {FRAMES} of each")
    arguments.add_argument("--episodes", type=int, default=24, help="pushes, with a sentence each")
    arguments.add_argument("--seed", type=int, default=904_500, help="first held-out scene")
    arguments.add_argument("--split", default="validation", help="evaluation for seeds from 1,000,000 on")
    arguments.add_argument("--workers", type=int, default=0, help="processes; 0 is one per core")
    options = arguments.parse_args()
    model, scenes = model_of(options.checkpoint), range(options.seed, options.seed + -(-options.pictures // FRAMES))
    check_seeds([options.seed, *scenes], model.provenance, options.split)

    results: dict[str, Any] = {name: getattr(options, name) for name in ("checkpoint", "seed")}
    with Workers(partial(understood, options.checkpoint), options.workers) as pool:
        results |= understanding([row for rows in pool.map(list(scenes)) for row in rows])
    if options.episodes:
        rows, passed = pushes(options.checkpoint, options.seed, options.episodes, options.workers)
        check_seeds([row["seed"] for row in rows], model.provenance, options.split)
        results |= {"episodes": len(rows), "radius_cm": 100 * RADIUS["push"], **dict(comparison(rows))}
        results |= {"passed_over": dict(passed), "rows": rows}
    write_and_print(options.output, results)


if __name__ == "__main__":
    main()
