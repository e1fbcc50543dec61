"""The page of an evaluation of video world models: figures with intervals, and clips side by side with the truth."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dexworld.report.films import film, film_script, film_style, films, region_overlay
from dexworld.report.html import (
    Markup,
    badge,
    details,
    facts,
    join,
    page,
    paragraph,
    section,
    table,
    tag,
    tiles,
    write_page,
)
from dexworld.report.interval_plot import Dot, interval_plot
from dexworld.video.judge.evaluate_videos import Evaluation, lower_is_better
from dexworld.video.judge.gallery import ShownClip
from dexworld.video.judge.references import CODEC_TRUTH, STATIC_COPY, STATIC_COPY_CODEC

TITLE = "What the hands do to the scene"
INTRODUCTION = (
    "A video world model is given a scene without anybody in it, filmed along the camera's path, and the motion of "
    "two hands. It generates the video of what the hands do to that scene. Here its videos are compared with what "
    "really happened."
)
REGION = (
    "The region is where the true video differs from the static one, together with the hands, a little widened. "
    "Inside it something has to change; outside it the static video already is right."
)
TABLE_NOTE = (
    "Mean over clips, with its 95 % interval (bootstrap over clips) below. Blue: the best of its column, the ceiling "
    "aside. Rows marked “codec” are decoded in every pixel and are to be compared with each other; a row without the "
    "mark shows the static video’s own pixels where nothing changes, and is to be compared with the static copy."
)
NAMES = {
    STATIC_COPY: "Static copy",
    STATIC_COPY_CODEC: "Static copy (codec)",
    CODEC_TRUTH: "Truth (codec): the ceiling",
    "dwm": "World model",
    "dwm_codec": "World model (codec)",
    "no_hand": "Without hands",
    **{f"sdedit_{strength / 10:g}": f"SDEdit, strength {strength / 10:g}" for strength in range(1, 11)},
    "interdyn": "First frame and hand mask",
    "mesh": "Hand mesh",
    "mask": "Hand mask",
    "adaln-global": "AdaLN, global",
    "adaln-frame": "AdaLN, per frame",
    "none": "No hand condition",
}
# Measure, heading, how it is written.
PIXELS = (
    ("psnr_inside", "PSNR inside, dB", ".2f"),
    ("psnr_outside", "PSNR outside, dB", ".2f"),
    ("psnr", "PSNR, dB", ".2f"),
    ("ssim_inside", "SSIM inside", ".3f"),
    ("ssim_outside", "SSIM outside", ".3f"),
    ("ssim", "SSIM", ".3f"),
)
PERCEPTUAL = (
    ("lpips_inside", "LPIPS inside ↓", ".3f"),
    ("lpips_outside", "LPIPS outside ↓", ".3f"),
    ("lpips", "LPIPS ↓", ".3f"),
    ("dreamsim", "DreamSim ↓", ".3f"),
    ("xclip", "X-CLIP, with the prompt", ".3f"),
    ("gradient_distance_inside", "Gradient distance inside ↓", ".3f"),
    ("gradient_distance_outside", "Gradient distance outside ↓", ".3f"),
    ("gradient_distance", "Gradient distance ↓", ".3f"),
)
BEHAVIOUR = (
    ("kept", "Unaffected pixels kept", ".1%"),
    ("acted", "Affected pixels changed", ".1%"),
    ("psnr_static_outside", "PSNR to the static video outside, dB", ".2f"),
)
PLACES = {"best": ("among the best", "good"), "median": ("in the middle", "quiet"), "worst": ("among the worst", "bad")}


def write_video_results(
    folder: Path | str,
    evaluation: Evaluation,
    shown: Sequence[ShownClip],
    method: str,
    *,
    names: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write `folder/report.html`, a page without any outside resource, and return its path; see `results_page`."""
    return write_page(Path(folder) / "report.html", results_page(evaluation, shown, method, names=names, about=about))


