"""Markdown pages of every command and every option, out of the command line's own parsers."""

import argparse
import re
import warnings
from collections.abc import Iterable
from importlib import import_module

import tyro

from api_pages import escaped, prose
from dexworld import cli


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb, as `dexworld VERB` makes it."""
    module, name, _ = cli.VERBS[verb]
    command = getattr(import_module(f"dexworld.cli.{module}"), name)
    conventions = tuple(getattr(tyro.conf, each) for each in cli.CONVENTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of get_parser, which has no successor in tyro 1
        return tyro.extras.get_parser(command, prog=f"dexworld {verb}", config=conventions)


def _commands(action: argparse.Action) -> dict[str, argparse.ArgumentParser]:
    return action.choices if isinstance(action.choices, dict) else {}


def option_rows(actions: list[argparse.Action]) -> list[str]:
    """The rows of a table: option, what it takes, default, what it means."""
    rows = []
    for action in actions:
        help_text = " ".join(str(action.help or "").split())
        default = re.search(r"\(default: (.*)\)$|\((required)\)$", help_text)
        meaning = help_text[: default.start()].strip() if default else help_text
        value = (default[1] or default[2] or "") if default else ""
        takes = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
        name = ", ".join(f"`{each}`" for each in action.option_strings) or f"`{takes}`"
        cells = (name, _code(takes), f"**{value}**" if value == "required" else _code(value), escaped(meaning))
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _code(text: str) -> str:
    """Inline code in a table's cell; long lists of choices may break after each."""
    text = text.replace("|", "\\|")
    return f"`{text}`" if text else ""


def parser_page(parser: argparse.ArgumentParser, heading: str, level: int) -> str:
    """A parser: what it does, its options by group, and what comes behind them."""
    parts = [f"{'#' * level} {heading}", prose(parser.description or "")]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help" and not _commands(action)]
        if not actions:
            continue
        if group.title not in ("options", "positional arguments"):
            parts += [f"**{str(group.title).capitalize()}**", prose(group.description)]
        table = ["| Option | Takes | Default | Meaning |", "|---|---|---|---|", *option_rows(actions)]
        parts.append("\n".join(table))
    for action in parser._actions:
        for word, inner in _commands(action).items():
            parts.append(parser_page(inner, f"{heading} … {word}", level + 1))
    return "\n\n".join(part for part in parts if part)


def command_pages(verbs: Iterable[str] = cli.VERBS) -> dict[str, str]:
    """Markdown by the first word of the verbs, and `index`, a table of them."""
    rows, pages = [], {}
    for verb in verbs:
        word, what = verb.split()[0], cli.VERBS[verb][2]
        anchor = re.sub(r"[^\w\- ]", "", f"dexworld {verb}").replace(" ", "-")
        rows.append(f"| [`dexworld {verb}`]({word}.md#{anchor}) | {what} |")
        page = parser_page(parser_of(verb), f"dexworld {verb}", 2)
        pages[word] = "\n\n".join([pages.get(word, f"# {word}"), page])
    head = (
        "# Every command\n\nThese pages are made from the command line's own parser.\n\n| Command | Does |\n|---|---|\n"
    )
    return {"index": head + "\n".join(rows) + "\n", **{word: text + "\n" for word, text in pages.items()}}
