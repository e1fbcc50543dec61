"""What JSON files and command lines hold: frozen dataclasses out of nested mappings, numbers and indices."""

import math
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Where a command's numbers may lie, by field, or by class and field where a name has several meanings. What isn't here
# lies between 0 and a million (whole numbers) or 10^9. Classes check what depends on other fields.
_ANY, _COUNT, _SIDE, _SHARE = (-math.inf, math.inf), (1, 10**6), (1, 16_384), (0.0, 1.0)
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("Imagine.episode", "Imagine.frame"), _ANY),  # compared with the dataset: `check_index`
    **dict.fromkeys(("distance", "curl", "up"), (-1e3, 1e3)),
    **dict.fromkeys(("height", "width", "crop", "image_size", "shadow_size", "clip_shape"), _SIDE),
    **dict.fromkeys(("batch_size", "batch", "max_batch", "encoder_frames", "samples"), (1, 65_536)),
    **dict.fromkeys(("unroll_steps", "deep_unroll_steps", "horizon", "iterations", "AtomicConfig.steps"), (1, 1000)),
    **dict.fromkeys(("steps", "log_every", "validate_every", "checkpoint_every"), (1, 10**9)),
    **dict.fromkeys(
        ("clips", "frames", "group", "pack_episodes", "keep_checkpoints", "gpus", "segments", "elites", "model_budget"),
        _COUNT,
    ),
    **dict.fromkeys(("fps", "rate_hz"), (0.01, 1000.0)),
    **dict.fromkeys(("mix", "VideoRunConfig.weights"), (1e-9, 1e9)),
    **dict.fromkeys(("mfu", "fade", "ema", "final_learning_rate", "validation_fraction", "sdedit_strengths"), _SHARE),
    **dict.fromkeys(("short_history", "rewiden", "straight", "start_share", "meshes_share"), _SHARE),
    **dict.fromkeys(("moved_weight", "hidden_weight", "still_weight", "consistency"), (0.0, 1e6)),
    "jitter_px": (0.0, 100.0),
    "word_noise": (0.0, 10.0),
    **dict.fromkeys(("aside", "spread"), (0.0, 10.0)),
    **dict.fromkeys(("seconds", "act_seconds", "reach_seconds", "deadline_s"), (0.01, 3600.0)),
    **dict.fromkeys(("antialias", "supersample"), (0, 16)),
    **dict.fromkeys(("OpenLoop.episodes", "Reproduce.episodes"), (2, 10**6)),
    "stretches": _COUNT,
    **dict.fromkeys(("SampleConfig.steps", "trade_steps"), (1, 1000)),
    **dict.fromkeys(("detail", "trade_details"), _SHARE),
    "warmup_steps": (0, 10**9),
    "workers": (0, 1024),
    "port": (0, 65_535),
    "sessions": (1, 1024),
    **dict.fromkeys(("message_mb", "messages_per_second", "pace"), (0.01, 1e6)),
    **dict.fromkeys(("latency_ms", "jitter_ms", "pixel_noise"), (0.0, 10_000.0)),
    "joint_noise": (0.0, 1.0),
    "crf": (0, 63),
    **dict.fromkeys(("seed", "seeds"), (0, 2**31 - 1)),
    "resamples": _COUNT,
    "lora_rank": (0, 4096),
    "refine": (0, 4096),
    **dict.fromkeys(("tiles", "palm", "found", "followed"), (0.01, 1.0)),
    **dict.fromkeys(("every", "shortest", "RetargetConfig.steps"), (1, 1000)),
    **dict.fromkeys(("direction", "smoothness", "rest"), (0.0, 1e6)),
    **dict.fromkeys(("focal", "metres_per_unit"), (1e-6, 1e6)),
    "first_frame": (0, 10**6),
    **dict.fromkeys(("columns", "rows"), (2, 1000)),
    **dict.fromkeys(("square_m", "marker_m"), (1e-4, 10.0)),
    "replicas": (1, 1024),
}


def check_numbers(options: Any) -> None:
    """Raises ValueError naming the option, unless every number in a command's nested dataclasses is one of `RANGES`."""
    for each in fields(options):
        value, name = getattr(options, each.name), f"{type(options).__name__}.{each.name}"
        if is_dataclass(value):
            check_numbers(value)
        for number in _numbers(value):
            usual = (0, 10**6) if isinstance(number, int) else (0.0, 1e9)
            low, high = RANGES.get(name, RANGES.get(each.name, usual))
            if not low <= number <= high:
                option = each.name.replace("_", "-")
                raise ValueError(f"--{option} is {number}; it must lie between {low:g} and {high:g}")


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers that an option holds: one, or those of a tuple."""
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, tuple):
            yield from _numbers(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            yield each


def from_dict(cls: Any, values: dict[str, Any], where: str = "config") -> Any:
    """A dataclass `cls` from a mapping of its fields, nested as `dataclasses.asdict` nests them; lists become tuples.

    Fields that are absent keep their default. Raises ValueError naming fields that are unknown or of the wrong kind.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} should hold values by name, not a {type(values).__name__}")
    hints, known = get_type_hints(cls), [each.name for each in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where} has unknown fields {', '.join(unknown)}; {cls.__name__} knows {', '.join(known)}")
    missing = [each.name for each in fields(cls) if _required(each) and each.name not in values]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: _as(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def check_index(what: str, index: int, count: int, where: str) -> None:
    """Raises ValueError naming what there is, unless 0 <= index < count."""
    if not 0 <= index < count:
        raise ValueError(f"there is no {what} {index} in {where}: it holds {what}s 0 to {count - 1}")


def _required(each: Field) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _as(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` asks for it. A text may list a tuple's items, separated by commas."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _as(next(each for each in inner if each is not type(None)), value, where)
    if origin is Literal:
        if value in inner:
            return value
        raise ValueError(f"{where} is {value!r}; choose {' or '.join(map(repr, inner))}")
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        kinds = [inner[0]] * len(items) if inner[-1] is Ellipsis else inner
        if len(items) == len(kinds):
            return tuple(_as(kind, item, where) for kind, item in zip(kinds, items, strict=True))
    elif is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, where)
    elif hint in (str, Path) and isinstance(value, str | int | float):
        return hint(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif not isinstance(hint, type) or type(value) is hint:  # what isn't a plain type is left to the class
        return value
    raise ValueError(f"{where} is {value!r}; it must be {getattr(hint, '__name__', hint)}")
