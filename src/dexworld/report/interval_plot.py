"""Figures with their intervals as dots and whiskers on a common scale, one row each."""

from collections.abc import Sequence
from dataclasses import dataclass

from dexworld.report.html import Markup, tag
from dexworld.report.plots import nice_ticks, short, tick_text

WIDTH, ROW, TOP, BOTTOM = 520, 34, 8, 40
LEFT, RIGHT = 168, 16


@dataclass(frozen=True)
class Dot:
    """A figure with its interval. own: it stands out. Raises ValueError where the value isn't within its bounds."""

    name: str
    value: float
    low: float
    high: float
    own: bool = False

    def __post_init__(self) -> None:
        if not self.low - 1e-9 <= self.value <= self.high + 1e-9:
            raise ValueError(f"{self.name}: {self.value} is not within [{self.low}, {self.high}]")


def interval_plot(dots: Sequence[Dot], label: str, zero: bool = True) -> Markup:
    """Rows of dots with whiskers; zero: the scale includes 0 and marks it. Raises ValueError where there are none."""
    if not dots:
        raise ValueError(f"there is nothing to draw in the plot of {label!r}")
    ends = [bound for dot in dots for bound in (dot.low, dot.high)] + ([0.0] if zero else [])
    ticks = nice_ticks(min(ends), max(ends))
    height = TOP + ROW * len(dots) + BOTTOM
    base = height - BOTTOM

    def place(value: float) -> float:
        return LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0] or 1) * (WIDTH - LEFT - RIGHT)

    parts = []
    for tick in ticks:
        x = short(place(tick))
        kind = "axis" if zero and tick == 0 else "rule"
        parts.append(tag("line", class_=kind, x1=x, x2=x, y1=TOP, y2=base))
        parts.append(tag("text", tick_text(tick), x=x, y=base + 16, text_anchor="middle"))
    for number, dot in enumerate(dots):
        y, colour = TOP + ROW * (number + 0.5), "s0" if dot.own else "s2"
        ends_px = {"x1": short(place(dot.low)), "x2": short(place(dot.high))}
        parts.append(tag("text", dot.name, x=LEFT - 10, y=short(y + 4), text_anchor="end"))
        parts.append(tag("line", class_=f"line {colour}", y1=short(y), y2=short(y), **ends_px))
        parts.append(tag("circle", class_=colour, cx=short(place(dot.value)), cy=short(y), r=4.5))
    parts.append(tag("text", label, x=(LEFT + WIDTH - RIGHT) / 2, y=height - 6, text_anchor="middle"))
    told = "; ".join(f"{dot.name}: {dot.value:.2f} ({dot.low:.2f} to {dot.high:.2f})" for dot in dots)
    return tag("svg", *parts, class_="plot", viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=f"{label}. {told}")
