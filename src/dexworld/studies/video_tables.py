"""The tables of the DWM paper (CVPR 2026) as studies: its main table, its ablation of the data, and of the hands."""

from collections.abc import Callable
from typing import Any

from dexworld.studies.study import Figure, Published, Recording, Scale, Sizes, Table, Variant
from dexworld.studies.video_runs import ClipMeasure, EditedBySDEdit, VideoModels, still, truth
from dexworld.training.estimate import DataPlan
from dexworld.video.judge.references import STATIC_COPY
from dexworld.video.model.video_config import CONCATENATED, Condition

PAPER = "Dexterous World Models (DWM), CVPR 2026"
# 49 frames at 8 a second; of TASTE-Rob the scenes with two hands.
ON_PAPER = {"moving": DataPlan("TRUMANS", 23.3, 8, 13_721), "fixed": DataPlan("TASTE-Rob", 5.6, 8, 3_289)}
CAMERAS = {"moving": "moving camera", "fixed": "fixed camera"}
BOTH = tuple(CAMERAS)
CEILING, STILL, PRIOR, FUN, OURS = "ceiling", "static copy", "inpainting prior", "CVX-Fun fine-tuned", "DWM"
NEEDS = ("video", "diffusers")
MEASURES = ("PSNR", "SSIM", "LPIPS", "DreamSim")
COLUMNS = tuple(f"{camera} {measure}" for camera in ("moving", "fixed", "real moving") for measure in MEASURES)
NOTHING_PRINTED = (None,) * len(MEASURES)
HYBRID = (25.03, 0.844, 0.289, 0.086, 21.55, 0.816, 0.227, 0.057, 21.65, 0.550, 0.557, 0.225)
GLOSSARY = (
    "Inside: where the truth differs from the static scene or hands are; outside: all else. Gradient distance: 0 to 1, "
    "lower is better. Every row shows decoded pixels. Means over clips and three videos of each."
)
SIMULATED = (
    "Clips are simulated, 17 frames of 96 x 144, and models small: all of it runs on two cores. The order of rows can "
    "be compared, the numbers cannot. Clips of a moving head camera stand for TRUMANS, clips of a fixed camera with a "
    "repeated first frame as the scene for TASTE-Rob. Nothing stands for the Aria clips.",
    "Our small model predicts the change of the scene in one step and sees no text. All models start from one "
    f"inpainting model per seed, the row `{PRIOR}`, where the paper starts from CogVideoX-Fun.",
    "LPIPS and DreamSim need weights that don't ship here; the gradient distance needs none.",
)


def _sizes(scale: Scale) -> Sizes:
    shared: dict[str, Any] = {"learning_rate": 2e-3, "warmup_steps": 100}
    if scale == "paper":
        return Sizes("cogvideox-fun-5b", {"steps": 8000}, ON_PAPER, batch_size=56, learning_rate=1e-4, warmup_steps=100)
    tested = _clips(100, 100, 5_000, 5_200) if scale == "small" else _clips(40, 40, 5_000, 5_200)
    if scale == "small":
        data = _clips(4000, 1000, 40_000, 60_000)
        return Sizes("small", {"pretrain": 2000, "steps": 14_000}, data, tested, batch_size=32, **shared)
    return Sizes("mini", {"pretrain": 600, "steps": 1200}, _clips(800, 200, 40_000, 60_000), tested, **shared)


def _clips(moving: int, fixed: int, moving_seed: int, fixed_seed: int) -> dict[str, Recording]:
    return {
        "moving": Recording("triplets", moving, moving_seed),
        "fixed": Recording("triplets", fixed, fixed_seed, {"camera": "fixed"}),
    }


def _references(scale: Scale) -> list[Variant]:
    """The ceiling, static copy, and the prior."""
    own: dict[str, Any] = {"training": _averaged(scale) | {"goal": "inpainting"}, "kind": VideoModels("none")}
    own |= {"budget": () if scale == "paper" else ("pretrain",), "needs": NEEDS}
    return [
        _untrained(CEILING, "the true video, through the codec", truth),
        _untrained(STILL, "the static scene, through the codec", still),
        Variant(PRIOR, "fills masked video; here all is known. The others start from it", (STILL,), BOTH, **own),
    ]


