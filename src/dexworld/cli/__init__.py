"""The `dexworld` command: every verb is a dataclass whose fields are its options, imported when it is asked for."""

import sys
from importlib import import_module
from typing import Any, NoReturn

from dexworld.errors import UsageError

# verb: (module below `dexworld.cli`, class, what the overview says)
VERBS: dict[str, tuple[str, str, str]] = {
    "collect": ("collect", "Collect", "record episodes of a simulated hand, gripper or robot hand"),
    "inspect": ("inspect", "Inspect", "look through a dataset of any layout"),
    "prepare": ("prepare", "Prepare", "transcode and pack a dataset once, to train from it fast"),
    "cache-latents": ("cache_latents", "CacheLatents", "encode every frame of datasets once"),
    "train": ("train", "Train", "train a world model"),
    "train decoder": ("train_readers", "TrainDecoder", "train a network that turns latents back into pictures"),
    "train evaluator": ("train_readers", "TrainEvaluator", "train the keypoint head that predictions are judged with"),
    "convert": ("convert", "Convert", "convert a checkpoint of the DexWM release"),
    "evaluate open-loop": ("evaluate_open_loop", "OpenLoop", "measure predictions of four seconds"),
    "evaluate tasks": ("evaluate_tasks", "Tasks", "measure planning on held-out scenes, with its controls"),
    "plan": ("plan_and_play", "Plan", "plan one episode and carry it out in the simulator"),
    "imagine": ("imagine_motions", "Imagine", "imagine simple hand motions from one start frame"),
    "demo": ("plan_and_play", "Demo", "plan a few episodes of every task and show them on one page"),
    "video synthesize": ("video_data", "Synthesize", "record triplets in the simulator"),
    "video prepare": ("video_data", "Prepare", "make triplets out of real video"),
    "video validate": ("video_data", "Validate", "name each broken file of a triplet folder"),
    "video episodes": ("video_data", "Episodes", "turn triplets into episodes for a DexWM"),
    "video train": ("video", "VideoTrain", "train a video world model on triplets"),
    "video generate": ("video", "VideoGenerate", "imagine the clips of a triplet folder"),
    "video evaluate": ("video_results", "VideoEvaluate", "measure video models on held-out clips"),
    "video select": ("video_results", "VideoSelect", "choose among hand motions by imagining each"),
    "video demo": ("video_results", "VideoDemo", "imagine a few held-out clips and show them on one page"),
}

# Options and files that contradict themselves or each other, and what a user can mend.
_MISTAKES = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError, UsageError)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Mistakes of the user end with one clear line and exit code 2, defects with a traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    verb = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in VERBS), None)
    if verb is None:
        _overview(words)
    module, name, _ = VERBS[verb]
    try:
        command = getattr(import_module(f"dexworld.cli.{module}"), name)
        _parsed(verb, command, words[len(verb.split()) :]).run()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "dexworld":
            raise
        sys.exit(_mistake(f"`dexworld {verb}` needs the package {error.name}: pip install 'dexworld[sim,video]'"))
    except _MISTAKES as error:
        sys.exit(_mistake(str(error)))


def _parsed(verb: str, command: Any, options: list[str]) -> Any:
    """The verb's dataclass from its options."""
    import logging

    import tyro
    from rich.logging import RichHandler

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return tyro.cli(
        command,
        prog=f"dexworld {verb}",
        args=options,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
    )


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
