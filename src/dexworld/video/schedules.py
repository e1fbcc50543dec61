"""The noise schedule that a published model declares, and whether ours is that schedule.

`noise.py` computes two processes: CogVideoX's diffusion (with the signal-to-noise shift left open) and Wan's straight
flow (with the timestep shift left open). A checkpoint that declares anything else is refused rather than sampled wrong.
"""

from pathlib import Path
from typing import Any, Literal

from dexworld.models.checkpoint import CheckpointError
from dexworld.video.sources import find_optional_part, read_settings

# CogVideoX-5B and Wan 2.1 as the DWM release uses them. diffusers' class defaults are other ones (epsilon, leading,
# clipping, shift 3), so every setting is written out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "cogvideox": {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "set_alpha_to_one": True,
        "clip_sample": False,
        "timestep_spacing": "trailing",
        "snr_shift_scale": 1.0,
    },
    "wan": {"num_train_timesteps": 1000, "shift": 5.0, "use_dynamic_shifting": False},
}
# What our processes fix. A setting that a file leaves out has the published value.
FIXED: dict[str, dict[str, Any]] = {
    "cogvideox": {name: value for name, value in DEFAULTS["cogvideox"].items() if name != "snr_shift_scale"},
    "wan": {"num_train_timesteps": 1000, "use_dynamic_shifting": False, "prediction_type": "flow_prediction"},
}
SHIFT = {"cogvideox": ("snr_shift_scale",), "wan": ("flow_shift", "shift")}


def load_scheduler_config(source: str | Path, kind: Literal["cogvideox", "wan"]) -> dict[str, Any]:
    """The settings in `scheduler/scheduler_config.json` of a model's folder or id, or the defaults when it has none.

    Raises CheckpointError when the file can't be read.
    """
    folder = find_optional_part(source, "scheduler")
    return dict(DEFAULTS[kind]) if folder is None else read_settings(folder / "scheduler_config.json")


def noise_settings(settings: dict[str, Any], kind: Literal["cogvideox", "wan"]) -> dict[str, float]:
    """{"snr_shift": ...} (CogVideoX) or {"flow_shift": ...} (Wan), for `BackboneConfig`.

    Raises CheckpointError naming every declared setting that our noise process doesn't follow.
    """
    fixed = FIXED[kind]
    wrong = [
        f"{name} is {settings[name]!r}, not {value!r}"
        for name, value in fixed.items()
        if _differs(settings, name, value)
    ]
    if wrong:
        raise CheckpointError(f"the checkpoint's scheduler is not one that we sample with: {'; '.join(wrong)}")
    declared = next((settings[name] for name in SHIFT[kind] if name in settings), DEFAULTS[kind][SHIFT[kind][-1]])
    return {"snr_shift" if kind == "cogvideox" else "flow_shift": float(declared)}


def _differs(settings: dict[str, Any], name: str, value: Any) -> bool:
    return name in settings and settings[name] != value
