"""The verbs of `dexworld video` that make hand files."""

import logging
from dataclasses import dataclass

from dexworld.cli.bars import counted
from dexworld.evaluation.results import write_results
from dexworld.video.real.convert_hands import ConvertHandsConfig, convert_hands
from dexworld.video.real.track_hands import TrackHandsConfig, track_hands

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


@dataclass(frozen=True)
class TrackHands(TrackHandsConfig):
    """Make rough hand files out of plain video with MediaPipe's hand networks, which you bring.

    Expect many missed hands, false ones, and distances that are off by centimetres to decimetres: `docs/video_data.md`
    has figures. HaMeR, WiLoR or HaWoR with `video convert-hands` find more.
    """

    def run(self) -> None:
        """Track, and write counts and every track with its doubts into `results.json`."""
        figures = track_hands(self, counted("videos"))
        write_results(self.output, figures)
        for name, reason in list(figures["left_out"].items())[:5]:
            logger.warning("left out %s: %s", name, reason)
        if figures["focal_assumed"]:
            logger.warning("no --focal was given: an assumed focal length puts hands at a wrong distance")
        text = "%d hand files in %s, rough ones: %d left and %d right hands in %d frames; %d uncertain hands are %s"
        counts = [figures[name] for name in ("left_hands", "right_hands", "frames", "uncertain_hands")]
        logger.info(text, figures["videos"], self.output, *counts, "kept" if self.keep_uncertain else "left out")
