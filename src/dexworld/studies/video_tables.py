"""The tables of the DWM paper (CVPR 2026) as studies: its main table, its ablation of the data, and of the hands."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dexworld.studies.study import Figure, Published, Recording, Scale, Sizes, Table, Variant
from dexworld.studies.video_runs import CODEC_CLIPS, ClipMeasure, EditedBySDEdit, VideoModels, still
from dexworld.training.estimate import DataPlan
from dexworld.video.model.video_config import CONCATENATED, Condition

PAPER = "Dexterous World Models (DWM), CVPR 2026"
# 49 frames at 8 a second; of TASTE-Rob the scenes with two hands.
ON_PAPER = {"moving": DataPlan("TRUMANS", 23.3, 8, 13_721), "fixed": DataPlan("TASTE-Rob", 5.6, 8, 3_289)}
CAMERAS = {"moving": "moving camera", "fixed": "fixed camera"}
BOTH = tuple(CAMERAS)
PRIOR, STILL, OURS = "inpainting prior", "static copy", "DWM"
MEASURES = ("PSNR", "SSIM", "LPIPS", "DreamSim")
COLUMNS = tuple(f"{camera} {measure}" for camera in ("moving", "fixed", "real moving") for measure in MEASURES)
NOTHING_PRINTED = (None,) * len(MEASURES)
HYBRID = (25.03, 0.844, 0.289, 0.086, 21.55, 0.816, 0.227, 0.057, 21.65, 0.550, 0.557, 0.225)
GLOSSARY = (
    "Inside: where the truth differs from the static scene or hands are; outside: all else. Gradient distance: 0 to 1, "
    "lower is better. Every row shows decoded pixels, so the ceiling is the true video through the codec. Means over "
    "clips and three videos of each."
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
    moving, fixed = (4000, 1000) if scale == "small" else (400, 100)
    held_out = 100 if scale == "small" else 40
    data, tested = (
        {"moving": Recording("triplets", counts[0], starts[0]),
         "fixed": Recording("triplets", counts[1], starts[1], {"camera": "fixed"})}
        for counts, starts in (((moving, fixed), (40_000, 60_000)), ((held_out, held_out), (5_000, 5_200)))
    )  # fmt: skip
    if scale == "small":
        return Sizes("small", {"pretrain": 2000, "steps": 14_000}, data, tested, batch_size=32, **shared)
    assert moving + fixed <= CODEC_CLIPS
    return Sizes("mini", {"pretrain": 300, "steps": 800}, data, tested, **shared)


def _variants(scale: Scale, rows: dict[str, tuple[Condition, str, tuple[str, ...]]], **more: Any) -> list[Variant]:
    """The prior, static copy, and a model for each row: its condition, what it is told, what it is compared with."""
    averaged = {"ema": 0.99} if scale == "miniature" else {}  # of few steps
    trained: dict[str, Any] = {"training": averaged | ({} if scale == "paper" else {"timestep_shift": 5.0})}
    base: dict[str, Any] = {"training": averaged | {"goal": "inpainting"}, "kind": VideoModels("none")}
    base["budget"] = () if scale == "paper" else ("pretrain",)
    what = "fills masked video; here everything is known. All others start from it"
    variants = [Variant(PRIOR, what, (), BOTH, **base)]
    own: dict[str, Any] = {"initial": PRIOR, "budget": (), "kind": VideoModels("none", still)}
    variants.append(Variant(STILL, "the static scene, through the codec", (PRIOR,), BOTH, **own))
    for name, (condition, what, against) in rows.items():
        rank = 64 if scale == "paper" and condition in (*CONCATENATED, "none") else 0
        own = {"initial": PRIOR, "kind": VideoModels(condition, lora_rank=rank), **trained, **more}
        variants.append(Variant(name, what, against, BOTH, **own))
    return variants


def clip_columns(held_out: str) -> tuple[Figure, ...]:
    """Figures of held-out clips, and of static copy as it is and the true video through the codec."""
    title, made = CAMERAS[held_out], []
    shown = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 3), "psnr_inside": ("PSNR inside", 2)}
    shown |= {"psnr_outside": ("PSNR outside", 2), "gradient_distance_inside": ("gradient distance inside", 3)}
    for key, (name, digits) in shown.items():
        sums = (f"{held_out}/{key}", f"{held_out}/{key}/clips")
        column = f"{held_out} {name}" if name in MEASURES else None
        made.append(Figure(f"{held_out}_{key}", f"{title}: {name}", *sums, None, digits=digits, paper=column))
    for control, what in {"static_copy": "static copy without codec", "codec_truth": "the ceiling"}.items():
        for key, name in {"psnr_inside": "PSNR inside", "psnr_outside": "PSNR outside"}.items():
            sums = (f"{held_out}/{control}/{key}", f"{held_out}/{control}/{key}/clips")
            own: dict[str, Any] = {"seconds": None, "digits": 2, "of_variant": False}
            made.append(Figure(f"{held_out}_{control}_{key}", f"{title}: {name} of {what}", *sums, **own))
    return tuple(made)


def _table(name: str, title: str, lead: str, scale: Scale, variants: list[Variant], paper: Published, *differs: str):
    measures, columns = tuple(map(ClipMeasure, CAMERAS)), tuple(each for name in CAMERAS for each in clip_columns(name))
    sizes, about = _sizes(scale), (*SIMULATED, *differs)
    return Table(name, title, lead, sizes, tuple(variants), measures, columns, (), paper, about, GLOSSARY)


def dwm_main(scale: Scale) -> Table:
    """The main table: DWM beside its baselines."""
    rows: dict[str, tuple[Condition, str, tuple[str, ...]]] = {
        "CVX-Fun fine-tuned": ("none", "the static scene; no hands", (STILL,)),
        "InterDyn": ("control", "the first frame and, by a control branch, the hands' silhouette; no scene", (STILL,)),
        OURS: ("mesh", "the static scene and rendered hands", (STILL, "CVX-Fun fine-tuned", "InterDyn")),
    }
    variants = [replace(each, paper=each.name) if each.name in rows else each for each in _variants(scale, rows)]
    edited = {"CVX SDEdit": (0.7, "CVX SDEdit"), "CVX SDEdit, weaker": (0.3, None)}
    for name, (strength, row) in edited.items():
        what = f"the static scene, noised to {strength:g} and denoised by the prior, which sees no scene and no hands"
        own: dict[str, Any] = {"kind": VideoModels("none", EditedBySDEdit(strength)), "budget": (), "paper": row}
        variants.insert(-3, Variant(name, what, (STILL,), BOTH, initial=PRIOR, **own))
    printed = {
        "CVX SDEdit": (19.42, 0.675, 0.464, 0.257, 16.19, 0.586, 0.446, 0.224, 19.15, 0.507, 0.676, 0.492),
        "CVX-Fun fine-tuned": (20.54, 0.767, 0.370, 0.175, 18.95, 0.780, 0.265, 0.089, 18.13, 0.472, 0.591, 0.328),
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
    told = "trained on clips of {}"
    data = {"moving": ("moving",), "fixed": ("fixed",), "both": BOTH}
    papers = {"moving": "TRUMANS only", "both": "TRUMANS and TASTE-Rob"}
    what = {"moving": "a moving camera", "fixed": "a fixed camera", "both": "both kinds"}
    rows: dict[str, tuple[Condition, str, tuple[str, ...]]] = {
        name: ("mesh", told.format(what[name]), (STILL,) if name == "both" else ("both",)) for name in data
    }
    variants = [
        replace(each, data=data[each.name], paper=papers.get(each.name)) if each.name in data else each
        for each in _variants(scale, rows)
    ]
    printed = {
        papers["moving"]: (*NOTHING_PRINTED, None, None, 0.304, 0.124, *NOTHING_PRINTED),
        papers["both"]: HYBRID,
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
    rows: dict[str, tuple[Condition, str, tuple[str, ...]]] = {
        "no hands": ("none", "the static scene alone", (STILL,)),
        "AdaLN (global)": ("adaln-global", "42 keypoints of all frames through the norms", ("no hands",)),
        "AdaLN (per-frame)": ("adaln-frame", "42 keypoints of each latent frame through the norms", ("no hands",)),
        "mask": ("mask", "the hands' silhouette as input channels", ("no hands",)),
        "mesh": ("mesh", "rendered hands as input channels", ("no hands", "AdaLN (per-frame)", "mask")),
    }
    variants = [replace(each, paper=each.name) if each.name in rows else each for each in _variants(scale, rows)]
    printed = {
        "AdaLN (global)": (21.96, 0.806, 0.306, 0.127),
        "AdaLN (per-frame)": (22.79, 0.827, 0.288, 0.110),
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
