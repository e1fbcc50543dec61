"""The view *Plan*: say what should be where, and watch the search for the moves that bring it there."""

import random
from typing import Any

import numpy as np

from dexworld.hands import RIGHT, WRIST
from dexworld.report.overlay import points_overlay
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.kitchen_tasks import TASKS
from dexworld.studio.frame_overlays import SCALE, crossed, enlarged, shown
from dexworld.studio.hand_drawing import Camera, HandScene
from dexworld.studio.plan_session import PlanSession
from dexworld.studio.planner import GoalChoice, Pixel, PlanScene
from dexworld.studio.robot_drawing import RobotScene
from dexworld.studio.start_controls import SCENES, read_picture
from dexworld.studio.view import View
from dexworld.studio.visitor_page import Page

WORDS = {
    "push": "Click a thing in the large picture, then where it should be. Or keep the goal picture. Then *plan*. "
    "By keys: J, L, I and K move a cursor, C chooses, F plans, X moves.",
    "reach": "The hand should be where the goal picture has it.",
    "grasp": "The hand should hold the thing that it holds in the goal picture.",
    "place": "The thing in the hand should be where the goal picture has it.",
}
NEAR_LIMIT = 0.03  # share of a joint's range
CURSOR_PX = 8  # of the scene's picture that a key moves the cursor by
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class PlanView(View):
    """See the module. page: the visitor's. session: what they did, which outlasts the view."""

    name = "Plan"

    def __init__(self, page: Page, session: PlanSession, link: Any) -> None:
        self.session, self._link_of = session, link
        self.picture, self.robot = HandScene(page.client.scene, "/plan"), RobotScene(page.client.scene, "/plan")
        super().__init__(page, self.picture, self.robot)
        self._drawn: tuple[Any, ...] = ()
        self._picked: Pixel | None = None
        self._cursor: Pixel | None = None

    def build(self) -> None:
        """Make the controls, in the folder that the page is in."""
        gui, choice = self.page.client.gui, self.session.choice
        self._pictures, self._says = gui.add_html(""), gui.add_markdown("")
        deeds = gui.add_button_group(
            "Search", ("plan", "stop", "step", "go"), hint="step moves once; go moves to the end"
        )
        deeds.on_click(lambda event: getattr(self.session, event.target.value)())
        self._course = gui.add_html("")
        look = gui.add_button_group("Look", ("through camera, or outside",))
        keep = gui.add_button_group("Keep", ("link",))
        look.on_click(lambda _: self._turn())
        keep.on_click(lambda _: self.page.guarded(self._link))
        self._kept = gui.add_html("", visible=False)
        with gui.add_folder("Goal"):
            self._task = gui.add_dropdown("Task", TASKS, initial_value=choice.task)
            self._sentence = gui.add_text("In words", choice.sentence, hint="push the red ball to the left of the bowl")
            said, back = gui.add_button("Plan what the words say"), gui.add_button("Back to the goal picture")
            upload = gui.add_upload_button("A goal picture of my own", icon="photo-up", mime_type="image/*")
            other = gui.add_button("Another scene", icon="dice")
        with gui.add_folder("Joints and their limits", expand_by_default=False):
            self._joints = gui.add_html("")
        self._task.on_update(lambda event: self._take(event.client, event.target.value))
        said.on_click(lambda _: self._open(task="push", sentence=self._sentence.value))
        back.on_click(lambda _: self._open())
        upload.on_upload(lambda event: self.page.guarded(lambda: self._goal(event.target.value.content)))
        other.on_click(lambda _: self._open(seed=random.choice(SCENES)))
        self.page.client.scene.on_click()(self._clicked)
        self._listen()
        self._built, self._drawn, self._picked, self._cursor = True, (), None, None
        if self.session.scene is None and not self.session.busy:
            self.session.open(choice)
        self.redraw()

    def _listen(self) -> None:
        session = self.session
        acts: dict[str, Any] = {"play": session.go, "next": session.step, "plan": session.plan, "stop": session.stop}
        acts |= {"outlook": self._turn, "pick": self._pick}
        acts |= {f"cursor {way}": lambda way=way: self._move_cursor(way) for way in WAYS}
        self._keys = [self.page.key(name, act) for name, act in acts.items()]

    def leave(self) -> None:
        """Take what is the view's own out of the scene, and search no more."""
        with self._lock:
            self.page.client.scene.remove_click_callback()
            if self.session.busy:
                self.session.stop()
            super().leave()

    def redraw(self) -> None:
        """Show where the session stands. From any thread."""
        with self._lock:
            if not self._built:
                return
            session, scene = self.session, self.session.scene
            self._note(scene)
            state = scene, session.news, self._picked, self._cursor
            if scene is None or state == self._drawn:
                return
            self._drawn = state
            camera = Camera(scene.intrinsics, (scene.image.shape[0], scene.image.shape[1]), scene.world_from_camera)
            with self.page.client.atomic():
                self.picture.screen(self._large(scene), camera, self.page.through)
                self.picture.hands(scene.keypoints, scene.valid)
                self.robot.parts(scene, not self.page.through)
                self.robot.candidates(session.news, scene.valid)
                self._pictures.content = shown(*self._small(scene))
                self._joints.content, self._course.content = bars(scene), course(session.history)
            self.page.look(camera, scene.keypoints[RIGHT][WRIST])

    def _take(self, client: Any, task: str) -> None:
        if client is not None:  # a visitor's doing, and not ours
            self._open(task=task)

    def _open(self, **choice: Any) -> None:
        """The same scene from its start, except for what `choice` says; without a goal in it, the scene's own."""
        self._picked, now = None, self.session.choice
        self.session.open(GoalChoice(**{"task": now.task, "seed": now.seed, **choice}))

    def _goal(self, content: bytes) -> None:
        picture = read_picture(content)
        self._open(pixels=picture.tobytes(), size=(picture.shape[0], picture.shape[1]))

    def _link(self) -> None:
        self._kept.content, self._kept.visible = self._link_of(), True

    def _large(self, scene: PlanScene) -> np.ndarray:
        picture = self._marked(scene)
        return picture if self._cursor is None else crossed(picture, (SCALE * self._cursor[0], SCALE * self._cursor[1]))

    def _marked(self, scene: PlanScene) -> np.ndarray:
        if self._picked is not None:
            pair = np.array([self._picked])
            return points_overlay(scene.image, np.stack([pair, pair]), pair, np.ones(1), SCALE)
        if scene.points is not None:
            start, end = (np.array([each]) for each in scene.points)
            return points_overlay(scene.image, np.stack([start, end]), end, np.ones(1), SCALE)
        return enlarged(scene.image, SCALE)

    def _small(self, scene: PlanScene) -> list[tuple[str, np.ndarray]]:
        pictures: list[tuple[str, np.ndarray]] = []
        if self.page.narrow:
            pictures.append(("Now", self._large(scene)))
        if scene.goal is not None:
            pictures.append(("The goal", enlarged(scene.goal, SCALE)))
        if scene.imagined is not None:
            pictures.append(("Expected of the last move", scene.imagined))
        return pictures or [("Now", self._large(scene))]

    def _note(self, scene: PlanScene | None) -> None:
        session = self.session
        if session.problem:
            said = f"**{session.problem}**"
        elif scene is None:
            said = "Setting the scene ..."
        elif self._picked is not None:
            said = "And where should it be? Click the place, or move the cursor there and choose it by C."
        elif session.searching and session.news is not None:
            news = session.news
            said = f"Searching: population {news.populations} of {news.expected}, best cost {news.costs[0]:.3f}, "
            said += f"elites within {100 * news.spread:.0f} cm."
        elif session.searching or session.busy:
            said = "Searching ..." if session.searching else "Moving ..."
        else:
            said = stands(scene, session.planned)
            said += "" if scene.steps or session.planned else f" {WORDS[session.choice.task]}"
        self._says.content = said

    def _turn(self) -> None:
        self.page.turn_outlook()
        self.picture.seen_through(self.page.through)
        self.robot.show(not self.page.through)

    def _clicked(self, event: Any) -> None:
        scene = self.session.scene
        if scene is not None:
            self._cursor = None
            self._choose(clicked_pixel(scene, np.array(event.ray_origin), np.array(event.ray_direction)))

    def _move_cursor(self, way: str) -> None:
        scene = self.session.scene
        if scene is None:
            return
        if self._cursor is None:
            self._cursor = first_object(scene)
        else:
            height, width = scene.image.shape[:2]
            (u, v), (right, down) = self._cursor, WAYS[way]
            u, v = u + CURSOR_PX * right, v + CURSOR_PX * down
            self._cursor = float(np.clip(u, 0, width - 1)), float(np.clip(v, 0, height - 1))
        self.redraw()

    def _pick(self) -> None:
        if self._cursor is None:
            self._move_cursor("up")
        else:
            self._choose(self._cursor)

    def _choose(self, pixel: Pixel | None) -> None:
        """Take a pixel of the picture as the thing, and the next as its place."""
        if pixel is None or self.session.busy:
            return
        if self.session.choice.task != "push":
            self.page.tell("Places are goals of pushing; choose the task push.", "Not here")
        elif self._picked is None:
            self._picked = pixel
            self.redraw()
        else:
            start, self._picked, self._cursor = self._picked, None, None
            self.session.point(start, pixel)


