"""Videos of one clip side by side: they start together, stay together, and play only while they are seen."""

from collections.abc import Iterable

import numpy as np

from dexworld.report.html import Markup, badge, figure, tag, void
from dexworld.report.video import video_tag

OUTLINE = (255, 196, 0)
DIMMED = 0.3  # brightness outside the region

FILM_STYLE = Markup("""
.films {
  display: grid; grid-template-columns: repeat(var(--columns, 4), minmax(0, 1fr)); gap: 14px 12px; margin: 14px 0 4px;
}
.films.few { max-width: 760px; }
.films figcaption { margin-top: .3em; }
.films figcaption b { color: var(--ink); font-weight: 600; }
.films .own video { outline: 3px solid var(--accent); outline-offset: -1px; }
.films .right video { outline: 3px solid var(--good); outline-offset: -1px; }
.films .badge { margin-left: .4em; }
.scrub { display: flex; gap: 10px; align-items: center; margin: 6px 0 2px; }
.scrub input { flex: 1; max-width: 420px; accent-color: var(--accent); height: 26px; margin: 0; }
.scrub button {
  font: inherit; font-size: .86rem; color: var(--ink); background: var(--wash); border: 1px solid var(--line);
  border-radius: 8px; padding: .2em .9em; min-width: 5em; cursor: pointer;
}
td small { display: block; color: var(--soft); font-size: .8em; line-height: 1.2; }
td b { color: var(--accent); }
td:first-child { min-width: 8.5em; }
.plot circle.s0 { fill: var(--accent); }
.plot circle.s2 { fill: var(--grey); }
.wide .bar { grid-template-columns: 18em 1fr 3.4em; }
@media (max-width: 640px) {
  .wide .bar { grid-template-columns: 9em 1fr 3.6em; }
  .films { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px 8px; }
}
""")

# Without the script the videos still play by themselves; with it they keep step and rest while out of sight.
FILM_SCRIPT = Markup("""
for (const group of document.querySelectorAll("[data-films]")) {
  const films = [...group.querySelectorAll("video")], lead = films[0];
  const slider = group.querySelector("input"), button = group.querySelector("button");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let wanted = !still, seen = false;
  const say = () => { button.textContent = wanted ? "Pause" : "Play"; };
  const align = () => { for (const film of films) film.currentTime = lead.currentTime; };
  const update = () => {
    for (const film of films) wanted && seen && film.offsetParent ? film.play().catch(() => {}) : film.pause();
    say();
  };
  button.onclick = () => { wanted = !wanted; if (wanted) align(); update(); };
  slider.oninput = () => {
    wanted = false; update();
    for (const film of films) if (film.duration) film.currentTime = slider.value * (film.duration - 0.01);
  };
  lead.addEventListener("timeupdate", () => {
    if (!wanted || !lead.duration) return;
    slider.value = lead.currentTime / lead.duration;
    for (const film of films) {
      const apart = Math.abs(film.currentTime - lead.currentTime);
      if (apart > 0.13 && apart < lead.duration - 0.4) film.currentTime = lead.currentTime;
    }
  });
  for (const fold of group.querySelectorAll("details")) fold.ontoggle = () => { align(); update(); };
  new IntersectionObserver(([entry]) => { seen = entry.isIntersecting; update(); }).observe(group);
  say();
}
""")


def film(
    frames: np.ndarray,
    fps: float,
    name: str,
    note: str | None = None,
    *,
    own: bool = False,
    mark: tuple[str, str] | None = None,
    right: bool = False,
) -> Markup:
    """A video (F, H, W, 3) uint8 with its name and a note below.

    own: it stands out as the model's. right: it stands out as the right answer. mark: text and kind of a badge.
    """
    caption = [tag("b", name), badge(*mark) if mark else None, void("br") if note else None, note]
    content = figure(video_tag(frames, fps, name), tag("span", *caption))
    return tag("div", content, class_="right" if right else "own" if own else None)


def films(videos: Iterable[Markup], *below: Markup | None, columns: int = 4) -> Markup:
    """Videos that play in step, in rows of `columns` (two on a phone), a slider, and what else keeps step with them."""
    grid = tag("div", *videos, class_="films", style=f"--columns:{columns}")
    slider = void("input", type="range", min=0, max=1, step=0.001, value=0, aria_label="Position in the videos")
    control = tag("div", tag("button", "Pause", type="button"), slider, class_="scrub")
    return tag("div", grid, control, *below, data_films=True)


def film_style() -> Markup:
    """The style sheet of this file's parts; once on a page."""
    return tag("style", FILM_STYLE)


def film_script() -> Markup:
    """What keeps the videos in step; once, at the end of a page."""
    return tag("script", FILM_SCRIPT)


def region_overlay(video: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A video (F, H, W, 3) uint8 that is dark outside a region (F, H, W) bool, with a line around it."""
    dark = (video * DIMMED).astype(np.uint8)
    shown = np.where(region[..., None], video, dark)
    padded = np.pad(region, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    shown[region & ~inner] = OUTLINE
    return shown
