"""The `dexworld` command: every verb is a dataclass whose fields are its options."""

import logging
import sys
from typing import Annotated

import tyro
from rich.logging import RichHandler

from dexworld.cli.cache_latents import CacheLatents
from dexworld.cli.collect import Collect
from dexworld.cli.commands import Demo, Evaluate, Imagine, Plan, Train
from dexworld.cli.prepare import Prepare
from dexworld.cli.video import Video
from dexworld.sim.render import RendererUnavailable

_verb = tyro.conf.subcommand
_Flat = tyro.conf.OmitArgPrefixes  # no two options of a verb have one name, but those of foreign layouts


Verb = (
    Annotated[Collect, _verb("collect"), _Flat]
    | Annotated[Prepare, _verb("prepare")]
    | Annotated[CacheLatents, _verb("cache-latents"), _Flat]
    | Annotated[Train, _verb("train"), _Flat]
    | Annotated[Evaluate, _verb("evaluate"), _Flat]
    | Annotated[Plan, _verb("plan"), _Flat]
    | Annotated[Imagine, _verb("imagine"), _Flat]
    | Annotated[Demo, _verb("demo"), _Flat]
    | Annotated[Video, _verb("video"), _Flat]
)
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
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagConversionOff),
        )
        command.run()
    except _MISTAKES as error:
        sys.exit(_complain(str(error)))


def _complain(message: str) -> int:
    sys.stderr.write(f"dexworld: {' '.join(message.split())}\n")
    return 2


__all__ = ["main"]
