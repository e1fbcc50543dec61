"""What the view *Data* draws as HTML that needs no file: which hand is seen when, histograms, what is broken."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dexworld.data.episode_figures import FINDINGS
from dexworld.data.statistics import QUANTITIES, Figures, Spread
from dexworld.report.media import encode_jpeg
from dexworld.studio.dataset_reader import UNSEEN

STATES = ("not tracked", "partly tracked", "out of the picture", "in the picture")
STATE_COLOURS = np.array([(120, 124, 140), (214, 69, 65), (240, 170, 60), (47, 158, 107)], np.uint8)
STRIP = (2, 300)  # rows a hand, and columns at most
SAME = 1e-3  # share by which values must differ to be drawn apart
BINS, MOST = 24, 32  # of a histogram, and histograms of recorded actions
FRAMED = 'style="padding:0 0.75em 0.5em"'
_WIDE, _HIGH = 300, 46
_OWN, _WHOLE = "#4678dc", "#8a94a6"


def hands_strip(hands: np.ndarray, frame: int) -> str:
    """Which hand is seen when, of states (T, 2), with a mark at a frame."""
    columns = np.linspace(0, len(hands) - 1, min(len(hands), STRIP[1])).astype(int)
    rows = STATE_COLOURS[hands[columns].T].repeat(STRIP[0], axis=0).repeat(4, axis=0)
    source = base64.b64encode(encode_jpeg(rows.repeat(max(1, STRIP[1] // len(columns)), axis=1))).decode()
    image = f'<img alt="Left and right hand over time" src="data:image/jpeg;base64,{source}"'
    image += ' style="width:100%;height:22px;display:block;image-rendering:pixelated">'
    at = 100 * frame / max(1, len(hands) - 1)
    mark = f'<div style="position:absolute;top:-2px;bottom:-2px;left:{at:.1f}%;width:2px;background:#4678dc"></div>'
    known = sorted({int(each) for each in np.unique(hands)} | {UNSEEN})
    legend = " ".join(_square(STATE_COLOURS[state], STATES[state]) for state in known)
    strip = f'<div style="position:relative">{image}{mark}</div>'
    return f"<div {FRAMED}><small>Left hand, then right: {legend}</small>{strip}</div>"


def histograms(whole: Figures | None, own: Figures | None) -> str:
    """Speeds, lengths and recorded actions: of the dataset in grey, of the episode in blue."""
    both = [each for each in (whole, own) if each is not None]
    keys: list[Any] = [name for name in QUANTITIES if any(name in each.spreads for each in both)]
    widths = sorted({width for each in both for width in each.tallies["actions"]})
    keys += [(width, dimension) for width in widths for dimension in range(min(width, MOST))]
    drawn = ""
    for key in keys:
        words = QUANTITIES[key][0] if isinstance(key, str) else f"recorded action, dimension {key[1]} of {key[0]}"
        drawn += histogram(words, *(None if each is None else each.spreads.get(key) for each in (whole, own)))
    left_out = sum(max(0, width - MOST) for width in widths)
    more = f"<small>and {left_out} dimensions more: see `dexworld inspect`</small>" if left_out else ""
    lead = f"{_square((138, 148, 166), 'the dataset')} {_square((70, 120, 220), 'this episode')}"
    return f"<div {FRAMED}><small>{lead}</small>{drawn}{more}</div>" if drawn else ""


def histogram(words: str, whole: Spread | None, own: Spread | None) -> str:
    """How often which values occur, each of the two against its own most frequent one; nothing without values."""
    kept = [(each, colour) for each, colour in ((whole, _WHOLE), (own, _OWN)) if each is not None and each.counts.sum()]
    if not kept:
        return ""
    figures = [each.to_json() for each, _ in kept]
    low, high = min(each["p01"] for each in figures), max(each["p99"] for each in figures)
    if high - low < SAME * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    drawn = "".join(_columns(shares(spread, low, high), colour) for spread, colour in kept)
    told = figures[-1]
    said = html.escape(f"{words}: {low:.3g} to {high:.3g}, mean {told['mean']:.3g}, std {told['std']:.3g}")
    frame = f'viewBox="0 0 {_WIDE} {_HIGH}" style="width:100%;display:block" role="img" aria-label="{said}"'
    return f"<div><small>{said}</small><svg {frame}>{drawn}</svg></div>"


def shares(spread: Spread, low: float, high: float) -> np.ndarray:
    """Of a spread's values, the share in each of `BINS` equal bins from low to high; finer than its own it can't be."""
    bounds = np.concatenate([[spread.low], spread.edges.clip(spread.low, spread.high), [spread.high]])
    below = np.concatenate([[0], np.cumsum(spread.counts)])
    counted = np.interp(np.linspace(low, high, BINS + 1), bounds, below, left=0.0, right=below[-1])
    return np.diff(counted) / max(1, below[-1])


def findings_list(row: dict[str, Any] | None) -> str:
    """What is broken in an episode, or looks wrong, why, and what to do; of its row, None while it isn't read."""
    if row is None:
        return f"<div {FRAMED}><small>Not read yet.</small></div>"
    if "broken" in row:
        where = f"It can't be used: reading its {row['broken']} fails." if row["broken"] != "opening" else ""
        return f"<div {FRAMED}><b>Broken.</b> {where} {html.escape(row['reason'])}</div>"
    if not row["findings"]:
        return f"<div {FRAMED}><small>Nothing is broken, and nothing looks wrong.</small></div>"
    parts = []
    for finding in row["findings"]:
        title, advice = FINDINGS[finding["kind"]]
        place = "" if finding["frame"] is None else f" From frame {finding['frame']}."
        parts.append(f"<li><b>{title}</b>: {html.escape(finding['message'])}.{place} {advice}</li>")
    return f'<div {FRAMED}><ul style="margin:0;padding-left:1.2em">{"".join(parts)}</ul></div>'


def tables(listings: Iterable[Any], rows: int) -> str:
    """Tables of `report.inspection_page.listings`, without empty ones."""
    found = [_table(each.title, each.head, each.rows, rows) for each in listings if each.rows]
    return f"<div {FRAMED}>{''.join(found)}</div>"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> str:
    cells = "".join(f"<th style='text-align:left;padding-right:0.6em'>{html.escape(each)}</th>" for each in head)
    lines = [f"<tr>{cells}</tr>"] if head else []
    for row in rows[:most]:
        inner = "".join(f"<td style='padding-right:0.6em;vertical-align:top'>{html.escape(each)}</td>" for each in row)
        lines.append(f"<tr>{inner}</tr>")
    more = f"<small>and {len(rows) - most:,} more: see `dexworld inspect`</small>" if len(rows) > most else ""
    style = "font-size:0.8em;overflow-wrap:anywhere;border-collapse:collapse"
    return f'<b>{html.escape(title)}</b><table style="{style}">{"".join(lines)}</table>{more}'


def _columns(values: np.ndarray, colour: str) -> str:
    step, most = _WIDE / len(values), max(float(values.max()), 1e-12)
    rects = []
    for number, value in enumerate(values):
        height = (_HIGH - 2) * value / most
        place = f'x="{number * step:.1f}" y="{_HIGH - height:.1f}" width="{step - 1:.1f}" height="{height:.1f}"'
        rects.append(f"<rect {place}/>")
    return f'<g fill="{colour}" opacity="0.65">{"".join(rects)}</g>'


def _square(colour: Iterable[int], words: str) -> str:
    r, g, b = (int(each) for each in colour)
    return f'<span style="white-space:nowrap"><span style="color:rgb({r},{g},{b})">■</span> {words}</span>'
