"""Figures 7 and 9 of the DexWM paper (arXiv 2512.13644) as studies of the models of Table 3, with films."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dexworld.studies.declared_tables import PAPER, SIMULATED, table3
from dexworld.studies.hand_measures import AtomicMeasure, TransferMeasure
from dexworld.studies.study import SECONDS, Figure, Published, Scale, Table

SHOWN = ("DexWM", "DexWM, in the picture", "PEVA*")
HANDS_STAND_IN = "Simulated human hands stand for EgoDex. The paper prints pictures and no numbers."
SAME_MODELS = "The models are those of Table 3."


def figure7(scale: Scale) -> Table:
    """Figure 7: the right hand moves 1 cm a step in a direction, opens or closes, all from the same frame."""
    percent: dict[str, Any] = {"seconds": None, "scale": 100.0, "digits": 1}
    pixels: dict[str, Any] = {"seconds": None, "digits": 1}
    not_its: dict[str, Any] = {"of_variant": False}
    return replace(
        _of_table3(scale, "figure7"),
        title="Atomic actions",
        lead="From one frame, the right hand is told to move 1 cm a step in each direction, to open, and to close. "
        "Everything else is told to stand still. Does the imagined hand follow?",
        measures=(AtomicMeasure(),),
        figures=(
            Figure("right", "right direction, %", "atomic_right", "atomic_pairs", **percent),
            Figure("gone", "way gone, %", "atomic_gone", "atomic_pairs", **percent),
            Figure("curled", "fingers' way gone, %", "curls_gone", "curl_pairs", **percent),
            Figure("pck20", "PCK@20 at the end", "atomic_found", "atomic_points", **percent),
            Figure("error", "error at the end, px", "atomic_error", "atomic_points", **pixels),
            Figure("still_pck20", "PCK@20 if nothing moved", "still_found", "atomic_points", **percent, **not_its),
            Figure("still", "error if nothing moved, px", "still_error", "atomic_points", **pixels, **not_its),
            Figure(
                "reader", "the reader's error at the start, px", "reader_error", "atomic_points", **pixels, **not_its
            ),
        ),
        glossary="The keypoint evaluator reads the right hand where two opposite moves end, after 15 steps. Right "
        "direction: the ends lie apart as commanded, within 45 degrees in the picture; one in four would by chance. "
        "Way gone: how far they lie apart along that direction, over how far they should. Fingers: the same of opening "
        "and closing, tips as seen from the wrist. PCK@20: percent of the hand's keypoints in view that are read "
        "within 20 pixels of the commanded place. Error: their mean distance from it. Pixels are those of a picture "
        "224 pixels high.",
        paper=Published(
            f"Figure 7, section 4.2, {PAPER}",
            says="DexWM accurately follows these unseen atomic actions. It is shown alone there; PEVA* is ours.",
        ),
        differs=(
            SIMULATED[0],
            HANDS_STAND_IN,
            "PEVA* is told the wrists' moves with the rest of the body at rest, and never the fingers.",
            SAME_MODELS,
        ),
        films="atomic",
    )


def figure9(scale: Scale) -> Table:
    """Figure 9: the actions of a clip, rolled out from the first frame of another."""
    found, tips, end = ("transfer_pck20_visible", "in_view"), ("transfer_tips_error", "tips"), f"at {SECONDS:g} s"
    start_found, start_tips = ("start_pck20_visible", "in_view"), ("start_tips_error", "tips")
    figures = (
        Figure("pck20_end", f"PCK@20, {end}", *found, SECONDS, 100.0, 1),
        Figure("pck20_avg", "PCK@20, average", *found, None, 100.0, 1),
        Figure("tips_end", f"tips from the wrist, px, {end}", *tips, SECONDS, digits=1),
        Figure("tips_avg", "tips from the wrist, px, average", *tips, None, digits=1),
        Figure("start_pck20", "PCK@20 of the start frame, average", *start_found, None, 100.0, 1, of_variant=False),
        Figure("start_tips", "its tips from the wrist, px, average", *start_tips, None, digits=1, of_variant=False),
    )
    return replace(
        _of_table3(scale, "figure9"),
        title="Action transfer",
        lead="The actions of one clip are rolled out from the first frame of another. Are the imagined hands where the "
        "transferred motion puts them, and are the fingers as in the source?",
        measures=(TransferMeasure(),),
        figures=figures,
        glossary="Hands start where they are in the target scene and make the displacements of the source, as its "
        "camera saw them. PCK@20: percent of the keypoints in view, where this puts them, that the evaluator finds "
        "within 20 pixels in imagined latents. Tips from the wrist: how far fingertips are off as seen from their "
        "wrist, in pixels of a picture 224 pixels high; it tells the fingers from the arm.",
        paper=Published(
            f"Figure 9, section 4.3, {PAPER}",
            says="PEVA* produces inaccurate hand configurations, while DexWM predicts fine-grained hand states that "
            "closely match those in the reference sequence.",
        ),
        differs=(SIMULATED[0], HANDS_STAND_IN, "Source and target are scenes of one simulator.", SAME_MODELS),
        films="transfer",
    )


def _of_table3(scale: Scale, name: str) -> Table:
    """Table 3 with the models that are told of hands, under another name."""
    table = table3(scale)
    kept = tuple(
        replace(each, paper=None, against=tuple(other for other in each.against if other in SHOWN))
        for each in table.variants
        if each.name in SHOWN
    )
    return replace(table, name=name, variants=kept, alike=("table3", *FIGURES))


FIGURES: dict[str, Callable[[Scale], Table]] = {"figure7": figure7, "figure9": figure9}
