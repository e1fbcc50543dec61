"""The verbs of `dexworld video` that make hand files."""

import logging
from dataclasses import dataclass

from dexworld.cli.bars import counted
from dexworld.evaluation.results import write_results
from dexworld.video.real.convert_hands import ConvertHandsConfig, convert_hands

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class ConvertHands(ConvertHandsConfig):
    """Make hand files out of the results of HaMeR, WiLoR, HaWoR or MediaPipe, or out of MANO parameters."""

    def run(self) -> None:
        """Convert, and write what was done and left out into `results.json`."""
        figures = convert_hands(self, counted("videos"))
        write_results(self.output, figures)
        for name, reason in list(figures["left_out"].items())[:5]:
            logger.warning("left out %s: %s", name, reason)
        text = "%d hand files in %s: %d left and %d right hands; %d videos left out"
        counts = (figures[name] for name in ("left_hands", "right_hands", "videos_left_out"))
        logger.info(text, figures["videos"], self.output, *counts)
