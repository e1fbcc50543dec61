"""What the model imagines when it is given simple hand motions: a page and the figures behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.evaluation.atomic import roll_out
from dexworld.evaluation.results import write_results
from dexworld.report import html
from dexworld.report.media import picture, video_tag
from dexworld.report.overlay import hand_overlay
from dexworld.track import Track

TITLE = "What the model imagines"
Decode = Callable[[Tensor], Tensor]  # latents (..., P, D) to pictures (..., H, W, 3) uint8
DIMMED = 0.45  # brightness of the start frame behind drawn keypoints, where latents can't be decoded

LEAD = (
    "The model sees the one picture below and is then told how the hand moves: nothing else. Everything in the "
    "videos is its own imagination, one frame after the other, each built on the last. Watch whether the hand goes "
    "where it was told, whether what it touches moves along, and whether all else stays as it is."
)
COMMANDED = (
    "The same videos with the hand drawn where it was told to be. A good imagination keeps the hand under the drawing."
)
UNDECODED = (
    "This model's encoder has no way back from its latents to pictures, so the videos show the start frame with the "
    "keypoints that the model sees in its own imagination."
)


@dataclass(frozen=True)
class Imagined:
    """Rollouts of N motions from one frame.

    start_image: (H, W, 3) uint8. images: (N, T + 1, H, W, 3) uint8, the first of each the start as the model sees it,
    decoded by `drawn_by` or else drawn. commanded_px: (N, T + 1, 12, 2) where the tracked keypoints should be, and
    in_view: (N, T + 1, 12) bool. predicted_px: (N, T + 1, 12, 2) where the keypoint head sees them. change: (N, T) root
    mean square change of the latents since the start.
    """

    names: tuple[str, ...]
    start_image: np.ndarray
    images: np.ndarray
    decoded: bool
    commanded_px: np.ndarray
    in_view: np.ndarray
    predicted_px: np.ndarray
    change: np.ndarray
    fps: float
    source: str
    drawn_by: str = ""


@torch.no_grad()
def imagine(
    model: Any,
    episode: Track,
    motions: Mapping[str, HandMotion],
    frame: int = 0,
    fps: float = 5.0,
    device: torch.device | str = "cpu",
    decode: Decode | None = None,
    drawn_by: str = "",
) -> Imagined:
    """Roll out each of the named motions (T transitions, unbatched, all of one length) from one frame of an episode.

    model: a `WorldModel` with `keypoints`, and with `decode` where pictures are to be the encoder's own.
    fps: at which steps are shown. decode: makes the pictures, instead of the model's own `decode`; drawn_by: its name.
    Raises as `roll_out`.
    """
    whole, together = roll_out(model, episode, motions, frame, device)
    image = episode.frames.read([frame])
    height, width = image.shape[1:3]
    commanded = together.pixels[..., :2].cpu().numpy()
    in_view = together.visible.cpu().numpy() & ((commanded >= 0) & (commanded < (width, height))).all(axis=-1)
    predicted_px = model.keypoints(whole)[0].cpu().numpy()
    try:
        images, decoded = (decode or model.decode)(whole).cpu().numpy(), True
    except ValueError:  # the encoder has no way back to pixels
        if decode is not None:
            raise
        dimmed = np.broadcast_to((image[0] * DIMMED).astype(np.uint8), (*in_view.shape[:2], *image.shape[1:]))
        images, decoded = overlaid(dimmed, predicted_px, in_view), False
    return Imagined(
        names=tuple(motions),
        start_image=image[0],
        images=images,
        decoded=decoded,
        commanded_px=commanded,
        in_view=in_view,
        predicted_px=predicted_px,
        change=(whole[:, 1:] - whole[:, :1]).square().mean(dim=(-2, -1)).sqrt().cpu().numpy(),
        fps=fps,
        source=episode.source,
        drawn_by=drawn_by if decoded else "",
    )


def overlaid(images: np.ndarray, keypoints_px: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Images (N, T + 1, H, W, 3) with keypoints (N, T + 1, 12, 2) drawn on each."""
    drawn = np.empty_like(images)
    for index in np.ndindex(images.shape[:2]):
        drawn[index] = hand_overlay(images[index], keypoints_px[index], shown[index], scale=1)
    return drawn


def imagine_figures(imagined: Imagined) -> dict[str, Any]:
    """Per motion: how far keypoints should move, how far they move, how far off they end; change of the latents.

    In pixels; means over the keypoints in view in the first and the last frame; None where none is.
    """
    figures: dict[str, Any] = {}
    for index, name in enumerate(imagined.names):
        commanded, seen = imagined.commanded_px[index], imagined.predicted_px[index]
        view = imagined.in_view[index, 0] & imagined.in_view[index, -1]
        moves = {
            "commanded_px": commanded[-1] - commanded[0],
            "imagined_px": seen[-1] - seen[0],
            "keypoint_error_px": seen[-1] - commanded[-1],
        }
        figures[name] = {
            key: float(np.linalg.norm(move[view], axis=-1).mean()) if view.any() else None
            for key, move in moves.items()
        }
        figures[name]["latent_change"] = float(imagined.change[index, -1])
    return figures | {"decoded": imagined.decoded, "drawn_by": imagined.drawn_by, "start": imagined.source}


def write_imagine_report(folder: Path | str, imagined: Imagined, *, seed: int | None = None) -> Path:
    """Write `imagine.html` and `results.json`; returns the page's path."""
    folder = Path(folder)
    write_results(folder, imagine_figures(imagined), seed=seed)
    starts = [picture(imagined.start_image, "the start frame", f"The start, {imagined.source}.")]
    if imagined.decoded:
        caption = "The same picture as the model holds it: what it can't say here, it can't imagine."
        caption += f" Drawn by {imagined.drawn_by}, like all that follows." if imagined.drawn_by else ""
        starts.append(picture(imagined.images[0, 0], "the start frame, decoded from the model's latents", caption))
        drawn = videos(imagined, overlaid(imagined.images, imagined.commanded_px, imagined.in_view))
        below = html.details("With the commanded hand drawn on top", html.note(COMMANDED), drawn)
    else:
        below = html.note(UNDECODED)
    seconds = (imagined.images.shape[1] - 1) / imagined.fps
    return html.write_page(
        folder / "imagine.html",
        TITLE,
        html.opening(TITLE, LEAD),
        html.box("pictures few", *starts),
        html.section(f"{seconds:g} seconds of imagination", videos(imagined, imagined.images)),
        below,
    )


def videos(imagined: Imagined, images: np.ndarray) -> html.Markup:
    """One looping video a motion, side by side, of images (N, T + 1, H, W, 3)."""
    cells = [
        html.figure(video_tag(video, imagined.fps, f"imagined: {name}"), name.capitalize())
        for name, video in zip(imagined.names, images, strict=True)
    ]
    return html.box("pictures many", *cells)
