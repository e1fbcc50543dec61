"""The page of an evaluation of video world models: figures with intervals, and clips side by side with the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexworld.report import html
from dexworld.report.media import film, film_grid, films
from dexworld.report.overlay import region_overlay
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
CHOSEN = "Chosen by the model's PSNR inside the region: the best clips, those in the middle, and the worst."
NAMES = {
    STATIC_COPY: "Static copy",
    STATIC_COPY_CODEC: "Static copy (codec)",
    CODEC_TRUTH: "Truth (codec): the ceiling",
    "dwm": "World model",
    "dwm_unpainted": "World model, nothing painted",
    "painted_scene": "Painted hands over the static video",
    "no_hand": "Without hands",
    **{f"sdedit_{strength / 10:g}": f"SDEdit, strength {strength / 10:g}" for strength in range(1, 11)},
    "interdyn": "First frame and hand mask",
    "mesh": "Hand mesh",
    "mask": "Hand mask",
    "adaln-global": "AdaLN, global",
    "adaln-frame": "AdaLN, per frame",
    "none": "No hand condition",
    "dexwm": "DexWM, the latent world model",
    "composite": "Hands pasted on the static video",
    "composite_codec": "The same through the codec",
    "hand_over_change": "Hand nearest to the change (no model)",
    "oracle": "The simulator's own videos (ceiling)",
}


def _sides(key: str, heading: str, form: str, unit: str = "") -> list[tuple[str, str, str]]:
    """The columns of a measure that is taken inside and outside of the region, and everywhere."""
    sides = {"_inside": " inside", "_outside": " outside", "": ""}
    return [(key + suffix, heading + words + unit, form) for suffix, words in sides.items()]


GROUPS = {  # title of a table to its columns: measure, heading, how it is written
    "Pixels": [*_sides("psnr", "PSNR", ".2f", ", dB"), *_sides("ssim", "SSIM", ".3f")],
    "Perception": [
        *_sides("lpips", "LPIPS", ".3f", " ↓"),
        *_sides("lite0_distance", "Lite0 distance", ".3f", " ↓"),
        ("lite0_frechet_inside", "Lite0 Fréchet distance inside ↓", ".2f"),
        ("lite0_frechet", "Lite0 Fréchet distance ↓", ".2f"),
        ("dreamsim", "DreamSim ↓", ".3f"),
        ("xclip", "X-CLIP, with the prompt", ".3f"),
        ("sharpness_inside", "Sharpness inside, of the truth's", ".0%"),
        *_sides("gradient_distance", "Gradient distance", ".3f", " ↓"),
    ],
    "What is left alone, what is changed": [
        ("kept", "Unaffected pixels kept", ".1%"),
        ("acted", "Affected pixels changed", ".1%"),
        ("psnr_static_outside", "PSNR to the static video outside, dB", ".2f"),
        ("spread_inside", "Spread over samples inside, levels", ".1f"),
        ("spread_outside", "Spread outside, levels", ".1f"),
    ],
}
PLACES = {"best": ("among the best", "good"), "median": ("in the middle", "quiet"), "worst": ("among the worst", "bad")}
Summaries = Mapping[str, Mapping[str, Any]]  # figures by method


def write_video_results(
    folder: Path | str, evaluation: Evaluation, shown: Sequence[ShownClip], method: str, about: Mapping[str, str]
) -> Path:
    """Write `folder/report.html` about one method and return its path. about: further facts, such as the checkpoint."""
    summaries = {name: evaluation.summary(name) for name in evaluation.values}
    own = summaries[method]
    videos = "one video" if own["k"] == 1 else f"{own['k']} videos"
    tiles = [
        (html.number(own["kept"], ".1%"), "of the unaffected pixels are left alone"),
        (str(len(evaluation.clips)), f"clips, {videos} each"),
    ]
    cards = [clip_card(each, method, evaluation.reference_of(method)) for each in shown]
    return html.write_page(
        Path(folder) / "report.html",
        TITLE,
        html.opening(TITLE, INTRODUCTION, tiles, above=method_name(method)),
        _gains_section(evaluation, method),
        html.section("The figures", html.note(TABLE_NOTE), *tables(summaries, method)),
        html.section("Clips", html.tag("p", CHOSEN), *cards, anchor="clips") if cards else None,
        _about_section(evaluation, about),
    )


def method_name(method: str) -> str:
    """What a method is called: `<name>_codec` as `<name>` with the mark."""
    plain = method.removesuffix("_codec")
    return NAMES.get(method) or (f"{NAMES[plain]} (codec)" if plain in NAMES else method)


def method_cell(method: str, own: str) -> html.Markup:
    """A method's name in a table; the page's own stands out."""
    return html.tag("strong", method_name(method)) if method == own else html.join([method_name(method)])


def _gains_section(evaluation: Evaluation, method: str) -> html.Markup | None:
    copies, parts = (STATIC_COPY_CODEC, STATIC_COPY), list[html.Markup]()
    for copy in copies:
        rows = []
        for name in evaluation.values:
            if name not in copies and evaluation.reference_of(name) == copy:
                gain = evaluation.difference(name, copy)
                cells = (_over_interval(gain, f"psnr_{side}", "+.2f") for side in ("inside", "outside"))
                rows.append([method_cell(name, method), *cells])
        if rows:
            heading = html.tag("h4", f"Compared clip by clip with “{method_name(copy)}”")
            parts += [heading, html.table(["Method", "Inside the region, dB", "Outside, dB"], rows)]
    return html.section("More than a copy of the static video?", html.tag("p", REGION), *parts) if parts else None


NOT_THERE = "n/a (the measurement is older than this measure)"


def tables(summaries: Summaries, method: str) -> list[html.Markup]:
    """Pixels, perception and behaviour, each a table; a column that nothing was measured in is named below instead."""
    parts: list[html.Markup] = []
    missing: dict[str, list[str]] = {}
    for title, columns in GROUPS.items():
        measured = []
        for key, heading, form in columns:
            values = [summary.get(key, NOT_THERE) for summary in summaries.values()]
            if any(map(html.is_number, values)):
                measured.append((key, heading, form))
            else:
                missing.setdefault(str(values[0]), []).append(heading.removesuffix(" ↓"))
        rows = []
        for name in summaries:
            rows.append([method_cell(name, method), *(cell(summaries, name, key, form) for key, _, form in measured)])
        parts += [html.tag("h4", title), html.table(["Method", *(heading for _, heading, _ in measured)], rows)]
    return parts + [html.note(f"{', '.join(names)}: {reason}.") for reason, names in missing.items()]


def cell(summaries: Summaries, name: str, key: str, form: str) -> html.Markup:
    """A figure with its interval below; the best of its column stands out."""
    summary = summaries[name]
    if not html.is_number(summary[key]):
        return html.join(["–"])
    rivals = [other[key] for rival, other in summaries.items() if rival != CODEC_TRUTH and html.is_number(other[key])]
    ranked = name != CODEC_TRUTH and not key.startswith("spread")  # variety is neither good nor bad by itself
    best = ranked and summary[key] == (min if lower_is_better(key) else max)(rivals)
    fewer = "" if summary[f"{key}_n"] == summary["n"] else f", {summary[f'{key}_n']} clips"
    return _over_interval(summary, key, form, best, fewer)


def _over_interval(figures: Mapping[str, Any], key: str, form: str, best: bool = False, more: str = "") -> html.Markup:
    value, interval = html.with_interval(html.bounds(figures, key), form)
    return html.join([html.tag("b", value) if best else value, html.tag("small", interval + more)])


def clip_card(shown: ShownClip, method: str, reference: str | None = None) -> html.Markup:
    """One clip: static | hands | generated | truth, other methods below, and where the region is."""
    clip, fps, name = shown.clip, shown.clip.fps, method_name(method)
    videos = [
        film(clip.static, fps, "Static scene", "given"),
        film(clip.hands, fps, "Hands", "given"),
        film(shown.videos[method], fps, name, _film_note(shown, method), kind="own"),
        film(clip.interaction, fps, "Truth", "what really happened"),
    ]
    for other, video in shown.videos.items():
        # The raw static video already stands first, and the codec's version of a video differs little from it by eye.
        if other not in (method, STATIC_COPY, STATIC_COPY_CODEC, CODEC_TRUTH):
            videos.append(film(video, fps, method_name(other), _film_note(shown, other)))
    regions = {name: shown.videos[method], "Truth": clip.interaction}
    overlays = [film(region_overlay(video, shown.region), fps, label) for label, video in regions.items()]
    summary = f"The region: {shown.region.mean():.0%} of the pixels"
    if reference in shown.figures:
        summary += f" (copy of the static video: {_film_note(shown, reference)})"
    fold = html.details(summary, film_grid(overlays, columns=2))
    place = html.badge(*PLACES[shown.place]) if shown.place else None
    return html.card(clip.name, place, html.note(clip.prompt), films(videos, fold))


def _film_note(shown: ShownClip, method: str) -> str:
    figures = shown.figures[method]
    return ", ".join(f"{side} {html.number(figures[f'psnr_{side}'], '.1f')} dB" for side in ("inside", "outside"))


def _about_section(evaluation: Evaluation, about: Mapping[str, str]) -> html.Markup:
    config = evaluation.config
    share = sum(evaluation.region_shares) / len(evaluation.region_shares)
    pairs = [  # no dict: `about` has clips of its own
        ("Clips", str(len(evaluation.clips))),
        ("Videos of a clip", f"{config.samples}, for methods that sample"),
        ("Frames", "all but the first, which a model has seen" if config.after_first else "all"),
        ("Seed", str(config.seed)),
        ("Region, share of the pixels", f"{share:.1%}"),
        ("Simulated clips", f"{evaluation.simulated}, of the {config.split} split"),
        *about.items(),
    ]
    return html.section("How it was measured", html.box("card", html.facts(pairs)))
