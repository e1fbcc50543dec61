"""The command line: every verb explains itself, and a mistake ends with one line that says what to do."""

import errno
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.data.datasets import open_dataset
from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.training.trainer import TrainingDiverged

OUTPUTLESS = {"serve", "studio"}
# Nothing is drawn, or the seed stands among the training's options.
SEEDLESS = {
    *("convert", "prepare", "video train", "video prepare", "video validate", "video episodes"),
    *("video convert-hands", "video track-hands", "robot check", "robot retarget"),
    *("camera check", "camera calibrate"),
}
SEED = 900_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = DexWM(PRESETS["debug"])
    model.encoder.fit([torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8)])
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder, {"training_seeds": [0, 99]})
    return str(folder)


def logged(file: Path) -> list[str]:
    """Options that log to a file for Rerun, where the extra `viz` is installed."""
    return ["--rerun", str(file)] if find_spec("rerun") else []


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    one = ["--episodes", "1", "--seed", str(SEED), "--workers", "1", "allegro", "--frames", "4"]
    cli.main(["collect", "--output", str(folder), *logged(tmp_path_factory.getbasetemp() / "data.rrd"), *one])
    return folder


def mistake(capsys, *arguments: str) -> str:
    """What stderr says of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_its_options_output_and_seed_among_them(capsys, verb):
    more = ["videos"] if verb == "video prepare" else []
    with pytest.raises(SystemExit) as ended:
        cli.main([*verb.split(), *more, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"dexworld {verb} " in shown
    assert verb in OUTPUTLESS or "--output" in shown
    assert verb in SEEDLESS or "--seed" in shown


def test_the_verbs_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in cli.VERBS)
    for words, code in ((["evaluate", "--help"], 0), (["video"], 2), (["fly"], 2), ([], 2)):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == code
    assert "evaluate tasks" in capsys.readouterr().out


def dexworld(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-c", "from dexworld.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


def test_the_overview_imports_nothing_heavy():
    script = "import sys, dexworld\nfrom dexworld.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "assert not {'torch', 'numpy', 'tyro', 'rich', 'mujoco', 'transformers'} & set(sys.modules), sys.modules"
    done = subprocess.run([sys.executable, "-c", script + heavy], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# What the extras bring; a None in sys.modules makes an import raise ModuleNotFoundError.
EXTRAS = ("rerun", "mujoco", "gymnasium", "glfw", "OpenGL", "diffusers", "accelerate", "peft", "ray", "moviepy")
EXTRAS += ("dexworld_client", "websockets", "msgpack", "viser", "trimesh")
BLOCKED = f"import sys; sys.modules |= dict.fromkeys({EXTRAS})\n"


def test_a_base_install_looks_at_prepares_trains_on_and_evaluates_data(tmp_path, data, store, checkpoint):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    base = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    small = {"preset": "debug", "steps": 1, "batch-size": 2, "validation-fraction": 0, "workers": 0, "unroll-steps": 1}
    options = [word for name, value in small.items() for word in (f"--{name}", value)]
    own = ["--checkpoint", checkpoint, "--evaluator", "own", "--split", "validation", "--seed", SEED, "--episodes", 2]
    for words in (
        ["--help"],
        ["inspect", data, "--output", tmp_path / "inspect", "--workers", 1],
        ["prepare", data, tmp_path / "store", "--workers", 1],
        ["train", "--data", data, "--output", tmp_path / "run", "--latents", "online", *options],
        ["evaluate", "open-loop", "--data", store, "--output", tmp_path / "open", *own],
    ):
        done = dexworld(*words, **base)
        assert done.returncode == 0, (words, done.stderr[-2000:])
    done = dexworld("plan", "--output", tmp_path / "plan", **base)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.endswith("pip install 'dexworld[sim]'\n")


def test_robot_retarget_writes_a_joint_path_an_episode(tmp_path, data, capsys):
    cli.main(["robot", "retarget", str(data), "--output", str(tmp_path / "out")])
    (path,) = (tmp_path / "out").glob("*.npz")
    arrays = np.load(path)
    assert arrays["joint_positions"].shape == (4, 23)
    assert arrays["joint_names"][0] == "panda_joint1"
    assert arrays["tip_error"].max() < 0.005  # the robot's own hand
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (figures["episodes"], figures["left_out"]) == (1, {})
    assert "give --description" in mistake(capsys, "robot", "retarget", data, "--output", tmp_path, "--robot", "a.xml")


def test_only_the_verbs_that_always_simulate_import_the_extras():
    simulated = {
        "collect",
        "evaluate_tasks",
        "open_studio",
        "plan_and_play",
        "play_robot",
        "reproduce",
        "video_simulated",
    }
    others = sorted({module for module, _, _ in cli.VERBS.values()} - simulated)
    script = BLOCKED + "".join(f"import dexworld.cli.{module}\n" for module in others)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("setting", ["foo", "wgl"])
def test_a_graphics_setting_that_cannot_be_served_stops_only_what_draws_and_in_one_line(tmp_path, setting):
    surroundings = {"MUJOCO_GL": setting, "PYOPENGL_PLATFORM": setting}
    assert dexworld("collect", "--help", **surroundings).returncode == 0
    done = dexworld("collect", "--output", tmp_path / "data", "--episodes", 1, **surroundings)
    assert (done.returncode, done.stderr.count("dexworld: ")) == (2, 1)
    assert f"dexworld: MUJOCO_GL='{setting}' can't draw here" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--checkpoint", "no/such/folder"), "no/such/folder"),
        (("collect", "--episodes", 2, "--seed", 899_999), "cross from training to validation scenes"),
        (("collect", "--episodes", 0), "episodes must be >= 1"),
        (("train", "--data", "no/such/data"), "no/such/data"),
        (("imagine", "--data", "no/such/data"), "no/such/data"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, checkpoint, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if arguments[0] == "imagine":
        arguments = (*arguments, "--checkpoint", checkpoint)
    said = mistake(capsys, *arguments, "--output", tmp_path / "out")
    assert message in said
    assert said.startswith("dexworld: ")
    assert said.count("\n") == 1


DEVICES = ["train", "train decoder", "train evaluator", "train points", "train text", "cache-latents", "video train"]
WITHOUT_DATA = ["video evaluate", "video select", "video demo", "reproduce figure5"]
DEVICES += ["train policy", "video generate", *WITHOUT_DATA]


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
@pytest.mark.parametrize("verb", DEVICES)
def test_a_device_that_is_not_there_is_a_mistake_before_anything_is_read(capsys, tmp_path, verb, device):
    data = ["--data", "no/data"] * (verb not in WITHOUT_DATA)
    said = mistake(capsys, *verb.split(), *data, "--output", tmp_path / "out", "--device", device)
    assert said.startswith(f"dexworld: device is '{device}', which this machine doesn't have; choose auto, or from cpu")
    assert said.count("\n") == 1


FILES = ["train --encoder", "train --initial", "train --dry-run True --encoder", "train decoder --encoder"]
FILES += [
    "train evaluator --checkpoint",
    "train policy --checkpoint",
    "cache-latents --encoder",
    "cache-latents --checkpoint",
]
FILES += ["imagine --checkpoint", "video generate --checkpoint"]


@pytest.mark.parametrize("words", FILES)
def test_a_file_where_a_folder_of_weights_should_be_is_a_mistake_that_names_it(capsys, tmp_path, data, words):
    file = tmp_path / "model.safetensors"
    file.touch()
    said = mistake(capsys, *words.split(), file, "--data", data, "--output", tmp_path / "out")
    assert said == f"dexworld: {file} is a file; give the folder that holds it\n"


def test_a_second_training_in_a_folder_is_refused_and_a_signal_ends_the_first(tmp_path, data):
    run, small = tmp_path / "run", ["--preset", "debug", "--batch-size", 2, "--workers", 0, "--unroll-steps", 1]
    small += ["--data", data, "--output", run, "--validation-fraction", 0, "--stride-weights", 1, "--device", "cpu"]
    words = ["-c", "from dexworld.cli import main; main()", "train", *map(str, small), "--steps", "100000"]
    first = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    assert any("training steps: 100000 to do" in line for line in first.stderr)
    for launcher in ({}, {"RANK": "0"}, {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}):
        second = dexworld("train", *small, **launcher)
        assert second.returncode == 2
        assert f"{run}: `-c train --preset debug" in second.stderr
        assert f"(process {first.pid} on" in second.stderr
        assert ("start it by torchrun" in second.stderr) == ("SLURM_NTASKS" in launcher)
    assert dexworld("train", *small, "--steps", "100000", "--dry-run", "True").returncode == 0  # it writes nothing
    shared = ["--data", data, "--preset", "debug", "--output", tmp_path / "cache"]
    assert dexworld("cache-latents", *shared).returncode == 0  # several may
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 128 + signal.SIGTERM
    assert first.stderr.read().endswith("dexworld: stopped by SIGTERM; finished files are kept\n")
    assert not (run / ".owner").exists()


@pytest.mark.parametrize("what", ["open-loop", "tasks"])
def test_training_scenes_are_not_evaluated_on(capsys, tmp_path, checkpoint, what):
    said = mistake(capsys, "evaluate", what, "--checkpoint", checkpoint, "--seed", 50, "--output", tmp_path)
    assert "training seeds" in said
    assert said.count("\n") == 1


def test_an_unknown_option_is_a_mistake(capsys, tmp_path):
    assert "--sede" in mistake(capsys, "collect", "--output", tmp_path, "--sede", 1)


@pytest.mark.parametrize(
    ("words", "below", "cause"),
    [
        (("collect", "--episodes", 1), "", "is no folder"),
        (("collect", "--episodes", 1), "/deeper", "lies below a file"),
        (("imagine",), "/deeper", "lies below a file"),
    ],
)
def test_an_output_where_a_file_stands_is_a_mistake_that_names_it(capsys, tmp_path, words, below, cause):
    file = tmp_path / "file"
    file.touch()
    said = mistake(capsys, *words, "--output", f"{file}{below}")
    assert said.startswith(f"dexworld: {file}{below}")
    assert cause in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: the disk is full; make room"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b: the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (ModuleNotFoundError("No module named 'mujoco.x'", name="mujoco.x"), "pip install 'dexworld[sim]'"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), "pip install 'dexworld[video]'"),
        (ImportError("the DreamSim package is missing"), "the DreamSim package is missing"),
        (TrainingDiverged("the loss is NaN at step 3"), "the loss is NaN at step 3"),
    ],
)
def test_what_the_system_refuses_is_said_in_one_line_with_what_to_do(capsys, monkeypatch, tmp_path, error, said):
    def refuse(*_):
        raise error

    monkeypatch.setattr("dexworld.cli.collect.Collect.run", refuse)
    assert said in (line := mistake(capsys, "collect", "--output", tmp_path))
    assert line.count("\n") == 1


@pytest.mark.parametrize("in_import", [False, True], ids=["anywhere", "in the import of a compiled module"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_with_one_line_and_its_code(capsys, monkeypatch, tmp_path, number, in_import):
    cleaned = []

    def wait(*_):
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise (ImportError("initialization failed") if in_import else error) from error
        finally:
            cleaned.append(True)

    monkeypatch.setattr("dexworld.cli.collect.Collect.run", wait)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        cli.main(["collect", "--output", str(tmp_path)])
    assert (ended.value.code, cleaned) == (128 + number, [True])
    assert capsys.readouterr().err == f"dexworld: stopped by {number.name}; finished files are kept\n"
    assert signal.getsignal(number) == before


def test_collect_writes_a_dataset_and_its_figures(data):
    figures = json.loads((data / "results.json").read_text(encoding="utf-8"))
    assert (figures["episodes"], figures["frames"]) == (1, 4)
    assert figures["counts"] == open_dataset(data).counts
    assert "rejected_because_an_object_was_held" in figures["counts"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two recordings long enough for four seconds of roll-out, prepared."""
    folder = tmp_path_factory.mktemp("store")
    two = ["--episodes", "2", "--seed", str(SEED), "--workers", "1", "allegro", "--frames", "30"]
    cli.main(["collect", "--output", str(folder / "data"), *two])
    cli.main(["prepare", str(folder / "data"), str(folder / "store"), "--workers", "1"])
    return folder / "store"


