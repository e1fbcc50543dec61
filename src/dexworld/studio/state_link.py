"""A link that restores what a visitor sees: in every view what they chose, packed into the page's address."""

import base64
import binascii
import json
import zlib
from dataclasses import asdict
from typing import Any, NamedTuple

from dexworld.options import from_dict
from dexworld.studio.data_session import DataChoice
from dexworld.studio.hand_control import HandControl
from dexworld.studio.imagination import Path, Recorded, Step
from dexworld.studio.imagine_session import LONGEST_PATH
from dexworld.studio.paint_session import Painting
from dexworld.studio.planner import GoalChoice
from dexworld.studio.start_frame import Start

DIGITS = 4  # of numbers in a link: a tenth of a millimetre
LONGEST_LINK = 20_000  # characters
_FIELDS = ("seed", "folder", "episode", "frame", "hand")
_VIEWS = {"plan": GoalChoice, "data": DataChoice, "painting": Painting}


class Place(NamedTuple):
    """What a link holds. view: the page's, such as `Imagine`.

    plan: with the moves made; data, painting: None where the link doesn't restore that view.
    """

    view: str
    start: Start
    path: Path
    plan: GoalChoice | None = None
    data: DataChoice | None = None
    painting: Painting | None = None


def packed(place: Place) -> str:
    """The place in letters that an address takes. Raises ValueError for a picture of one's own: it stays here."""
    if place.start.pixels or (place.plan is not None and place.plan.pixels):
        raise ValueError("a picture of your own isn't part of a link, which would be too long")
    start = {name: value for name, value in asdict(place.start).items() if name in _FIELDS}
    views = {"data": place.data, "painting": place.painting}
    more = {name: asdict(each) for name, each in views.items() if each is not None}
    more |= {} if place.plan is None else {"plan": _goal(place.plan)}
    content = json.dumps([place.view, start, [_numbers(step) for step in place.path], more], separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(content.encode(), 9)).decode().rstrip("=")


def unpacked(letters: str) -> Place:
    """The place that `packed` wrote. Raises ValueError for anything else."""
    try:
        if len(letters) > LONGEST_LINK:
            raise ValueError("too long")
        whole = base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
        content = (opened := zlib.decompressobj()).decompress(whole, 20 * LONGEST_LINK)
        if not opened.eof:
            raise ValueError("it ends early")
        view, start, path, more = json.loads(content)
        steps = tuple(_step(numbers) for numbers in path[:LONGEST_PATH])
        known = from_dict(Start, {name: start[name] for name in _FIELDS}, "the link")
        views = {name: from_dict(kind, more[name], "the link") for name, kind in _VIEWS.items() if name in more}
        return Place(str(view), known, steps, **views)
    except (ValueError, TypeError, KeyError, zlib.error, binascii.Error) as error:
        raise ValueError(f"this link can't be read ({error}); open the page without it") from error


def _goal(choice: GoalChoice) -> dict[str, Any]:
    values = {name: value for name, value in asdict(choice).items() if name not in ("pixels", "size")}
    return values | {"moves": [[round(each, DIGITS) for each in move] for move in choice.moves]}


def _numbers(step: Step) -> list[Any]:
    if isinstance(step, Recorded):
        return [step.frames]
    return [round(each, DIGITS) for each in (*step.offset, *step.turn, *step.closing)]


def _step(numbers: list[Any]) -> Step:
    if len(numbers) == 1:
        return Recorded(int(numbers[0]))
    told = [float(each) for each in numbers]
    x, y, z, w, i, j, k, *closing = told
    return HandControl((x, y, z), (w, i, j, k), tuple(closing))
