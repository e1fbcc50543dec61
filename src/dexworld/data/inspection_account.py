"""An inspection as JSON: what `results.json` of `dexworld inspect` holds."""

from typing import Any

from dexworld.data.episode_figures import FINDINGS, keypoint_rows
from dexworld.data.inspection import Inspection
from dexworld.data.statistics import most_common, shares

TASKS = 200  # the most common ones that are named


def account(result: Inspection) -> dict[str, Any]:
    """Every figure of an inspection, as JSON values; docs/data_store.md explains the keys. What doesn't exist is None.

    Figures are of the episodes read; only `episodes`, `splits`, `broken` at opening and the `estimate`s are of all.
    """
    figures = result.figures
    whole = result.episodes / result.read if result.read else None
    hands, (left, right) = shares(figures.hands_shown, figures.frames), shares(figures.per_hand, figures.frames)
    return {
        "dataset": result.folder.name,
        "kind": result.kind,
        "episodes": result.episodes,
        "read": result.read,
        "sample": result.is_sample,
        "readable": result.readable,
        "frames": figures.frames,
        "hours": figures.seconds / 3600,
        "bytes": result.bytes,
        "estimate": {
            "hours": figures.seconds / 3600 * whole if whole else None,
            "bytes": round(result.bytes * whole) if whole else None,
        },
        "splits": dict(sorted(result.splits.items())),
        "frame_sizes": {f"{width}x{height}": count for (height, width), count in most_common(result.sizes.items(), 50)},
        "fps": {f"{rate:g}": count for rate, count in most_common(result.rates.items(), 50)},
        "tasks": {
            "distinct": len(result.tasks),
            "most_common": [[task, count] for task, count in most_common(result.tasks.items(), TASKS)],
        },
        "extras": dict(sorted(result.extras.items())),
        "length_s": result.lengths.to_json(),
        "visibility": {
            "hands_in_picture": dict(zip(("none", "one", "two"), hands, strict=True)),
            "left": left,
            "right": right,
            "keypoints": keypoint_rows(figures),
            "map": {"left": figures.map[0].tolist(), "right": figures.map[1].tolist()},
            "depth_m": figures.depth.to_json(),
        },
        "confidence": (
            {name: histogram.to_json() for name, histogram in figures.confidence.items()}
            if figures.confidence_frames
            else None
        ),
        "speeds_per_s": {name: histogram.to_json() for name, histogram in figures.speeds.items()},
        "steps_per_frame": {name: histogram.to_json() for name, histogram in figures.steps.items()},
        "actions": [found.to_json() for _, found in sorted(figures.actions.items())],
        "largest": {name: largest.to_json() for name, largest in figures.largest.items()},
        "hand_length_m": {name: histogram.to_json() for name, histogram in figures.hand_length.items()},
        "pictures": {
            "decode": result.config.decode,
            "episodes": result.decoded_episodes,
            "decoded": figures.decoded,
            "compared": figures.compared,
            "identical": figures.identical,
            "black": figures.black,
        },
        "findings": finding_rows(result),
        "broken": {
            "count": len(result.broken),
            "by_stage": {
                stage: sum(each.stage == stage for each in result.broken) for stage in ("opening", "labels", "frames")
            },
            "episodes": [{"episode": each.name, "stage": each.stage, "reason": each.reason} for each in result.broken],
        },
    }


def finding_rows(result: Inspection) -> list[dict[str, Any]]:
    """What looks wrong, by the number of episodes: kind, title, advice, episodes, examples."""
    rows = []
    for kind, (count, examples) in result.findings.items():
        title, advice = FINDINGS[kind]
        rows.append(
            {
                "kind": kind,
                "title": title,
                "advice": advice,
                "episodes": count,
                "examples": [
                    {"episode": name, "frame": each.frame, "message": each.message} for name, each in examples
                ],
            }
        )
    return sorted(rows, key=lambda row: (-row["episodes"], row["kind"]))
