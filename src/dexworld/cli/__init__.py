"""The `dexworld` command: every verb is a dataclass whose fields are its options, imported when it is asked for."""

import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from dataclasses import is_dataclass
from importlib import import_module
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NoReturn

from dexworld.errors import UsageError, naming

# verb: (module below `dexworld.cli`, class, what the overview says)
VERBS: dict[str, tuple[str, str, str]] = {
    "collect": ("collect", "Collect", "record episodes of a simulated hand, gripper or robot hand"),
    "inspect": ("inspect", "Inspect", "look through a dataset of any layout"),
    "prepare": ("prepare", "Prepare", "transcode and pack a dataset once, to train from it fast"),
    "cache-latents": ("cache_latents", "CacheLatents", "encode every frame of datasets once"),
    "train": ("train", "Train", "train a world model"),
    "train decoder": ("train_readers", "TrainDecoder", "train a network that turns latents back into pictures"),
    "train evaluator": ("train_readers", "TrainEvaluator", "train the keypoint head that predictions are judged with"),
    "train points": ("train_readers", "TrainPoints", "teach a world model where objects are and go"),
    "train policy": ("train_readers", "TrainPolicy", "train a policy to hold planning against"),
    "train text": ("train_readers", "TrainText", "teach a world model to understand sentences about objects"),
    "robot check": ("check_robot", "CheckRobot", "draw a robot from a file, move it, and name what is wrong with it"),
    "robot retarget": ("retarget_hands", "RetargetHands", "give a robot's hand the motions of human hands"),
    "camera check": ("check_camera", "CheckCamera", "show what a camera's files say, and name what is wrong in them"),
    "camera calibrate": ("calibrate_camera", "CalibrateCamera", "calibrate a camera from pictures of a board"),
    "convert": ("convert", "Convert", "convert a checkpoint of the DexWM release"),
    "cosmos": ("cosmos_checkpoint", "CosmosCheckpoint", "make a checkpoint of a Cosmos video pipeline, to measure it"),
    "evaluate open-loop": ("evaluate_open_loop", "OpenLoop", "measure predictions of four seconds"),
    "evaluate tasks": ("evaluate_tasks", "Tasks", "measure planning on held-out scenes, with its controls"),
    "reproduce": ("reproduce", "Reproduce", "train and measure what a table of the paper compares"),
    "plan": ("plan_and_play", "Plan", "plan one episode and carry it out in the simulator"),
    "imagine": ("imagine_motions", "Imagine", "imagine simple hand motions from one start frame"),
    "studio": ("open_studio", "Studio", "open a page in the browser: move a hand, see what the model expects"),
    "demo": ("plan_and_play", "Demo", "plan a few episodes of every task and show them on one page"),
    "serve": ("serve", "Serve", "serve a policy to robots"),
    "play-robot": ("play_robot", "PlayRobot", "play a robot: the simulator behind a socket"),
    "video synthesize": ("video_simulated", "Synthesize", "record triplets in the simulator"),
    "video prepare": ("video_data", "Prepare", "make triplets out of real video"),
    "video convert-hands": ("video_hands", "ConvertHands", "make hand files out of a hand tracker's results"),
    "video track-hands": ("video_hands", "TrackHands", "make rough hand files out of plain video"),
    "video validate": ("video_data", "Validate", "name each broken file of a triplet folder"),
    "video episodes": ("video_data", "Episodes", "turn triplets into episodes for a DexWM"),
    "video train": ("video_model", "VideoTrain", "train a video world model on triplets"),
    "video generate": ("video_model", "VideoGenerate", "imagine the clips of a triplet folder"),
    "video evaluate": ("video_results", "VideoEvaluate", "measure video models on held-out clips"),
    "video select": ("video_simulated", "VideoSelect", "choose among hand motions by imagining each"),
    "video demo": ("video_results", "VideoDemo", "imagine a few held-out clips and show them on one page"),
}

# Options and files that contradict themselves or each other, and what a user can mend.
_MISTAKES = (ValueError, OSError, UsageError)
# What the system says of a path, and what to do; finished files are kept whatever happens.
_CAUSES = {
    errno.ENOSPC: "the disk is full; make room and start again, finished files are kept",
    errno.EDQUOT: "the disk quota is used up; make room and start again, finished files are kept",
    errno.EFBIG: "the file grew larger than the system allows (`ulimit -f`); finished files are kept",
    errno.EIO: "the device failed (Input/output error); finished files are kept",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder or change its permissions",
    errno.EPERM: "permission denied; choose another folder or change its permissions",
    errno.EEXIST: "exists already, and is no folder; choose another name",
    errno.ENOTDIR: "lies below a file, not a folder; choose another name",
    errno.EISDIR: "is a folder, not a file; choose another name",
}
# The extra that brings a package; all others come with dexworld itself.
_EXTRAS = {"mujoco": "sim", "gymnasium": "sim", "rerun": "viz", "trimesh": "studio"} | dict.fromkeys(
    ("diffusers", "accelerate", "peft"), "video"
)
# Several processes may write into one folder of theirs: they share the work by claims on its parts.
_SHARED = {"prepare", "cache-latents"}
# How options are called, as `tyro.conf` names it; the pages of the reference are made with the same.
CONVENTIONS = ("OmitSubcommandPrefixes", "OmitArgPrefixes", "FlagConversionOff")
LATE_S = 6.0  # a command that was stopped and still runs after so long is stopped once more


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived: whatever is open is cleaned up on the way out."""


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Mistakes of the user end with one clear line and exit code 2, defects with a traceback.

    SIGINT and SIGTERM end it with exit code 128 and the signal's number.
    """
    words = sys.argv[1:] if arguments is None else arguments
    verb = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in VERBS), None)
    if verb is None:
        _overview(words)
    module, name, _ = VERBS[verb]
    try:
        with _stopped_by_signals():
            command = getattr(import_module(f"dexworld.cli.{module}"), name)
            parsed = _parsed(verb, command, words[len(verb.split()) :])
            outputs = _outputs(parsed)
            _run(parsed, [] if verb in _SHARED or getattr(parsed, "dry_run", False) else outputs)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package == "dexworld":
            raise
        extra = f"dexworld[{_EXTRAS[package]}]" if package in _EXTRAS else package
        sys.exit(_mistake(f"`dexworld {verb}` needs the package {package}: pip install '{extra}'"))
    except ImportError as error:  # says itself what to install
        sys.exit(_mistake(str(error)))
    except _MISTAKES as error:
        sys.exit(_mistake(_explained(error)))
    except Stopped as stop:
        number = signal.Signals(stop.args[0])
        _mistake(f"stopped by {number.name}; finished files are kept")
        sys.exit(128 + number)