def _untrained(name: str, what: str, shows: Any, against: tuple[str, ...] = (), paper: str | None = None) -> Variant:
    """Something else that the prior shows."""
    return Variant(name, what, against, BOTH, (), PRIOR, kind=VideoModels("none", shows), paper=paper, needs=NEEDS)


def _trained(scale: Scale, name: str, condition: Condition, what: str, *against: str, **own: Any) -> Variant:
    """A model with a condition, trained on from the prior. own: further fields of the variant."""
    rank = 64 if scale == "paper" and condition in (*CONCATENATED, "none") else 0
    training = {} if scale == "paper" else _averaged(scale) | {"timestep_shift": 5.0}
    shared: dict[str, Any] = {"data": BOTH, "initial": PRIOR, "training": training, "paper": name, "needs": NEEDS}
    return Variant(name, what, against, kind=VideoModels(condition, lora_rank=rank), **(shared | own))


def _averaged(scale: Scale) -> dict[str, Any]:
    return {"ema": 0.99} if scale == "miniature" else {}  # few steps


def clip_columns(held_out: str) -> tuple[Figure, ...]:
    """Figures of held-out clips, and two of the static video without any codec."""
    title, made = CAMERAS[held_out], []
    shown = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 3), "psnr_inside": ("PSNR inside", 2)}
    shown |= {"psnr_outside": ("PSNR outside", 2), "gradient_distance_inside": ("gradient distance inside", 3)}
    for key, (name, digits) in shown.items():
        sums = (f"{held_out}/{key}", f"{held_out}/{key}/clips")
        column = f"{held_out} {name}" if name in MEASURES else None
        made.append(Figure(f"{held_out}_{key}", f"{title}: {name}", *sums, None, digits=digits, paper=column))
    for key in ("psnr_inside", "psnr_outside"):
        sums = (f"{held_out}/{STATIC_COPY}/{key}", f"{held_out}/{STATIC_COPY}/{key}/clips")
        what = f"{title}: {shown[key][0]} of the static video itself"
        made.append(Figure(f"{held_out}_{STATIC_COPY}_{key}", what, *sums, None, digits=2, of_variant=False))
    return tuple(made)


def _table(
    name: str, title: str, lead: str, scale: Scale, variants: list[Variant], paper: Published, *differs: str
) -> Table:
    measures, columns = tuple(map(ClipMeasure, CAMERAS)), tuple(each for name in CAMERAS for each in clip_columns(name))
    sizes, about = _sizes(scale), (*SIMULATED, *differs)
    return Table(name, title, lead, sizes, tuple(variants), measures, columns, (), paper, about, GLOSSARY)


def dwm_main(scale: Scale) -> Table:
    """The main table: DWM beside its baselines."""
    variants = _references(scale)
    for name, (strength, row) in {"CVX SDEdit": (0.7, "CVX SDEdit"), "CVX SDEdit, weaker": (0.3, None)}.items():
        what = f"the static scene, noised to {strength:g} and denoised by the prior, which sees no scene and no hands"
        variants.append(_untrained(name, what, EditedBySDEdit(strength), (STILL,), row))
    variants += [
        _trained(scale, FUN, "none", "the static scene; no hands", STILL),
        _trained(scale, "InterDyn", "control", "first frame and, by a control branch, silhouette of hands", STILL),
        _trained(scale, OURS, "mesh", "the static scene and rendered hands", STILL, FUN, "InterDyn"),
    ]
    printed = {
        "CVX SDEdit": (19.42, 0.675, 0.464, 0.257, 16.19, 0.586, 0.446, 0.224, 19.15, 0.507, 0.676, 0.492),
        FUN: (20.54, 0.767, 0.370, 0.175, 18.95, 0.780, 0.265, 0.089, 18.13, 0.472, 0.591, 0.328),
        "InterDyn": (*NOTHING_PRINTED, 19.33, 0.744, 0.240, 0.135, *NOTHING_PRINTED),
        OURS: HYBRID,
    }
    says = "DWM is best in every setting. The paper has no static copy."
    return _table(
        "dwm-main",
        "DWM and its baselines",
        "Models see a still scene, or its first frame, and what they are told of the hands; they make the video.",
        scale,
        variants,
        Published(f"Main table, {PAPER}", COLUMNS, printed, says),
        "The paper doesn't print SDEdit's strength. 0.7 is that of VideoX-Fun's example; 0.3 keeps more of the scene.",
        "InterDyn is Stable Video Diffusion, frozen, with a control branch. Ours is our model with such a branch, "
        "trained in full. The paper has it on the fixed camera alone: nothing tells it how the camera moves.",
    )