def first_object(scene: PlanScene) -> Pixel:
    """Where the object nearest to the picture's middle is seen; the middle where none is."""
    height, width = scene.image.shape[:2]
    middle = np.array([width / 2, height / 2])
    seen = (scene.objects - scene.world_from_camera[:3, 3]) @ scene.world_from_camera[:3, :3]
    ahead = seen[seen[:, 2] > 1e-6] @ scene.intrinsics.T
    pixels = ahead[:, :2] / ahead[:, 2:]
    pixels = pixels[((pixels >= 0) & (pixels < (width, height))).all(axis=1)]
    if len(pixels):
        middle = pixels[np.linalg.norm(pixels - middle, axis=1).argmin()]
    return float(middle[0]), float(middle[1])


def clicked_pixel(scene: PlanScene, origin: np.ndarray, direction: np.ndarray) -> Pixel | None:
    """The pixel [u, v] of the picture that a ray (3,), (3,) in the world points at; None outside.

    From elsewhere than the camera, what the ray meets at the counter's height counts.
    """
    rotation, place = scene.world_from_camera[:3, :3], scene.world_from_camera[:3, 3]
    if np.linalg.norm(origin - place) > 0.05:
        if abs(direction[2]) < 1e-6 or (COUNTER_TOP - origin[2]) / direction[2] < 0:
            return None
        direction = origin + (COUNTER_TOP - origin[2]) / direction[2] * direction - place
    x, y, depth = rotation.T @ direction
    if depth <= 1e-6:
        return None
    u, v, _ = scene.intrinsics @ np.array([x / depth, y / depth, 1.0])
    height, width = scene.image.shape[:2]
    return (float(u), float(v)) if 0 <= u < width and 0 <= v < height else None


