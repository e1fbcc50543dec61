"""HTML, the skeleton of a page, and numbers as text. A page is one file that loads nothing, so it opens offline."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from dexworld.writing import write_text

ASSETS = files("dexworld") / "assets" / "page"
VOID = {"meta", "img", "source", "br", "input"}  # elements without content
MOST_COLUMNS = 8  # of a table within the text column
FOOTER = "Made by dexworld. This page holds everything it shows and loads nothing from elsewhere."


class Markup(str):
    """HTML that is safe to insert as it is."""


def tag(name: str, /, *children: str | Markup | None, **attributes: object) -> Markup:
    """`<name attributes>children</name>`. Children that are not Markup are escaped; None is left out.

    Attribute names lose a trailing underscore and turn others into dashes (`class_`, `aria_label`). True gives a bare
    attribute. None and False leave it out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None and value is not False:
            parts.append(f" {key.rstrip('_').replace('_', '-')}")
            parts.append("" if value is True else f'="{escape(str(value))}"')
    return Markup("".join(parts) + ">" + ("" if name in VOID else f"{join(children)}</{name}>"))


def join(children: Iterable[str | Markup | None]) -> Markup:
    """Children one after the other, escaped where they are plain text."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children if child))


def box(class_: str, *children: str | Markup | None, **attributes: object) -> Markup:
    """A `div` of a class of the style sheet."""
    return tag("div", *children, class_=class_, **attributes)


def note(*children: str | Markup) -> Markup:
    """A paragraph in small, soft print; nothing without text."""
    return tag("p", *children, class_="note") if any(children) else Markup()


def section(title: str, *children: str | Markup | None, anchor: str | None = None, lead: str | None = None) -> Markup:
    """A part of the page with its heading and an optional sentence or two that introduce it."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else None, *children, id=anchor)


def figure(content: Markup, caption: str | Markup) -> Markup:
    """A picture, video or plot with its caption."""
    return tag("figure", content, tag("figcaption", caption))


def details(summary: str, *children: str | Markup | None) -> Markup:
    """A part that opens on a click."""
    return tag("details", tag("summary", summary), *children)


def table(header: Sequence[str], rows: Iterable[Sequence[str | Markup]], numeric_from: int = 1) -> Markup:
    """A table that scrolls sideways on a narrow screen; columns from `numeric_from` are aligned right.

    One of more than `MOST_COLUMNS` may be wider than the text around it.
    """

    def row(kind: str, cells: Sequence[str | Markup], **attributes: object) -> Markup:
        sides = ["numeric" if index >= numeric_from else None for index in range(len(header))]
        return tag("tr", *(tag(kind, cell, class_=side, **attributes) for cell, side in zip(cells, sides, strict=True)))

    head, body = tag("thead", row("th", header, scope="col")), tag("tbody", *(row("td", cells) for cells in rows))
    return box("scroll wide" if len(header) > MOST_COLUMNS else "scroll", tag("table", head, body))


def facts(pairs: Iterable[tuple[str, str | Markup]]) -> Markup:
    """A list of names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")


def badge(text: str, kind: str) -> Markup:
    """A small coloured label; `kind` is one of good, bad, quiet."""
    return tag("span", text, class_=f"badge {kind}")


def card(title: str, verdict: Markup | None, *parts: Markup | None, aside: str | None = None) -> Markup:
    """An episode, clip or scene in a frame. verdict: a badge behind its title. aside: a note at the right end."""
    head = box("head", tag("h3", title), verdict, tag("span", aside, class_="note") if aside else None)
    return tag("article", head, *parts, class_="card")


def opening(
    title: str, lead: str, figures: Iterable[tuple[str, str]] = (), notices: Iterable[str] = (), above: str = ""
) -> Markup:
    """The top of a page. figures: (value, what it is), shown large. notices, above: notes below and above the lead."""
    tiles = [box("tile", tag("strong", value), tag("span", name)) for value, name in figures]
    parts = [note(above), tag("p", lead, class_="lead"), box("tiles", *tiles) if tiles else None, *map(note, notices)]
    return tag("header", tag("h1", title), *parts)


def how_it_works(steps: Iterable[tuple[str, str]]) -> Markup:
    """Numbered steps (title, text) in plain words."""
    boxes = [
        tag("div", tag("h3", tag("span", str(number), class_="disc"), title), tag("p", text))
        for number, (title, text) in enumerate(steps, start=1)
    ]
    return section("How it works", box("steps", *boxes))


def under_the_bonnet(groups: Mapping[str, Mapping[str, str]], command: str = "") -> Markup | None:
    """Facts by heading, and the command; None where nothing is known."""
    parts = [part for title, pairs in groups.items() if pairs for part in (tag("h4", title), facts(pairs.items()))]
    parts += [tag("h4", "Run it again"), tag("p", tag("code", command))] if command else []
    return section("Under the bonnet", box("card", *parts)) if parts else None


def write_page(path: Path, title: str, *body: str | Markup | None, footer: str = FOOTER) -> Path:
    """Write a whole document, or leave the old one, and return its path."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup((ASSETS / "style.css").read_text("utf-8"))),
    ]
    main = tag("main", *body, tag("footer", footer))
    used = [name for name in ("films", "pixels") if f" data-{name}" in main]
    scripts = [tag("script", Markup((ASSETS / f"{name}.js").read_text("utf-8"))) for name in used]
    html = tag("html", tag("head", *head), tag("body", main, *scripts), lang="en")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"<!doctype html>\n{html}\n")
    return path


def is_number(value: Any) -> bool:
    """Whether a figure was measured; others are None, or a text that says why not."""
    return isinstance(value, int | float)


def number(value: Any, form: str) -> str:
    """A number as text, and what is no number as a dash."""
    return format(value, form).replace("-", "−") if is_number(value) else "–"


def bounds(figures: Mapping[str, Any], key: str) -> tuple[Any, Any, Any]:
    """A figure with its interval, which stands beside it as `<key>_low` and `<key>_high`."""
    return figures.get(key), figures.get(f"{key}_low"), figures.get(f"{key}_high")


def with_interval(figure: Iterable[Any], form: str, unit: str = "") -> tuple[str, str]:
    """A figure and its interval as two texts: "0.32" and "0.30 to 0.34"."""
    value, low, high = figure
    return number(value, form) + unit, f"{number(low, form)} to {number(high, form)}{unit}"


def duration(seconds: float) -> str:
    """Seconds; minutes and seconds from 90 s on; hours from 90 minutes on."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{seconds / 3600:,.1f} h"
