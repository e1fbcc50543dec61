"""Distributions as inline SVG: the share of values in each bin, on a linear or a logarithmic axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from dexworld.data.statistics import Histogram
from dexworld.report.html import Markup, tag
from dexworld.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, axes, legend, nice_ticks, points_text


@dataclass(frozen=True)
class Distribution:
    """One curve. colour: class number 0 to 3 of the style sheet."""

    name: str
    histogram: Histogram
    colour: int = 0


def histogram_plot(curves: Sequence[Distribution], x_label: str, log: bool = False) -> Markup:
    """Percent of all values per bin; values outside the edges are told below the plot.

    Raises ValueError where there are no values, or the histograms have different edges.
    """
    curves = [curve for curve in curves if curve.histogram.count]
    if not curves:
        raise ValueError(f"there is nothing to draw in the distribution of {x_label!r}")
    edges = curves[0].histogram.edges
    if any(not np.array_equal(curve.histogram.edges, edges) for curve in curves):
        raise ValueError(f"the distributions of {x_label!r} have different bins")
    heights = [100 * curve.histogram.counts[1:-1] / curve.histogram.count for curve in curves]
    used = np.flatnonzero(np.sum(heights, axis=0))
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, len(edges) - 1)
    scaled = np.log10(edges) if log else edges
    low, high = float(scaled[first]), float(scaled[last])
    y_ticks = nice_ticks(0.0, float(max(each.max() for each in heights)) or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        position = log10(x) if log else x
        across, up = (position - low) / (high - low or 1), y / y_ticks[-1]
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    x_ticks = _decades(low, high) if log else nice_ticks(low, high, inside=True)
    parts: list[Markup] = [axes(x_ticks or [float(edges[first])], y_ticks, place, x_label, "percent")]
    for curve, height in zip(curves, heights, strict=True):
        corners = [place(float(edges[first]), 0.0)]
        for number in range(first, last):
            value = float(height[number])
            corners += [place(float(edges[number]), value), place(float(edges[number + 1]), value)]
        corners.append(place(float(edges[last]), 0.0))
        parts.append(tag("polygon", class_=f"area s{curve.colour}", points=points_text(corners)))
        parts.append(tag("polyline", class_=f"line s{curve.colour}", points=points_text(corners)))
    picture = tag("svg", *parts, class_="plot", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=x_label)
    names = [Series(curve.name, [0], [0], colour=curve.colour) for curve in curves]
    return tag("div", legend(names), picture, *(_outside(curve) for curve in curves))


def _outside(curve: Distribution) -> Markup | None:
    counts, edges = curve.histogram.counts, curve.histogram.edges
    said = []
    for count, word, edge in ((counts[0], "below", edges[0]), (counts[-1], "above", edges[-1])):
        if count:
            said.append(f"{100 * count / curve.histogram.count:.2g} % {word} {edge:g}")
    return tag("p", f"{curve.name}: {', '.join(said)}.", class_="note") if said else None


def _decades(low: float, high: float) -> list[float]:
    """Round numbers of a logarithmic axis from 10^low to 10^high: powers of ten, with 2 and 5 between few of them."""
    powers = [10.0**power for power in range(floor(low), ceil(high) + 1)]
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [float(f"{power * factor:.3g}") for power in powers for factor in factors]
    return [tick for tick in ticks if low - 1e-9 <= log10(tick) <= high + 1e-9]