def stands(scene: PlanScene, planned: bool) -> str:
    """How a scene stands, in words."""
    moves = f"{scene.steps} move{'s' * (scene.steps != 1)}"
    if scene.success is not None and scene.distance is not None:
        return f"**{'Solved' if scene.success else 'Not solved'}** after {moves}: {100 * scene.distance:.0f} cm left."
    if scene.over:
        return f"The moves are used up, after {moves}."
    found = " A move is found: *step* carries it out." if planned else ""
    if scene.distance is None:
        return f"Scene {scene.seed}, {moves}.{found or ' Press *plan* or *go*.'}"
    return f"Scene {scene.seed}, {moves}: {100 * scene.distance:.0f} cm to go, {100 * scene.needed:.0f} needed.{found}"


def course(history: list[tuple[float, float]]) -> str:
    """Best cost and the elites' spread over the populations of a search, as a drawing in HTML."""
    if len(history) < 2:
        return ""
    lines = []
    for values, colour in zip(np.array(history).T, ("#2f9e6b", "#8a94a6"), strict=True):
        span = max(float(np.ptp(values)), 1e-9)
        places = zip(np.linspace(5, 295, len(values)), 55 - 50 * (values - values.min()) / span, strict=True)
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2.5" points="{points}"/>')
    best, spread = history[-1]
    said = f"cost {best:.3f} (green), spread of the best {100 * spread:.1f} cm (grey)"
    drawing = f'<svg viewBox="0 0 300 60" style="width:100%" role="img" aria-label="{said}">{"".join(lines)}</svg>'
    return f'<div style="padding:0 0.75em"><small>{said}</small>{drawing}</div>'


def bars(scene: PlanScene) -> str:
    """Where each joint is between its limits, as HTML; red near a limit."""
    low, high = scene.limits.T
    rows = []
    for number, share in enumerate(np.clip((scene.joints - low) / (high - low), 0.0, 1.0), 1):
        colour = "#d9480f" if min(share, 1 - share) < NEAR_LIMIT else "#4678dc"
        place = f"position:absolute;left:{100 * share:.0f}%;width:4px;height:9px;background:{colour}"
        rail = f'<div style="flex:1;position:relative;height:9px;background:#8883"><div style="{place}"></div></div>'
        rows.append(f'<div style="display:flex;align-items:center;gap:0.5em"><small>{number}</small>{rail}</div>')
    return f'<div style="padding:0 0.75em 0.5em">{"".join(rows)}</div>'
