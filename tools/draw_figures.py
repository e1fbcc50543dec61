"""Draw the pictures of README.md and docs/ from runs of the shipped models on validation scenes.

    python tools/draw_figures.py [planned imagined video horizon]

About two minutes on one core. The scenes were chosen to be easy to see: the figures of docs/results/shipped.md say how
often planning works.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dexworld.cli.imagine_motions import SEARCHED_FRAMES
from dexworld.evaluation.atomic import AtomicConfig, atomic_motions, best_frame
from dexworld.evaluation.open_loop import OpenLoopConfig, evaluate_open_loop
from dexworld.models.latent_readers import AUTO, drawing_of
from dexworld.models.reference import VIDEO
from dexworld.models.world_model import load_world_model
from dexworld.report.imagine import Imagined, imagine
from dexworld.report.overlay import hand_overlay
from dexworld.report.play_demo import DemoConfig, play_demo
from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration
from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.judge.evaluate_videos import EvaluateConfig
from dexworld.video.judge.gallery import shown_clip
from dexworld.video.model.dwm import load_video_model
from dexworld.video.model.generate import GenerateConfig, Generator

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
PLACE_SCENE, IMAGINED_SCENE, VIDEO_SCENE = 950_303, 950_001, 950_000
HORIZON_SCENE, HORIZON_EPISODES = 951_000, 12
PANEL, VIDEO_PANEL = (320, 184), (288, 192)  # width, height in pixels
HEIGHT, TOP = 220, 1.6  # of the chart: pixels, and the error at its upper edge
STRIP, GAP = 22, 6  # the line of words above a panel, and what lies between panels
PAPER, INK = (250, 250, 250), (30, 34, 40)


def panel(image: np.ndarray, words: str, size: tuple[int, int] = PANEL) -> Image.Image:
    """An image (H, W, 3) uint8 with a line of words above it."""
    drawn = Image.new("RGB", (size[0], size[1] + STRIP), PAPER)
    drawn.paste(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), (0, STRIP))
    ImageDraw.Draw(drawn).text((3, 3), words, INK, ImageFont.load_default(14))
    return drawn


def grid(panels: list[Image.Image], columns: int) -> Image.Image:
    """Panels of one size in rows."""
    width, height = panels[0].size
    rows = -(-len(panels) // columns)
    drawn = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), PAPER)
    for index, each in enumerate(panels):
        drawn.paste(each, (index % columns * (width + GAP), index // columns * (height + GAP)))
    return drawn


def planned() -> None:
    """planned.webp: an episode of placing; start, what the model imagines of each move, what happens, goal."""
    episode = play_demo(DemoConfig(tasks=("place",), episodes=1, seed=PLACE_SCENE, workers=1)).episodes[0]
    steps = len(episode.plans)
    frames = []
    for index, real in enumerate(episode.outcome):
        move = min(index * steps // len(episode.outcome), steps - 1)
        imagined = episode.plans[move].imagined
        assert imagined is not None
        said = f"imagined: move {move + 1} of {steps}"
        panels = [(episode.start_image, "start"), (imagined, said), (real, "real"), (episode.goal_image, "goal")]
        frames.append(grid([panel(image, words) for image, words in panels], columns=2))
    save_film(FIGURES / "planned.webp", frames, episode.outcome_fps)


def imagined_motions() -> Imagined:
    """Simple motions of the hand from one frame, as `dexworld imagine` has them."""
    model = load_world_model("reference")
    drawing = drawing_of(model, AUTO)
    episode = record_exploration(IMAGINED_SCENE, config=ExploreConfig(frames=SEARCHED_FRAMES))
    config = AtomicConfig()
    frame = best_frame(episode, config.hand)
    motions = atomic_motions(episode, frame, config, model.condition)
    return imagine(model, episode, motions, frame, decode=drawing.decode, drawn_by=drawing.by)


def imagined() -> None:
    """imagined.webp: one start frame, and the last frame of each imagined motion, the commanded hand drawn on it."""
    result = imagined_motions()
    panels = [panel(result.start_image, "start")]
    for index, name in enumerate(result.names):
        pixels, shown = result.commanded_px[index, -1], result.in_view[index, -1]
        panels.append(panel(hand_overlay(result.images[index, -1], pixels, shown, scale=1), f"imagined: {name}"))
    grid(panels[:9], columns=3).save(FIGURES / "imagined.webp", quality=80)


def video() -> None:
    """video.webp: what the video model is given (scene, hands), what it makes of them, and the truth."""
    model = load_video_model(VIDEO, "cpu")
    method = Generator(model, GenerateConfig())
    with tempfile.TemporaryDirectory() as folder:
        clips = record_triplets(SyntheticConfig(Path(folder) / "clips", 4, VIDEO_SCENE, "moving", model.config.clip))
        clip = clips[1]
    shown = shown_clip(clip, [method], EvaluateConfig(seed=VIDEO_SCENE, split="validation"))
    videos = [
        (clip.static, "scene"),
        (clip.hands, "hands"),
        (shown.videos[method.name], "imagined"),
        (clip.interaction, "real"),
    ]
    frames = [
        grid([panel(each[index], words, VIDEO_PANEL) for each, words in videos], columns=2)
        for index in range(len(clip.static))
    ]
    save_film(FIGURES / "video.webp", frames, model.config.clip.fps)


def horizon() -> None:
    """horizon.svg: how the error of predictions grows over four seconds, on twelve episodes."""
    model = load_world_model("reference")
    episodes = (record_exploration(HORIZON_SCENE + index) for index in range(HORIZON_EPISODES))
    curves = evaluate_open_loop(model, episodes, OpenLoopConfig(20, 5.0, HORIZON_SCENE))["curves"]
    lines = (
        ("the model", curves["mse_ratio"], "#3b6fd4"),
        ("told another motion", curves["shuffled_mse_ratio"], "#c4572e"),
    )
    x = [20 + 420 * second / 4 for second in curves["seconds"]]
    drawn = [f'<text x="{20 + 105 * second}" y="242" text-anchor="middle">{second} s</text>' for second in range(5)]
    for name, values, colour in lines:
        y = [HEIGHT - HEIGHT * min(value, TOP) / TOP for value in values]
        points = " ".join(f"{u:.1f},{v:.1f}" for u, v in zip(x, y, strict=True))
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="3" points="{points}"/>')
        drawn.append(f'<text x="440" y="{min(y) - 12:.0f}" fill="{colour}" text-anchor="end">{name}</text>')
    level = HEIGHT - HEIGHT / TOP
    drawn.append(f'<path d="M20 {level}H440M20 0V{HEIGHT}H440" fill="none" stroke="#888"/>')
    drawn.append(f'<text x="440" y="{level + 20}" text-anchor="end">copying the first frame</text>')
    head = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 460 250" font-family="system-ui, sans-serif" font-size="17"'
    (FIGURES / "horizon.svg").write_text(f'<svg {head} fill="#777">{"".join(drawn)}</svg>\n', encoding="utf-8")


def save_film(path: Path, frames: list[Image.Image], fps: float) -> None:
    """An animated picture that rests on its last frame for a moment."""
    times = [round(1000 / fps)] * (len(frames) - 1) + [1500]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=60)


DRAWINGS = {"planned": planned, "imagined": imagined, "video": video, "horizon": horizon}

if __name__ == "__main__":
    torch.set_num_threads(1)
    FIGURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or DRAWINGS:
        DRAWINGS[name]()