@pytest.mark.parametrize("kind", ["data", "store"])
def test_imagine_writes_a_page_a_video_and_its_figures(tmp_path, checkpoint, kind, request):
    data = str(request.getfixturevalue(kind))
    log = logged(tmp_path / "look.rrd")
    cli.main(["imagine", "--output", str(tmp_path), *log, "--checkpoint", checkpoint, "--data", data, "--steps", "2"])
    assert {path.name for path in tmp_path.iterdir()} == {"imagine.html", "results.json", *["look.rrd"][: len(log)]}


def test_open_loop_figures_come_from_a_store_that_was_just_prepared(tmp_path, checkpoint, store, monkeypatch):
    own = ["--checkpoint", checkpoint, "--evaluator", "own", "--seed", str(SEED), "--split", "validation"]
    command = ["evaluate", "open-loop", *own, "--episodes", "2", "--data", str(store), "--output", str(tmp_path)]
    log = logged(tmp_path / "look.rrd")
    cli.main([*command, *log])
    assert not log or (tmp_path / "look.rrd").stat().st_size > 10_000
    figures = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert figures["mse_ratio_1s"] > 0
    assert figures["quarantined"] == 0
    monkeypatch.setattr("dexworld.evaluation.open_loop.measure", None)  # what is known is not measured again
    cli.main(command)
    again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert figures | {"run": None} == again | {"run": None}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--episode", 99), "there is no episode 99 in {data}: it holds episodes 0 to 0"),
        (("--episode", -13), "there is no episode -13 in {data}"),
        (("--frame", 4), "it holds frames 0 to 3"),
    ],
)
def test_indices_are_refused_with_what_there_is(capsys, tmp_path, checkpoint, data, options, said):
    line = mistake(capsys, "imagine", "--output", tmp_path, "--checkpoint", checkpoint, "--data", data, *options)
    assert said.format(data=data) in line


