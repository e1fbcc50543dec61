"""A few verbs for writing HTML by hand: everything is escaped unless it is already `Markup`.

A page is one file without any outside resource, so it opens offline, in a mail or years later.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from dexworld.report.style import STYLE


class Markup(str):
    """HTML that is safe to insert as it is."""


def tag(name: str, /, *children: str | Markup | None, **attributes: object) -> Markup:
    """`<name attributes>children</name>`. Children that are not Markup are escaped; None is left out.

    Attribute names lose a trailing underscore and turn others into dashes (`class_`, `aria_label`); True gives a bare
    attribute, None and False leave it out.
    """
    return Markup(f"<{name}{attribute_text(attributes)}>{join(children)}</{name}>")


def void(name: str, /, **attributes: object) -> Markup:
    """An element without content, such as `img` or `source`."""
    return Markup(f"<{name}{attribute_text(attributes)}>")


def attribute_text(attributes: dict[str, object]) -> str:
    """Attributes as they stand inside a tag, each with a leading space."""
    parts = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {name}")
        elif value is not None and value is not False:
            parts.append(f' {name}="{escape(str(value))}"')
    return "".join(parts)


def join(children: Iterable[str | Markup | None]) -> Markup:
    """Children one after the other, escaped where they are plain text."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children if child))


def paragraph(*children: str | Markup, class_: str | None = None) -> Markup:
    """A paragraph."""
    return tag("p", *children, class_=class_)


def section(title: str, *children: str | Markup | None, anchor: str | None = None, lead: str | None = None) -> Markup:
    """A part of the page with its heading and an optional sentence or two that introduce it."""
    opening = paragraph(lead, class_="lead") if lead else None
    return tag("section", tag("h2", title), opening, *children, id=anchor)


def figure(content: Markup, caption: str | Markup) -> Markup:
    """A picture, video or plot with its caption."""
    return tag("figure", content, tag("figcaption", caption))


def details(summary: str | Markup, *children: str | Markup | None) -> Markup:
    """A part that opens on a click."""
    return tag("details", tag("summary", summary), *children)


def table(header: Sequence[str], rows: Iterable[Sequence[str | Markup]], numeric_from: int = 1) -> Markup:
    """A table that scrolls sideways on a narrow screen; columns from `numeric_from` are aligned right."""
    side = [None if index < numeric_from else "numeric" for index in range(len(header))]
    head = tag("tr", *(tag("th", cell, class_=kind, scope="col") for cell, kind in zip(header, side, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, side, strict=True))) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def facts(pairs: Iterable[tuple[str, str | Markup]]) -> Markup:
    """A list of names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")


def tiles(items: Iterable[tuple[str, str]]) -> Markup:
    """A row of large figures, each with a small name under it."""
    cells = (tag("div", tag("strong", value), tag("span", name), class_="tile") for value, name in items)
    return tag("div", *cells, class_="tiles")


def badge(text: str, kind: str) -> Markup:
    """A small coloured label; `kind` is one of good, bad, quiet."""
    return tag("span", text, class_=f"badge {kind}")


def page(title: str, *body: str | Markup | None) -> str:
    """A whole document."""
    head = join(
        [
            void("meta", charset="utf-8"),
            void("meta", name="viewport", content="width=device-width, initial-scale=1"),
            void("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            tag("style", Markup(STYLE)),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{tag("main", *body)}</body></html>\n'


def write_page(path: Path, text: str) -> Path:
    """Write a page as a whole or not at all, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path