def dwm_data(scale: Scale) -> Table:
    """The ablation of the data: clips of a moving camera, of a fixed one, and both."""
    alone, both, told = "TRUMANS only", "TRUMANS and TASTE-Rob", "trained on clips of"
    variants = [
        *_references(scale),
        _trained(scale, "moving", "mesh", f"{told} a moving camera", "both", data=("moving",), paper=alone),
        _trained(scale, "fixed", "mesh", f"{told} a fixed camera", "both", data=("fixed",), paper=None),
        _trained(scale, "both", "mesh", f"{told} both kinds", STILL, paper=both),
    ]
    printed = {
        alone: (*NOTHING_PRINTED, None, None, 0.304, 0.124, *NOTHING_PRINTED),
        both: HYBRID,
    }
    says = "With TASTE-Rob, LPIPS on its clips falls from 0.304 to 0.227, and DreamSim from 0.124 to 0.057."
    return _table(
        "dwm-data",
        "What DWM is trained on",
        "DWM is trained for equally many steps on clips of a moving camera, of a fixed one, and on both.",
        scale,
        variants,
        Published(f"Ablation of the data, {PAPER}", COLUMNS, printed, says),
        "Fixed-camera clips are simulated, too, so they bring another camera and not another world. The row `fixed` is "
        "ours. The prior has seen both kinds.",
    )


def dwm_hands(scale: Scale) -> Table:
    """The ablation of the hands: how a model is told of them."""
    bare, by_frame = "no hands", "AdaLN (per-frame)"
    keypoints = "42 keypoints through the norms, those of {}"
    variants = [
        *_references(scale),
        _trained(scale, bare, "none", "the static scene alone", STILL, paper=None),
        _trained(scale, "AdaLN (global)", "adaln-global", keypoints.format("all frames together"), bare),
        _trained(scale, by_frame, "adaln-frame", keypoints.format("each latent frame"), bare),
        _trained(scale, "mask", "mask", "the hands' silhouette as input channels", bare),
        _trained(scale, "mesh", "mesh", "rendered hands as input channels", bare, by_frame, "mask"),
    ]
    printed = {
        "AdaLN (global)": (21.96, 0.806, 0.306, 0.127),
        by_frame: (22.79, 0.827, 0.288, 0.110),
        "mask": (22.88, 0.797, 0.338, 0.137),
        "mesh": (24.15, 0.834, 0.304, 0.094),
    }
    says = "Rendered hands are best but in LPIPS, where keypoints of each frame are."
    return _table(
        "dwm-hands",
        "How DWM sees the hands",
        "Models see the same scene and are told of the hands in different ways, or not at all.",
        scale,
        variants,
        Published(f"Ablation of the hands, {PAPER}", COLUMNS[: len(MEASURES)], printed, says),
        "Keypoints stand for MANO's parameters. The release's per-frame AdaLN averages over time and gets no gradient; "
        "ours does neither. The row `no hands` is ours.",
        "The paper's clips for this table are not known to us; its numbers stand beside the moving camera.",
    )


VIDEO_TABLES: dict[str, Callable[[Scale], Table]] = {
    "dwm-main": dwm_main,
    "dwm-data": dwm_data,
    "dwm-hands": dwm_hands,
}
