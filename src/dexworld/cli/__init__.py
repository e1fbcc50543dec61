"""The `dexworld` command: every verb is a dataclass whose fields are its options."""

import logging
import sys
from typing import Annotated

import tyro
from rich.logging import RichHandler

from dexworld.cli.cache_latents import CacheLatents
from dexworld.cli.collect import Collect
from dexworld.cli.commands import Demo, Evaluate, Imagine, Plan, Train
from dexworld.cli.convert import Convert
from dexworld.cli.inspect import Inspect
from dexworld.cli.prepare import Prepare
from dexworld.cli.train_more import TrainDecoder, TrainEvaluator
from dexworld.cli.video import Video
from dexworld.sim.renderer import RendererUnavailable

_verb = tyro.conf.subcommand
Verb = (
    Annotated[Collect, _verb("collect")]
    | Annotated[Inspect, _verb("inspect")]
    | Annotated[Prepare, _verb("prepare")]
    | Annotated[CacheLatents, _verb("cache-latents")]
    | Annotated[Train, _verb("train")]
    | Annotated[TrainDecoder, _verb("train decoder")]
    | Annotated[TrainEvaluator, _verb("train evaluator")]
    | Annotated[Convert, _verb("convert")]
    | Annotated[Evaluate, _verb("evaluate")]
    | Annotated[Plan, _verb("plan")]
    | Annotated[Imagine, _verb("imagine")]
    | Annotated[Demo, _verb("demo")]
    | Annotated[Video, _verb("video")]
)
# Verbs of two words. One parser for each: as subcommands of `train`, they would take its options too.
_PAIRS = (("train", "decoder"), ("train", "evaluator"))
_MISTAKES = (
    ValueError,  # options and files that contradict themselves or each other
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    PermissionError,
    RendererUnavailable,
)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Mistakes of the user end with one clear line and exit code 2, defects with a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        command = tyro.cli(
            Verb,
            prog="dexworld",
            description="Dexterous world models: predict what hands do to the world, and plan with it.",
            args=_joined(sys.argv[1:] if arguments is None else arguments),
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
        )
        command.run()
    except _MISTAKES as error:
        sys.exit(_complain(str(error)))


def _joined(arguments: list[str]) -> list[str]:
    """Arguments with the two words of a verb as one; an option's value (`train --data decoder`) is no verb."""
    if tuple(arguments[:2]) in _PAIRS:
        return [" ".join(arguments[:2]), *arguments[2:]]
    return arguments


def _complain(message: str) -> int:
    sys.stderr.write(f"dexworld: {' '.join(message.split())}\n")
    return 2


__all__ = ["main"]
