"""One visitor's planning: a goal, the search for the next move, and what the simulator does with it.

It computes nothing itself: it asks the search's desk, one request at a time, and tells `changed` when something came.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from dexworld.studio.desk import Desk
from dexworld.studio.planner import GoalChoice, Pixel, PlanScene
from dexworld.studio.search_watch import SearchNews


class PlanSession:
    """See the module. visitor: a number that no other one has. Every method returns at once, from any thread.

    scene: how it stands; news: the last population or plan; history: (best cost, spread in metres) of every population
    of this move. going: whether it plans and moves on by itself.
    """

    def __init__(self, desk: Desk, visitor: int, changed: Callable[[], None]) -> None:
        self._desk, self._visitor, self._changed, self._lock = desk, visitor, changed, threading.RLock()
        self._asked: Future[Any] | None = None
        self._wants: list[tuple[str, tuple[Any, ...]]] = []
        self.choice, self.problem = GoalChoice(), ""
        self.scene: PlanScene | None = None
        self.news: SearchNews | None = None
        self.history: list[tuple[float, float]] = []
        self.going = self.closed = self.searching = False
        self._moves = 0
        self._setting, self._early = False, ""  # what was asked for while the scene was being set

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return self._asked is not None or bool(self._wants)

    @property
    def kept(self) -> GoalChoice:
        """What restores the scene as it stands: the choice, with the moves made so far."""
        here = self.scene if self.scene is not None and not self._setting else self.choice
        return replace(self.choice, moves=here.moves)

    @property
    def planned(self) -> bool:
        """Whether the next move is found."""
        return self.news is not None and self.news.done

    def open(self, choice: GoalChoice) -> None:
        """Set a scene and a goal."""
        with self._lock:
            self.choice, self.going, self.searching, self.problem = choice, False, False, ""
            self.news, self.history, self._moves = None, [], 0
            self._wants, self._setting, self._early = [("set", (self._visitor, choice))], True, ""
        self._go_on()

    def point(self, start: Pixel, end: Pixel) -> None:
        """Ask for what is at one pixel of the start picture to be at another."""
        self.open(GoalChoice(self.choice.task, self.choice.seed, points=(start, end)))

    def plan(self) -> None:
        """Search for the next move."""
        with self._lock:
            if self._setting:
                self._early = "plan"
            if self._setting or self.scene is None or self.scene.over or self.busy or self.planned:
                return
            self.news, self.history, self.searching, self.problem = None, [], True, ""
            self._wants.append(("search", (self._visitor,)))
        self._go_on()

    def step(self) -> None:
        """Carry the found move out; search for it first where there is none."""
        with self._lock:
            if self._setting:
                self._early = "step"
            if self.busy or self.scene is None:
                return
            self._moves, found = 1, self.planned
            if found:
                self._moves = 0
                self._wants.append(("move", (self._visitor,)))
        if found:
            self._go_on()
        else:
            self.plan()

    def go(self) -> None:
        """Plan and move until the task's moves are used up."""
        self.going = True
        self.step()

    def stop(self) -> None:
        """Give the search up; what was found so far stays to be seen."""
        with self._lock:
            self.going, self.searching, self._moves = False, False, 0
            self._wants = [*(each for each in self._wants if each[0] == "set"), ("stop", (self._visitor,))]
        self._go_on()

    def close(self) -> None:
        """Ask for nothing any more, and let the scene go."""
        with self._lock:
            self.closed = True
            if self.scene is not None or self._asked is not None:
                self._desk.ask(("leave", (self._visitor,)))

    def _go_on(self) -> None:
        with self._lock:
            if self._asked is not None or self.closed or not self._wants:
                return
            request = self._wants.pop(0)
            self._asked = self._desk.ask(request)
        self._asked.add_done_callback(lambda future: self._arrived(future, request))
        self._changed()

    def _arrived(self, future: "Future[Any]", request: tuple[str, tuple[Any, ...]]) -> None:
        with self._lock:
            self._asked = None
            if future.cancelled() or self.closed:
                return
            if (error := future.exception()) is not None:
                self.problem, self.going, self.searching, self._moves = str(error), False, False, 0
            elif isinstance(answer := future.result(), PlanScene):
                if request[0] == "move" or request[1][1] == self.choice:
                    self.scene, self.news, self.history = answer, None, []
                    self.going = self.searching = self.going and not answer.over
                    self._moves = int(self.going)
                    if self.going:
                        self._wants.append(("search", (self._visitor,)))
            elif isinstance(answer, SearchNews) and self.searching:
                self._heard(answer)
            early = ""
            if request[0] == "set" and request[1][1] == self.choice:
                early, self._setting, self._early = self._early, False, ""
        if early and not self.problem:
            getattr(self, early)()
        try:
            self._changed()
        finally:  # what can't be drawn stops nobody
            self._go_on()

    def _heard(self, news: SearchNews) -> None:
        self.news = news
        if not news.done:
            self.history.append((float(news.costs[0]), news.spread))
            self._wants.append(("search", (self._visitor,)))
            return
        self.searching = False
        if self._moves:
            self._moves -= 1
            self._wants.append(("move", (self._visitor,)))