def _outputs(options: Any) -> list[Path]:
    """The folders named `output` that a command writes. Raises OSError where one, or a `cache`, can't be written."""
    from dexworld.data.files import check_writable

    found = []
    for name, value in vars(options).items():
        if is_dataclass(value):
            found += _outputs(value)
        elif name in ("output", "cache") and isinstance(value, Path):
            check_writable(value)
            found += [value] if name == "output" else []
    return found


def _run(command: Any, outputs: list[Path]) -> None:
    """Run a parsed command as the only one that writes into its folders."""
    from dexworld.data.owner import owned

    with ExitStack() as stack:
        if os.environ.get("RANK", "0") == "0":  # the first process of a group that a launcher started
            for folder in outputs:
                stack.enter_context(owned(folder))
        with naming(outputs[0]) if outputs else nullcontext():  # where what was written doesn't say it itself
            command.run()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first SIGINT or SIGTERM; a second one ends the process at once."""
    own, numbers = os.getpid(), (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGALRM:
            raise Stopped(caught[0])
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)
        again(LATE_S)  # in case something on the way out swallows it
        if os.getpid() != own:  # a forked worker: its parent cleans up
            os.kill(os.getpid(), number)
        raise Stopped(number)

    def again(seconds: float) -> None:
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def unraisable(lost: Any) -> None:
        """Python can't raise out of a finaliser or a callback: raise again in a moment."""
        if isinstance(lost.exc_value, Stopped):
            again(0.05)
        else:
            sys.__unraisablehook__(lost)

    caught: list[int] = []
    before, sys.unraisablehook = [signal.signal(number, stop) for number in numbers], unraisable
    try:
        yield
    except ImportError as error:
        if caught:  # a compiled module that was being imported made `Stopped` an error of its own
            raise Stopped(caught[0]) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        sys.unraisablehook = sys.__unraisablehook__
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _explained(error: Exception) -> str:
    """What a mistake says; an error of the system is given its path and what to do."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    paths = [os.fspath(each) for each in (error.filename, error.filename2) if isinstance(each, (str, os.PathLike))]
    return ": ".join([*paths[:1], _CAUSES.get(error.errno, error.strerror or str(error))])


def _parsed(verb: str, command: Any, options: list[str]) -> Any:
    """The verb's dataclass from its options."""
    import logging

    import tyro
    from rich.logging import RichHandler

    from dexworld.options import check_numbers

    handler = RichHandler(show_path=False) if sys.stdout.isatty() else logging.StreamHandler()  # plain in a log file
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = tuple(getattr(tyro.conf, name) for name in CONVENTIONS)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            parsed = tyro.cli(command, prog=f"dexworld {verb}", args=options, config=config)
    except SystemExit as error:
        if error.code:
            raise UsageError(f"{_first_box(said.getvalue())}; see `dexworld {verb} --help`") from None
        raise
    check_numbers(parsed)
    return parsed


def _first_box(text: str) -> str:
    """What tyro says of a mistake: what stands in its box below the title and above the first rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip(" │╭╮╰╯") for line in plain.splitlines()[1:]]
    shown = dropwhile(_is_rule, lines)
    return " ".join(takewhile(lambda line: not _is_rule(line), shown))


def _is_rule(line: str) -> bool:
    return not line.strip("─-")


def _overview(words: list[str]) -> NoReturn:
    """Show the verbs that begin with the given words; exit code 2 unless help was asked for."""
    asked = [word for word in words if word in ("-h", "--help")]
    group = [word for word in words[:1] if not word.startswith("-")]
    shown = {verb: row for verb, row in VERBS.items() if verb.split()[:1] == group} or VERBS
    lines = [f"  {verb:<20}{what}" for verb, (_, _, what) in shown.items()]
    known = not group or shown is not VERBS
    prog = " ".join(["dexworld", *(group if known else [])])
    text = "\n".join(
        [
            f"usage: {prog} [-h] VERB [OPTIONS]\n",
            "Dexterous world models: predict what hands do to the world, and plan with it.\n",
            *lines,
            f"\n`{prog} VERB --help` lists the options of a verb.\n",
        ]
    )
    if asked or not words:
        sys.stdout.write(text)
        sys.exit(0 if asked else 2)
    sys.exit(_mistake(f"no verb {' '.join(words[:2])!r}; choose from {', '.join(shown)}"))


def _mistake(message: str) -> int:
    sys.stderr.write(f"dexworld: {' '.join(message.split())}\n")
    return 2
