"""The page of the video demonstration: a few scenes, what the hands do, and what the model imagines of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexworld.report import html
from dexworld.report.video_evaluation_page import REGION, TABLE_NOTE, clip_card, tables
from dexworld.video.judge.gallery import ShownClip
from dexworld.video.judge.references import STATIC_COPY, STATIC_COPY_CODEC

TITLE = "A model that imagines what hands do"
INTRODUCTION = (
    "Take a scene, and the motion of two hands. What will the scene look like while they push, grasp and open things? "
    "This model answers with a video. Below: what it was given, what it imagined, and what really happened."
)
HOW_IT_WORKS = (
    ("The scene", "A video of the untouched scene along the camera's path. Everything that stays the same is in it."),
    ("The hands", "A rendering of both hands alone, on black, seen from the same camera. It is the action."),
    ("The video", "From noise, in one step or many, a diffusion transformer makes the video in which the hands act."),
)
MEASURED = "Measured beforehand by `dexworld video evaluate` on {} held-out clips. "


def write_video_demo(
    folder: Path | str,
    shown: Sequence[ShownClip],
    method: str,
    *,
    figures: Mapping[str, Any] | None = None,
    model: Mapping[str, str] | None = None,
    timings: Mapping[str, float] | None = None,
    held_out: bool = False,
) -> Path:
    """Write `folder/report.html` and return its path.

    shown: the clips, each with the videos of `method` and of what it is compared with. figures: an evaluation's figures
    as `results.json` holds them, measured beforehand on many clips. model: facts about the checkpoint. timings: seconds
    by stage. held_out: the model was surely not trained on these. Raises ValueError without clips.
    """
    if not shown:
        raise ValueError("a demonstration shows at least one clip")
    times = {name: html.duration(seconds) for name, seconds in (timings or {}).items()}
    gains = []
    for each in shown:
        own, copied = (each.figures.get(name, {}).get("psnr_inside") for name in (method, copy_of(each)))
        if isinstance(own, int | float) and isinstance(copied, int | float):
            gains.append(own - copied)
    items = [(str(len(shown)), "scenes that the model has never seen" if held_out else "clips")]
    if gains:
        mean = html.number(sum(gains) / len(gains), "+.1f")
        items.append((f"{mean} dB", "where the hands act, against the static video itself"))
    if timings:
        items.append((html.duration(sum(timings.values())), "for the whole demonstration"))
    note = html.note(MEASURED.format(figures["n"]), TABLE_NOTE) if figures else None
    measured = tables(figures["methods"], method) if figures else []
    return html.write_page(
        Path(folder) / "report.html",
        TITLE,
        html.opening(TITLE, INTRODUCTION, items),
        html.how_it_works(HOW_IT_WORKS),
        html.section("Clips", *(clip_card(each, method, copy_of(each)) for each in shown)),
        html.section("How good it is", html.tag("p", REGION), note, *measured) if figures else None,
        html.under_the_bonnet({"The model": model or {}, "Where the time went": times}),
    )


def copy_of(shown: ShownClip) -> str:
    """The copy of the static video that a clip is compared with: the video itself, whose detail the model keeps."""
    return next((name for name in (STATIC_COPY, STATIC_COPY_CODEC) if name in shown.figures), "")