def test_imagining_starts_at_the_frame_asked_for_or_where_the_hand_is_in_view(monkeypatch, checkpoint, data, tmp_path):
    started = []

    def refuse(model, episode, motions, frame, decode, drawn_by):
        started.append(frame)
        raise ValueError("enough")

    monkeypatch.setattr(cli.imagine_motions, "imagine", refuse)
    monkeypatch.setattr(cli.imagine_motions, "best_frame", lambda episode, hand: 2)
    for options in ([], ["--frame", "0"]):
        with pytest.raises(SystemExit):
            cli.main(["imagine", "--output", str(tmp_path), "--checkpoint", checkpoint, "--data", str(data), *options])
    assert started == [2, 0]


def test_the_name_reference_stands_for_the_shipped_checkpoint_and_all_else_for_itself(monkeypatch, tmp_path):
    assert checkpoint_path("my/own") == "my/own"
    monkeypatch.setattr("dexworld.models.reference.resources.files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match="no reference checkpoint"):
        checkpoint_path(REFERENCE)
    folder = tmp_path / "assets" / REFERENCE
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert checkpoint_path(REFERENCE) == str(folder)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (["--from", "10,10", "20,20", "--to", "30,30"], "--from gives 2 points and --to 1"),
        (["--from", "10,10"], "--from gives 1 points and --to 0"),
        (["--from", "10", "--to", "30,30"], "--from is 10; give points as two pixels each"),
        (["--from", "10,x", "--to", "30,30"], "--from is 10,x"),
        (["--from", "10,10", "--to", "30,30", "--text", "push the ball left"], "not both"),
    ],
)
def test_clicks_are_as_many_pairs_of_pixels(capsys, tmp_path, points, said):
    assert said in mistake(capsys, "plan", "--output", tmp_path, "--task", "push", *points)
