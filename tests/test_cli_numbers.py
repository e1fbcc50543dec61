"""Numbers of the command line: each option of each verb is refused by name where it can't be meant, before any work."""

import re
import types
import typing
from dataclasses import fields, is_dataclass
from importlib import import_module

import pytest

from dexworld import cli

VALUES = ("0", "-1", "1000000000", "nan")
OUTPUT = ["--output", "out"]
WORDS = {  # what a verb needs besides the option
    "inspect": ["data"],
    "prepare": ["data", "store"],
    "convert": ["file", *OUTPUT],
    "reproduce": ["figure5", *OUTPUT],
    "cache-latents": ["--data", "data"],
    "robot retarget": ["data", *OUTPUT],
    "camera calibrate": ["data", *OUTPUT],
    "cosmos": ["--pipeline", "data", *OUTPUT],
    "video convert-hands": ["--results", "data", "--videos", "data", *OUTPUT],
    "video track-hands": ["--videos", "data", "--model", "data", *OUTPUT],
    "serve": [],
    "studio": [],
    "video prepare": ["videos", "--videos", "data", "--hands", "data", *OUTPUT],
    "video generate": ["--data", "data", *OUTPUT],
    "video validate": ["--data", "data", *OUTPUT],
}
INNER = {  # what chooses the class that an option belongs to
    "ExploreConfig": ["allegro"],
    "GripperConfig": ["gripper"],
    "HumanVideoConfig": ["human"],
    "PushConfig": ["pushes"],
    "PairConfig": ["pairs"],
    "HandClipConfig": ["clip:hand-clip-config"],
}


def numbers(hint, name="", inside=None):
    """(class, option, how many) of every number that a command's dataclass asks for."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for each in inner:
            yield from numbers(each, name, inside)
    elif is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        for each in fields(hint):
            yield from numbers(hints[each.name], each.name, hint.__name__)
    elif hint in (int, float):
        yield inside, name, 1
    elif origin is tuple and inner[0] in (int, float):
        yield inside, name, 1 if inner[-1] is Ellipsis else len(inner)


def cases():
    seen = set()
    for verb, (module, command, _) in cli.VERBS.items():
        for inside, name, count in numbers(getattr(import_module(f"dexworld.cli.{module}"), command)):
            if (inside, name) not in seen:
                seen.add((inside, name))
                yield verb, inside, name, count


class Reached(Exception):
    """The command would have begun."""


@pytest.fixture
def started(capsys, monkeypatch, tmp_path):
    """What stderr says of a command that ends with exit code 2; None where it would have begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_run", lambda *_: (_ for _ in ()).throw(Reached))

    def start(*words):
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main([*words])
        except Reached:
            return None
        assert ended.value.code == 2
        return capsys.readouterr().err

    return start


# Values that mean something: what there is decides (`check_index`), a direction, no such part, all, one per core.
MEANT = {
    "-1": {"episode", "frame", "up"},
    "0": {
        *("episode", "frame", "up", "distance", "curl", "seed", "workers", "episodes", "simulator_episodes", "shown"),
        *("arm_noise", "finger_noise", "head_motion", "tremor", "antialias", "supersample", "arm_std", "finger_std"),
        *("rewiden", "crf", "warmup_steps", "final_learning_rate", "weight_decay", "ema", "validation_fraction"),
        *("teacher_forced", "hand_consistency", "true_keypoints", "moving_object_weight", "stride_weights"),
        *("short_history", "perceptual", "refine", "lora_rank", "hand_dropout", "prompt_dropout", "outside_weight"),
        *("seeds", "fade", "sdedit_strengths", "start", "guidance", "idle_share", "both_share", "touch_nothing"),
        *("hidden_weight", "still_weight", "jitter_px", "word_noise", "consistency", "straight", "aside", "grasps"),
        *("start_share", "port", "dropped", "latency_ms", "jitter_ms", "joint_noise", "pixel_noise"),
        *("first_frame", "direction", "smoothness", "rest", "meshes_share", "detail", "trade_details"),
        *("reference_dropout",),
    },
    "1000000000": {
        *("episode", "frame", "seed", "steps", "warmup_steps", "log_every", "validate_every", "checkpoint_every"),
        *("max_seconds", "timeout_seconds", "device_tflops", "peak_tflops", "gpu_memory_gib", "loader_windows"),
        *("epochs", "mix", "weights", "stride_weights", "learning_rate", "weight_decay", "clip", "perceptual"),
        *("hand_consistency", "true_keypoints", "moving_object_weight", "sigma_px", "timestep_shift", "weight_cap"),
        *("outside_weight", "arm_noise", "finger_noise", "head_motion", "tremor", "arm_std", "finger_std"),
        *("start", "guidance", "seeds"),
    },
    "nan": set(),
}


@pytest.mark.parametrize(("verb", "inside", "name", "count"), list(cases()))
def test_a_number_is_refused_by_its_name_or_means_something(started, verb, inside, name, count):
    base = WORDS.get(verb, ["--data", "data", *OUTPUT] if "train" in verb else OUTPUT)
    option = name.replace("_", "-")
    for value in VALUES:
        said = started(*verb.split(), *base, *INNER.get(inside, []), f"--{option}", *[value] * count)
        if said is None:
            assert name in MEANT[value], value
        else:
            assert said.count("\n") == 1
            # "seeds" of so many episodes or clips
            assert {option, name, option.rstrip("s"), "seeds"} & set(re.split(r"[^a-z_-]|--", said)), said
