"""Plots as inline SVG and HTML: lines, distributions, dots with whiskers, bars. Colours come from the style sheet."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from dexworld.data.statistics import Histogram
from dexworld.report.html import Markup, box, note, tag

WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 506, 14, 228  # edges of the axes
DOT_LEFT, DOT_RIGHT, DOT_TOP, DOT_ROW = 168, 504, 8, 34
COLOURS = 4  # colour classes of the style sheet
Values = Sequence[float | None] | np.ndarray  # values that don't exist are None or NaN
Place = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # values to pixels


@dataclass(frozen=True)
class Series:
    """One line of a plot: y over x, with an optional band from `low` to `high`.

    colour: class number 0 to 3 of the style sheet. faint: thin and dashed, for a control. filled: with the area between
    the line and its ends. Values that don't exist break the line.
    """

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    colour: int = 0
    faint: bool = False
    filled: bool = False

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if len(lengths) != 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r} needs x, y and both bounds (or none) of one length, not {lengths}")

    @property
    def hue(self) -> str:
        """The style sheet's class of its colour."""
        return f"s{self.colour % COLOURS}"

    def drawn(self, place: Place) -> list[Markup]:
        """The line, in pieces where values don't exist, with its area if it is filled."""
        x, y = np.asarray(self.x, dtype=float), np.asarray(self.y, dtype=float)
        parts = []
        for run in np.split(np.arange(len(y)), np.flatnonzero(~np.isfinite(y))):
            run = run[np.isfinite(y[run])]
            if run.size:
                points = _points_text(place(x[run], y[run]))
                parts += [tag("polygon", class_=f"area {self.hue}", points=points)] if self.filled else []
                kind = f"line {self.hue}" + (" faint" if self.faint else "")
                parts.append(tag("polyline", class_=kind, points=points))
        return parts

    def band(self, place: Place) -> list[Markup]:
        """The area between its bounds, where both exist."""
        if self.low is None:
            return []
        low, high = np.asarray([self.low, self.high], dtype=float)
        kept = np.isfinite(low + high)
        x = np.asarray(self.x, dtype=float)[kept]
        corners = place(np.append(x, x[::-1]), np.append(high[kept], low[kept][::-1]))
        return [tag("polygon", class_=f"area {self.hue}", points=_points_text(corners))]


def line_plot(
    series: Sequence[Series], x_label: str, y_label: str, *, bottom: float | None = None, log: bool = False
) -> Markup:
    """Lines with a legend; ValueError where there is nothing finite to draw.

    bottom: fixes the lower end of the vertical axis. log: the horizontal axis is logarithmic.
    """
    xs = _finite(line.x for line in series)
    ys = _finite(part for line in series for part in (line.y, line.low, line.high) if part is not None)
    if not xs or not ys:
        raise ValueError(f"there is nothing to draw in the plot of {y_label!r} over {x_label!r}")
    low, high = (log10(end) if log else end for end in (min(xs), max(xs)))
    x_ticks = (decades(low, high) if log else nice_ticks(low, high, inside=True)) or [min(xs)]
    y_ticks = nice_ticks(min(ys) if bottom is None else bottom, max(ys))

    def place(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across = ((np.log10(x) if log else x) - low) / (high - low or 1)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0] or 1)
        return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)

    parts = _axes(x_ticks, y_ticks, place, x_label, y_label)
    parts += [part for line in series for part in line.band(place)]
    parts += [part for line in series for part in line.drawn(place)]
    return tag("div", _legend(series), _svg(HEIGHT, f"{y_label} over {x_label}", parts))


def histogram_plot(histograms: Mapping[str, Histogram], x_label: str, log: bool = False) -> Markup:
    """Percent of all values per bin, by name, the last one in the main colour. A note counts values outside the edges.

    Histograms without a value above 0 are left out. Raises ValueError where none is left, or edges differ.
    """
    edges = next(iter(histograms.values())).edges
    if any(not np.array_equal(each.edges, edges) for each in histograms.values()):
        raise ValueError(f"the distributions of {x_label!r} have different bins")
    filled = {name: each for name, each in histograms.items() if each.count and each.high > 0}
    percents = {name: 100 * each.counts / each.count for name, each in filled.items()}
    if not percents:
        raise ValueError(f"there is nothing to draw in the distribution of {x_label!r}")
    used = np.flatnonzero(np.sum(list(percents.values()), axis=0)[1:-1])
    first, last = (used[0], used[-1] + 1) if used.size else (0, len(edges) - 1)
    corners = np.repeat(edges[first : last + 1], 2)
    lines, notes = [], []
    for name, (below, *inside, above) in percents.items():
        colour = len(histograms) - 1 - list(histograms).index(name)
        steps = np.pad(np.repeat(inside[first:last], 2), 1)
        lines.append(Series(name, corners, steps, colour=colour, filled=True))
        outside = [f"{below:.2g} % below {edges[0]:g}"] if below else []
        outside += [f"{above:.2g} % above {edges[-1]:g}"] if above else []
        notes += [f"{name}: {', '.join(outside)}."] if outside else []
    return tag("div", line_plot(lines, x_label, "percent", bottom=0.0, log=log), *map(note, notes))


