"""Plots as inline SVG and HTML: no plotting library, and colours that follow the page into dark mode."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

import numpy as np

from dexworld.report.html import Markup, join, tag

WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 42
COLOURS = 4  # colour classes of the style sheet


@dataclass(frozen=True)
class Series:
    """One line of a plot: y over x, with an optional band from `low` to `high`.

    colour: class number 0 to 3 of the style sheet. faint: thin and dashed, for a control. Values that don't exist
    (None or NaN) break the line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    colour: int = 0
    faint: bool = False

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if len(lengths) != 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r} needs x, y and both bounds (or none) of one length, not {lengths}")

    @property
    def classes(self) -> str:
        """The style sheet's classes of this line."""
        return f"s{self.colour % COLOURS}" + (" faint" if self.faint else "")


def line_plot(
    series: Sequence[Series], x_label: str, y_label: str, *, bottom: float | None = None, label: str | None = None
) -> Markup:
    """Lines with a legend. `bottom` fixes the lower end of the vertical axis; `label` is read out instead of the
    picture.

    Raises ValueError where there is nothing finite to draw.
    """
    xs = values_of(*(line.x for line in series))
    ys = values_of(*(part for line in series for part in (line.y, line.low, line.high) if part is not None))
    if not xs or not ys:
        raise ValueError(f"there is nothing to draw in the plot of {y_label!r} over {x_label!r}")
    y_ticks = nice_ticks(min(ys) if bottom is None else bottom, max(ys))
    x_ticks = nice_ticks(min(xs), max(xs), inside=True)
    x_range, y_range = (min(xs), max(xs)), (y_ticks[0], y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0] or 1)
        up = (y - y_range[0]) / (y_range[1] - y_range[0] or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [axes(x_ticks, y_ticks, place, x_label, y_label)]
    parts += [band(line, place) for line in series if line.low is not None]
    parts += [
        tag("polyline", class_=f"line {line.classes}", points=points_text([place(*point) for point in run]))
        for line in series
        for run in finite_runs(line.x, line.y)
    ]
    picture = tag(
        "svg",
        *parts,
        class_="plot",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label or f"{y_label} over {x_label}",
    )
    return tag("div", legend(series), picture)


def axes(x_ticks: list[float], y_ticks: list[float], place, x_label: str, y_label: str) -> Markup:
    """Rules, tick labels and axis names."""
    floor_y = HEIGHT - BOTTOM
    parts = []
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(tag("line", class_="rule", x1=LEFT, x2=WIDTH - RIGHT, y1=short(y), y2=short(y)))
        parts.append(tag("text", tick_text(tick), x=LEFT - 8, y=short(y + 4), text_anchor="end"))
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(tag("text", tick_text(tick), x=short(x), y=floor_y + 17, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=floor_y, y2=floor_y))
    middle = (TOP + floor_y) / 2
    parts.append(tag("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 7, text_anchor="middle"))
    turned = f"rotate(-90 13 {short(middle)})"
    parts.append(tag("text", y_label, x=13, y=short(middle), text_anchor="middle", transform=turned))
    return join(parts)


def band(line: Series, place) -> Markup:
    """The area between a line's bounds, where both exist."""
    rows = [
        (x, low, high)
        for x, low, high in zip(line.x, line.low or (), line.high or (), strict=True)
        if exists(low, high)
    ]
    corners = [place(x, high) for x, _, high in rows] + [place(x, low) for x, low, _ in reversed(rows)]
    return tag("polygon", class_=f"area s{line.colour % COLOURS}", points=points_text(corners))


def legend(series: Sequence[Series]) -> Markup | None:
    """Names and colours of the lines; a name that repeats stands once, and a single line needs none."""
    named = {line.name: line for line in reversed(series) if line.name}
    if len(named) < 2:
        return None
    entries = (tag("span", tag("i", class_=line.classes), line.name) for line in reversed(named.values()))
    return tag("div", *entries, class_="legend")


def rate_bar(
    name: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    own: bool = False,
    mark: float | None = None,
) -> Markup:
    """A bar of a rate 0 to 1 with its interval; `own` stands out, `mark` is a dashed line to compare with."""
    for number in (value, low, high, mark):
        if number is not None and not 0 <= number <= 1:
            raise ValueError(f"{name}: a rate lies between 0 and 1, not {number}")
    parts = [tag("div", class_="fill", style=f"width:{percent(value)}")]
    if low is not None and high is not None:
        parts.append(tag("div", class_="whisker", style=f"left:{percent(low)};width:{percent(high - low)}"))
    if mark is not None:
        parts.append(tag("div", class_="mark", style=f"left:{percent(mark)}"))
    return tag(
        "div",
        tag("span", name, class_="name"),
        tag("div", *parts, class_="track"),
        tag("span", f"{100 * value:.0f} %", class_="value"),
        class_="bar own" if own else "bar",
    )


def percent(rate: float) -> str:
    """A rate as a CSS length."""
    return f"{100 * rate:.2f}%"


def values_of(*columns: Sequence[float | None]) -> list[float]:
    """All finite values of some columns."""
    return [float(value) for column in columns for value in column if value is not None and isfinite(value)]


def exists(*values: float | None) -> bool:
    """Whether all values are finite numbers."""
    return all(value is not None and isfinite(value) for value in values)


def finite_runs(x: Sequence[float], y: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Stretches of (x, y) without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(x, y, strict=True):
        if b is None or not isfinite(b):
            runs.append([])
        else:
            runs[-1].append((float(a), float(b)))
    return [run for run in runs if run]


def nice_ticks(low: float, high: float, inside: bool = False, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers that enclose [low, high], or lie inside it."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / wanted
    size = 10.0 ** floor(log10(raw))
    step = min((factor * size for factor in (1, 2, 5, 10)), key=lambda candidate: abs(candidate - raw))
    first, last = (ceil(low / step - 1e-9), floor(high / step + 1e-9)) if inside else (
        floor(low / step + 1e-9), ceil(high / step - 1e-9))  # fmt: skip
    return [float(np.round(index * step, 12)) for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's number without trailing zeros."""
    return f"{value:g}"


def points_text(points: Sequence[tuple[float, float]]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{short(x)},{short(y)}" for x, y in points)


def short(value: float) -> str:
    """A coordinate with one decimal."""
    return f"{value:.1f}"
