"""Films of what the models of a study imagine: atomic actions (Figure 7) and transferred ones (Figure 9)."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from dexworld.actions import HandMotion
from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized_episode
from dexworld.evaluation.atomic import atomic_motions, of_hands, roll_out
from dexworld.evaluation.open_loop_metrics import keypoint_views
from dexworld.models.world_model import load_world_model
from dexworld.report import html
from dexworld.report.html import Markup
from dexworld.report.media import enlarged, film, film_grid, films, picture
from dexworld.report.overlay import hand_overlay
from dexworld.studies.hand_measures import CENTIMETRES, HELD_OUT, start_frame, transfers
from dexworld.studies.study import RATE_HZ
from dexworld.studies.study_runs import Study
from dexworld.track import Track

STARTS, PAIRS = 2, 3  # that are shown
SCALE = 2  # times as large as the model's pictures
READ_THROUGH = (
    "Pictures are decoded by the encoder's own way back, so they are as coarse as its latents. The drawn hand is where "
    "it should be; a good imagination keeps the hand under the drawing."
)
STILL = "Keypoints that leave the picture are not drawn."


def study_films(study: Study, seeds: Sequence[int]) -> Markup | None:
    """The section of a table's films, by the first seed of each finished variant; None without any."""
    if not study.table.films:
        return None
    shown = {
        variant.name: load_world_model(study.folder(variant.name, seeds[0]) / "model")
        for variant in study.table.variants
        if study.finished(variant.name, seeds[0])
    }
    if not shown:
        return None
    size = next(iter(shown.values())).config.image_size
    dataset = open_dataset(study.held_out[HELD_OUT])
    clips = [resized_episode(dataset[index], size) for index in range(len(dataset))]
    if study.table.films == "atomic":
        cards, title = _atomic_cards(shown, clips), "Films: the same frame, told different moves"
    else:
        cards, title = _transfer_cards(shown, clips), "Films: what one clip does, done in another"
    return html.section(title, *cards, html.note(READ_THROUGH, " ", STILL))


def _atomic_cards(models: dict[str, Any], clips: Sequence[Track]) -> Iterable[Markup]:
    """A start frame each, and what every model makes of every motion."""
    frames = ((clip, start_frame(clip)) for clip in clips)
    for clip, frame in islice(((clip, frame) for clip, frame in frames if frame is not None), STARTS):
        start = picture(enlarged(clip.frames.read([frame])[0]), "the start frame", "The start frame")
        parts = [film_grid([start])]
        for name, model in models.items():
            motions = atomic_motions(clip, frame, CENTIMETRES, model.condition)
            latents, together = roll_out(model, clip, motions, frame)
            shown = [
                film(_drawn(video, together.index(place)), RATE_HZ, motion)
                for place, (motion, video) in enumerate(zip(motions, model.decode(latents).numpy(), strict=True))
            ]
            parts += [html.tag("h4", name), films(shown)]
        yield html.card(clip.source, None, *parts)


def _transfer_cards(models: dict[str, Any], clips: Sequence[Track]) -> Iterable[Markup]:
    """Source and target each, and what every model makes of the source's actions in the target."""
    for number, transfer in enumerate(islice(transfers(list(clips)), PAIRS), start=1):
        source, moved = of_hands(transfer.source), of_hands(transfer.moved)
        true = transfer.source.frames.read(list(range(source.steps + 1)))
        shown = [film(_drawn(true, source), RATE_HZ, "The source", kind="right")]
        for name, model in models.items():
            video = model.decode(transfer.imagined(model)[0]).numpy()
            shown.append(film(_drawn(video, moved), RATE_HZ, name))
        places = f"{transfer.source.source} in {transfer.target.source}"
        yield html.card(f"Transfer {number}", None, films(shown), aside=places)


def _drawn(video: np.ndarray, motion: HandMotion) -> np.ndarray:
    """A video (T + 1, H, W, 3), larger, with the hands of a motion drawn on it."""
    pixels, size = motion.pixels[..., :2], (video.shape[1], video.shape[2])
    seen = keypoint_views(pixels, motion.visible, size)["in_view"]
    hands = zip(video, pixels.numpy(), seen.numpy(), strict=True)
    return np.stack([hand_overlay(image, places, view, SCALE) for image, places, view in hands])
