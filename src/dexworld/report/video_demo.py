"""The page of the video demonstration: a few scenes, what the hands do, and what the model imagines of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexworld.report.demo import duration
from dexworld.report.films import film_script, film_style
from dexworld.report.html import Markup, facts, page, paragraph, section, table, tag, tiles, write_page
from dexworld.report.video_results import REGION, bounds, clip_card, names_of, written
from dexworld.video.judge.gallery import ShownClip
from dexworld.video.judge.references import CODEC_TRUTH, STATIC_COPY, STATIC_COPY_CODEC

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
FIGURES_NOTE = "Mean over held-out clips with its 95 % interval, measured beforehand by `dexworld video evaluate`. "


def write_video_demo(
    folder: Path | str,
    shown: Sequence[ShownClip],
    method: str,
    *,
    figures: Mapping[str, Any] | None = None,
    model: Mapping[str, str] | None = None,
    timings: Mapping[str, float] | None = None,
    names: Mapping[str, str] | None = None,
    notices: Sequence[str] = (),
    command: str | None = None,
    held_out: bool = False,
) -> Path:
    """Write `folder/report.html` and return its path.

    shown: the clips, each with the videos of `method` and of what it is compared with. figures: an evaluation's figures
    as `results.json` holds them, measured beforehand on many clips. model: facts about the checkpoint. timings: seconds
    by stage. notices: what a reader must know first. held_out: it was checked that the model was not
    trained on these. Raises ValueError without clips.
    """
    if not shown:
        raise ValueError("a demonstration shows at least one clip")
    called = names_of([*shown[0].videos, *(figures or {}).get("methods", {})], names)
    text = page(
        TITLE,
        film_style(),
        demo_header(shown, method, timings or {}, notices, held_out),
        section("How it works", steps()),
        section("Clips", *(clip_card(each, method, called, copy_of(each)) for each in shown)),
        figures_section(figures, called, method),
        under_the_bonnet(model or {}, timings or {}, command),
        tag("footer", "Made by dexworld. This page holds everything it shows and loads nothing from elsewhere."),
        film_script(),
    )
    return write_page(Path(folder) / "report.html", text)


def demo_header(
    shown: Sequence[ShownClip], method: str, timings: Mapping[str, float], notices: Sequence[str], held_out: bool
) -> Markup:
    """Title, what this is, and the run in a few figures."""
    items = [(str(len(shown)), "scenes that the model has never seen" if held_out else "clips")]
    gains = [gain for gain in (gain_inside(each, method) for each in shown) if gain is not None]
    if gains:
        mean = written(sum(gains) / len(gains), "+.1f")
        items.append((f"{mean} dB", "where the hands act, against the static video itself"))
    if timings:
        items.append((duration(sum(timings.values())), "for the whole demonstration"))
    told = [paragraph(notice, class_="note") for notice in notices]
    return tag("header", tag("h1", TITLE), paragraph(INTRODUCTION, class_="lead"), tiles(items), *told)


def steps() -> Markup:
    """Three steps in plain words."""
    parts = (
        tag("div", tag("h3", tag("span", str(number), class_="disc"), title), paragraph(text))
        for number, (title, text) in enumerate(HOW_IT_WORKS, start=1)
    )
    return tag("div", *parts, class_="steps")


def copy_of(shown: ShownClip) -> str | None:
    """The copy of the static video that a clip is compared with: the video itself, whose detail the model keeps."""
    return next((name for name in (STATIC_COPY, STATIC_COPY_CODEC) if name in shown.figures), None)


def gain_inside(shown: ShownClip, method: str) -> float | None:
    """PSNR inside the region above that of the static copy, dB; None where there is no copy or no region."""
    reference = copy_of(shown)
    pair = [shown.figures[name]["psnr_inside"] for name in (method, reference) if name is not None]
    numbers = [value for value in pair if isinstance(value, int | float)]
    return numbers[0] - numbers[1] if len(numbers) == 2 else None


def figures_section(figures: Mapping[str, Any] | None, called: Mapping[str, str], method: str) -> Markup | None:
    """The evaluation on many clips, if it is at hand."""
    if figures is None:
        return None

    def cell(summary: Mapping[str, Any], key: str) -> str:
        if not isinstance(summary.get(key), int | float):
            return "–"
        value, low, high = (written(number, ".2f") for number in bounds(summary, key))
        return f"{value} ({low} to {high})"

    keys = ("psnr_inside", "psnr_outside", "ssim_inside", "ssim_outside")
    rows = [
        [
            tag("strong", called.get(name, name)) if name == method else called.get(name, name),
            *(cell(summary, key) for key in keys),
        ]
        for name, summary in figures["methods"].items()
    ]
    head = ["Method", "PSNR inside, dB", "PSNR outside, dB", "SSIM inside", "SSIM outside"]
    ceiling = "The ceiling is what the codec makes of the true video. " if CODEC_TRUTH in figures["methods"] else ""
    note = f"{FIGURES_NOTE}{figures['n']} clips. {ceiling}"
    return section("How good it is", paragraph(REGION), table(head, rows), paragraph(note, class_="note"))


def under_the_bonnet(model: Mapping[str, str], timings: Mapping[str, float], command: str | None) -> Markup | None:
    """The checkpoint, the clock and the command; None where nothing is known."""
    parts: list[Markup] = []
    if model:
        parts += [tag("h4", "The model"), facts(list(model.items()))]
    if timings:
        parts += [
            tag("h4", "Where the time went"),
            facts([(name, duration(seconds)) for name, seconds in timings.items()]),
        ]
    if command:
        parts += [tag("h4", "Run it again"), paragraph(tag("code", command))]
    return section("Under the bonnet", tag("div", *parts, class_="card")) if parts else None