def results_page(
    evaluation: Evaluation,
    shown: Sequence[ShownClip],
    method: str,
    *,
    names: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> str:
    """The page as text. method: the one that the page is about. names: how methods are called, beside `NAMES`.
    about: further facts, such as the checkpoint and the command."""
    called = names_of(evaluation.values, names)
    summaries = {name: evaluation.summary(name) for name in evaluation.values}
    return page(
        TITLE,
        film_style(),
        header(evaluation, method, called),
        gains_section(evaluation, method, called),
        section("The figures", paragraph(TABLE_NOTE, class_="note"), *tables(summaries, method, called)),
        clips_section(shown, method, called, evaluation.reference_of(method)),
        about_section(evaluation, about or {}),
        tag("footer", "Made by dexworld. This page holds everything it shows and loads nothing from elsewhere."),
        film_script(),
    )


def header(evaluation: Evaluation, method: str, called: Mapping[str, str]) -> Markup:
    """Title, what this is, and the result in a few figures; first what the model gains with the codec on both sides."""
    own = evaluation.summary(method)
    items = []
    for name, reference in evaluation.headline(method.removesuffix("_codec")):
        gain = evaluation.difference(name, reference)
        how = "model and static copy both through the codec"
        if reference != STATIC_COPY_CODEC:
            how = f"{called.get(name, name)} against the static video itself"
        items += [(f"{written(gain[f'psnr_{side}'], '+.1f')} dB", f"{side}: {how}") for side in ("inside", "outside")]
    items += [
        (written(own["kept"], ".1%"), "of the unaffected pixels are left alone"),
        (str(len(evaluation.clips)), f"clips, {videos_each(own['k'])} each"),
    ]
    title = paragraph(called.get(method, method), class_="note")
    return tag("header", tag("h1", TITLE), title, paragraph(INTRODUCTION, class_="lead"), tiles(items))


def gains_section(evaluation: Evaluation, method: str, called: Mapping[str, str]) -> Markup | None:
    """Differences to the static copy that each is fairly held against; None where there is nothing to compare."""
    copies = (STATIC_COPY_CODEC, STATIC_COPY)
    others = {name: evaluation.reference_of(name) for name in evaluation.values if name not in copies}
    groups = [(copy, [name for name, reference in others.items() if reference == copy]) for copy in copies]
    parts = [gain_plots(evaluation, method, called, *group) for group in groups if group[1]]
    if not any(parts):
        return None
    return section("More than a copy of the static video?", paragraph(REGION), *parts)


def gain_plots(
    evaluation: Evaluation, method: str, called: Mapping[str, str], reference: str, others: Sequence[str]
) -> Markup | None:
    """Differences of `others` to one static copy, inside and outside; None where there are no figures."""
    gains = {name: evaluation.difference(name, reference) for name in others}
    plots, own = [], method.removesuffix("_codec")
    for measure, title in (("psnr_inside", "Inside the region"), ("psnr_outside", "Outside the region")):
        dots = [
            Dot(called.get(name, name), *bounds(gain, measure), own=name.removesuffix("_codec") == own)
            for name, gain in gains.items()
            if isinstance(gain[measure], float)
        ]
        if dots:
            plots.append(tag("div", tag("h4", title), interval_plot(dots, "dB of PSNR more than static copy")))
    if not plots:
        return None
    told = paragraph(f"Compared clip by clip with “{called.get(reference, reference)}”.", class_="note")
    return tag("div", told, tag("div", *plots, class_="plots"), class_="card")


def tables(summaries: Mapping[str, Mapping[str, Any]], method: str, called: Mapping[str, str]) -> list[Markup]:
    """Pixels, perception and behaviour, each a table; a column that nothing was measured in is named below instead."""
    parts: list[Markup] = []
    missing: dict[str, list[str]] = {}
    groups = (("Pixels", PIXELS), ("Perception", PERCEPTUAL), ("What is left alone, what is changed", BEHAVIOUR))
    for title, columns in groups:
        measured = [column for column in columns if any(has(summary, column[0]) for summary in summaries.values())]
        for key, name, _ in columns:
            if key not in [column[0] for column in measured]:
                reason = str(next(iter(summaries.values()))[key])
                missing.setdefault(reason, []).append(name.removesuffix(" ↓"))
        rows = [
            [
                name_cell(called.get(name, name), name == method),
                *(cell(summaries, name, *column) for column in measured),
            ]
            for name in summaries
        ]
        parts += [tag("h4", title), table(["Method", *(column[1] for column in measured)], rows)]
    parts += [paragraph(f"{', '.join(names)}: {reason}.", class_="note") for reason, names in missing.items()]
    return parts


def cell(summaries: Mapping[str, Mapping[str, Any]], name: str, key: str, _: str, form: str) -> Markup:
    """A figure with its interval below; the best of its column stands out."""
    summary = summaries[name]
    if not has(summary, key):
        return join(["–"])
    rivals = [other[key] for rival, other in summaries.items() if rival != CODEC_TRUTH and has(other, key)]
    best = rivals and summary[key] == (min if lower_is_better(key) else max)(rivals) and name != CODEC_TRUTH
    bare = written(summary[key], form)
    spread = f"{written(summary[f'{key}_low'], form)} to {written(summary[f'{key}_high'], form)}"
    fewer = "" if summary[f"{key}_n"] == summary["n"] else f", {summary[f'{key}_n']} clips"
    return join([tag("b", bare) if best else bare, tag("small", spread + fewer)])


def name_cell(name: str, own: bool) -> Markup:
    """A method's name; the page's own stands out."""
    return tag("strong", name) if own else join([name])


def clips_section(shown: Sequence[ShownClip], method: str, called: Mapping[str, str], reference: str) -> Markup | None:
    """Clips with their videos; None without clips."""
    if not shown:
        return None
    note = "Chosen by the model's PSNR inside the region: the best clips, those in the middle, and the worst."
    return section(
        "Clips", paragraph(note), *(clip_card(each, method, called, reference) for each in shown), anchor="clips"
    )


def clip_card(shown: ShownClip, method: str, called: Mapping[str, str], reference: str | None = None) -> Markup:
    """One clip: static | hands | generated | truth, other methods below, and where the region is."""
    clip, fps = shown.clip, shown.clip.fps
    own = shown.videos[method]
    first = [
        film(clip.static, fps, "Static scene", "given"),
        film(clip.hands, fps, "Hands", "given"),
        film(own, fps, called.get(method, method), film_note(shown, method), own=True),
        film(clip.interaction, fps, "Truth", "what really happened"),
    ]
    # The raw static video already stands first, and the codec's version of a video differs little from it by eye.
    others = [name for name in shown.videos if name not in (method, STATIC_COPY, STATIC_COPY_CODEC, CODEC_TRUTH)]
    rest = [film(shown.videos[name], fps, called.get(name, name), film_note(shown, name)) for name in others]
    overlays = [
        film(region_overlay(video, shown.region), fps, name)
        for video, name in ((own, called.get(method, method)), (clip.interaction, "Truth"))
    ]
    share = f"The region: {shown.region.mean():.0%} of the pixels"
    place = PLACES.get(shown.place)
    copied = f" (copy of the static video: {film_note(shown, reference)})" if reference in shown.figures else ""
    return tag(
        "article",
        tag("div", tag("h3", clip.name), badge(*place) if place else None, class_="head"),
        paragraph(clip.prompt, class_="note"),
        films(
            [*first, *rest],
            details(share + copied, tag("div", *overlays, class_="films", style="--columns:2")),
        ),
        class_="card",
    )


def film_note(shown: ShownClip, method: str | None) -> str:
    """PSNR inside and outside of one video."""
    figures = shown.figures[str(method)]
    parts = [f"{side} {written(figures[f'psnr_{side}'], '.1f')} dB" for side in ("inside", "outside")]
    return ", ".join(parts)


def about_section(evaluation: Evaluation, about: Mapping[str, str]) -> Markup:
    """What was measured, how, and on what."""
    config = evaluation.config
    share = sum(evaluation.region_shares) / len(evaluation.region_shares)
    pairs = [
        ("Clips", str(len(evaluation.clips))),
        ("Videos of a clip", f"{config.samples}, for methods that sample"),
        ("Seed", str(config.seed)),
        ("Region, share of the pixels", f"{share:.1%}"),
        ("Simulated clips", f"{evaluation.simulated}, of the {config.split} split"),
        *about.items(),
    ]
    return section("How it was measured", tag("div", facts(pairs), class_="card"))


def names_of(methods: Iterable[str], names: Mapping[str, str] | None = None) -> dict[str, str]:
    """How methods are called: a `<name>_codec` as `<name>` with the mark."""
    called = {**NAMES, **(names or {})}
    for name in methods:
        plain = name.removesuffix("_codec")
        if name not in called and plain in called:
            called[name] = f"{called[plain]} (codec)"
    return called


def bounds(figures: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    """A figure with its interval."""
    return figures[key], figures[f"{key}_low"], figures[f"{key}_high"]


def has(summary: Mapping[str, Any], key: str) -> bool:
    """Whether a figure was measured."""
    return isinstance(summary[key], int | float)


def written(value: Any, form: str) -> str:
    """A number as text, and what is no number as a dash."""
    return format(value, form).replace("-", "−") if isinstance(value, int | float) else "–"


def videos_each(count: int) -> str:
    """How many videos, in words."""
    return "one video" if count == 1 else f"{count} videos"