def interval_plot(figures: Mapping[str, tuple[float, float, float]], label: str, own: Container[str] = ()) -> Markup:
    """Rows of dots with whiskers, of (value, low, high) by name; the names in `own` stand out.

    Raises ValueError where there are no figures, or a value isn't within its bounds.
    """
    if not figures:
        raise ValueError(f"there is nothing to draw in the plot of {label!r}")
    for name, (value, low, high) in figures.items():
        if not low - 1e-9 <= value <= high + 1e-9:
            raise ValueError(f"{name}: {value} is not within [{low}, {high}]")
    ends = [0.0, *(bound for _, *bounds in figures.values() for bound in bounds)]
    ticks = nice_ticks(min(ends), max(ends))
    base = DOT_TOP + DOT_ROW * len(figures)

    def place(value: float) -> str:
        return f"{DOT_LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0] or 1) * (DOT_RIGHT - DOT_LEFT):.1f}"

    parts = []
    for tick in ticks:
        x, kind = place(tick), "axis" if tick == 0 else "rule"
        parts += [tag("line", class_=kind, x1=x, x2=x, y1=DOT_TOP, y2=base), _text(f"{tick:g}", x, base + 16)]
    for number, (name, (value, low, high)) in enumerate(figures.items()):
        y, hue = DOT_TOP + DOT_ROW * (number + 0.5), "s0" if name in own else "s2"
        parts.append(_text(name, DOT_LEFT - 10, y + 4, "end"))
        parts.append(tag("line", class_=f"line {hue}", y1=y, y2=y, x1=place(low), x2=place(high)))
        parts.append(tag("circle", class_=hue, cx=place(value), cy=y, r=4.5))
    parts.append(_text(label, (DOT_LEFT + DOT_RIGHT) / 2, base + 34))
    spoken = "; ".join(f"{name}: {value:.2f} ({low:.2f} to {high:.2f})" for name, (value, low, high) in figures.items())
    return _svg(base + 40, f"{label}. {spoken}", parts)


def rate_bar(
    name: str, value: float, interval: Sequence[float] = (), *, own: bool = False, mark: float | None = None
) -> Markup:
    """A bar of a rate 0 to 1 with its interval; `own` stands out, `mark` is a dashed line to compare with."""
    for number in (value, *interval, mark or 0.0):
        if not 0 <= number <= 1:
            raise ValueError(f"{name}: a rate lies between 0 and 1, not {number}")
    parts = [box("fill", style=f"width:{100 * value:.2f}%")]
    if interval:
        low, high = interval
        parts.append(box("whisker", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"))
    if mark is not None:
        parts.append(box("mark", style=f"left:{100 * mark:.2f}%"))
    percent = tag("span", f"{100 * value:.0f} %", class_="value")
    return box("bar own" if own else "bar", tag("span", name, class_="name"), box("track", *parts), percent)


def _svg(height: int, label: str, parts: Iterable[Markup]) -> Markup:
    return tag("svg", *parts, class_="plot", viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label)


def _text(content: str, x: object, y: object, anchor: str = "middle", **attributes: object) -> Markup:
    return tag("text", content, x=x, y=y, text_anchor=anchor, **attributes)


def _axes(x_ticks: list[float], y_ticks: list[float], place: Place, x_label: str, y_label: str) -> list[Markup]:
    parts = []
    for tick, y in zip(y_ticks, place(np.array(x_ticks[:1]), np.array(y_ticks))[1], strict=True):
        parts.append(tag("line", class_="rule", x1=LEFT, x2=RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}"))
        parts.append(_text(f"{tick:g}", LEFT - 8, f"{y + 4:.1f}", "end"))
    for tick, x in zip(x_ticks, place(np.array(x_ticks), np.array(y_ticks[:1]))[0], strict=True):
        parts.append(_text(f"{tick:g}", f"{x:.1f}", BOTTOM + 17))
    parts.append(tag("line", class_="axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM))
    parts.append(_text(x_label, (LEFT + RIGHT) / 2, HEIGHT - 7))
    middle = (TOP + BOTTOM) / 2
    return [*parts, _text(y_label, 13, middle, transform=f"rotate(-90 13 {middle})")]


def _legend(series: Sequence[Series]) -> Markup | None:
    named = {line.name: line for line in reversed(series) if line.name}
    if len(named) < 2:
        return None
    kinds = {name: line.hue + (" faint" if line.faint else "") for name, line in reversed(named.items())}
    return box("legend", *(tag("span", tag("i", class_=kind), name) for name, kind in kinds.items()))


def _finite(columns: Iterable[Values]) -> list[float]:
    values = np.concatenate([np.asarray(column, dtype=float) for column in columns])
    return values[np.isfinite(values)].tolist()


def nice_ticks(low: float, high: float, inside: bool = False) -> list[float]:
    """About five round numbers that enclose [low, high], or lie inside it."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / 5
    size = 10.0 ** floor(log10(raw))
    step = min((factor * size for factor in (1, 2, 5, 10)), key=lambda candidate: abs(candidate - raw))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    if inside:
        first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [float(np.round(index * step, 12)) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Round numbers of a logarithmic axis from 10^low to 10^high: powers of ten, with 2 and 5 between few of them."""
    powers = [10.0**power for power in range(floor(low), ceil(high) + 1)]
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [float(f"{power * factor:.3g}") for power in powers for factor in factors]
    return [tick for tick in ticks if low - 1e-9 <= log10(tick) <= high + 1e-9]


def _points_text(points: tuple[np.ndarray, np.ndarray]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(*points, strict=True))
