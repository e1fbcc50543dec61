import re

import numpy as np
import pytest

from dexworld.data.statistics import linear, logarithmic
from dexworld.report import plots
from dexworld.report.plots import BOTTOM, Series, histogram_plot, interval_plot, line_plot, nice_ticks, rate_bar


def polylines(markup: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline[^>]*points="([^"]*)"', markup)
    return [[tuple(map(float, point.split(","))) for point in points.split()] for points in found]


def test_a_line_goes_through_its_points_in_proportion():
    (points,) = polylines(line_plot([Series("a", [0, 1, 2], [0, 5, 10])], "x", "y"))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y2 < y0  # larger values are further up
    assert all(0 <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT for x, y in points)
    # a missing value breaks the line
    assert [len(run) for run in polylines(line_plot([Series("a", [0, 1, 2, 3], [1, None, 2, 3])], "x", "y"))] == [1, 2]


def test_a_plot_names_lines_once_each_escapes_names_and_draws_bands():
    series = [Series(name, [0, 1], [height, 2]) for name, height in (("<a>", 1), ("b", 2), ("b", 3))]
    markup = line_plot(series, "x", "y")
    assert markup.count("&lt;a&gt;") == 1
    assert markup.count("</i>b<") == 1
    band = line_plot([Series("a", [0, 1], [1, 2], [0.5, 1.5], [1.5, 2.5])], "x", "y")
    (points,) = re.findall(r'<polygon[^>]*points="([^"]*)"', band)
    assert len(points.split()) == 4


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3, 97, [0, 20, 40, 60, 80, 100]), (0.013, 0.019, [0.013, 0.014])],
)
def test_ticks_are_round_and_enclose_the_data(low, high, expected):
    ticks = nice_ticks(low, high)
    assert ticks[: len(expected)] == pytest.approx(expected)
    assert ticks[0] <= low
    assert ticks[-1] >= high - 1e-9


def test_a_constant_has_an_axis_and_nothing_to_draw_is_an_error():
    assert len(nice_ticks(2.0, 2.0)) > 1
    assert polylines(line_plot([Series("a", [0, 1], [2.0, 2.0])], "x", "y"))
    with pytest.raises(ValueError, match="nothing to draw"):
        line_plot([Series("a", [0, 1], [None, None])], "x", "y")
    with pytest.raises(ValueError, match="one length"):
        Series("a", [0, 1], [1.0])


def test_a_bar_shows_rate_interval_and_mark():
    bar = rate_bar("World model", 0.6, (0.5, 0.69), own=True, mark=0.28)
    for part in ("width:60.00%", "left:50.00%;width:19.00%", "left:28.00%", ">60 %<"):
        assert part in bar
    with pytest.raises(ValueError, match="between 0 and 1"):
        rate_bar("percent by mistake", 60.0)


def test_a_distribution_is_drawn_in_percent_between_its_bins():
    histogram = linear(0.0, 4.0, 4)
    histogram.add(np.array([0.5, 1.5, 1.5, 9.0]))
    text = histogram_plot({"one": histogram}, "metres")
    (points,) = re.findall(r'<polyline[^>]*points="([^"]*)"', text)
    heights = [BOTTOM - float(point.split(",")[1]) for point in points.split()]
    assert heights[1] * 2 == pytest.approx(heights[3], abs=0.2)  # 25 and 50 percent
    assert "one: 25 % above 4." in text
    with pytest.raises(ValueError, match="nothing to draw"):
        histogram_plot({"none": linear(0, 1, 2)}, "metres")
    other = linear(0.0, 4.0, 8)
    other.add(np.ones(1))
    with pytest.raises(ValueError, match="different bins"):
        histogram_plot({"one": histogram, "two": other}, "metres")


def test_a_logarithmic_axis_has_powers_of_ten():
    histogram = logarithmic(1e-3, 1e3, 4)
    histogram.add(np.geomspace(2e-3, 5e2, 200))
    text = histogram_plot({"one": histogram}, "m/s", log=True)
    assert all(f">{tick}<" in text for tick in ("0.01", "0.1", "1", "10", "100"))


def test_dots_lie_where_their_values_are_and_zero_is_marked():
    markup = interval_plot({"a": (1.0, 0.0, 2.0), "b": (-1.0, -2.0, 0.0)}, "dB", own=["a"])
    first, second = (float(x) for x in re.findall(r'cx="([\d.]+)"', markup))
    assert first > second
    assert markup.count('class="axis"') == 1
    assert "a: 1.00 (0.00 to 2.00)" in markup


@pytest.mark.parametrize("figures", [{}, {"a": (3.0, 0.0, 2.0)}])
def test_a_plot_of_nothing_or_of_nonsense_is_refused(figures):
    with pytest.raises(ValueError, match=r"nothing to draw|not within"):
        interval_plot(figures, "dB")
