"""Success against the latency of plans: a robot that stands still while it is planned, and one that plans ahead.

The kitchen, its filter, the follower of the client and a session of the server run in one thread and in simulated time:
an answer is there exactly so many seconds after its observation, however long it took. So figures are those of the
plans, and the same on any machine. All points play the same scenes for the same time, with the same seeds.
"""

import time
from typing import Any

import numpy as np

from common import interval_values, parser, write_results
from dexworld.evaluation.intervals import bootstrap_mean, wilson
from dexworld.planning.presets import PRESETS, PlannerOptions
from dexworld.robots.observation import Observation
from dexworld.robots.safety import Clearance, Margins, SafetyFilter, joint_limits
from dexworld.serving.policy_service import PolicyConfig, PolicyService
from dexworld.serving.simulated_robot import PERIOD_S
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import ALL_TASKS, TaskEpisode, draw_episodes
from dexworld_client import Chunk, Follower

WAYS = ("blocking", "ahead")


class Robot:
    """The kitchen behind its filter, in simulated time; `now` is its clock."""

    def __init__(self, episode: TaskEpisode) -> None:
        self.environment = KitchenEnv()
        self.environment.reset(options={"episode": episode})
        self.now, robot, seen = 0.0, self.environment.robot, self.environment.observe()
        clearance = Clearance(robot, seen.world_from_base, self.environment.keep_out, margin=Margins().distance)
        self.limits = joint_limits(robot)
        self.filter = SafetyFilter(self.limits, seen.joint_targets, clearance, PERIOD_S)

    def observe(self) -> dict[str, Any]:
        """The fields of an observation."""
        seen = self.environment.observe()
        return {name: getattr(seen, name) for name in Observation.__dataclass_fields__}

    def command(self, wanted: np.ndarray | str) -> None:
        """One command, or braking for a reason."""
        simulation = self.environment.simulation
        assert simulation is not None
        if isinstance(wanted, str):
            positions = self.filter.stop(wanted)
        else:
            positions = self.filter.step(wanted, simulation.joint_positions)
        simulation.move(positions, PERIOD_S)
        self.now += PERIOD_S


def play(episode: TaskEpisode, service: Any, latency: float, ahead: bool, seconds: float) -> dict[str, float]:
    """Play an episode for so many seconds, answers coming after `latency`, as `ControlLoop` does."""
    robot, session = Robot(episode), service.session()
    follower = Follower(robot.limits.names, PERIOD_S, 2 * seconds, lambda: robot.now)
    coming: tuple[float, Chunk, np.ndarray] | None = None  # when, what, and where it begins
    asked, moving, cpu = 0, 0, 0.0
    while robot.now < seconds:
        if coming is None and (follower.done or (ahead and not follower.waiting)):
            underway = follower.underway(latency if ahead else 0.0)
            goal = {} if asked else {"goal": {"image": episode.goal_image, "seed": episode.seed}}
            asked += 1
            message = robot.observe() | goal | ({"underway": underway} if len(underway) else {})
            began = time.process_time()
            answer = session.answer(message | {"sequence": asked, "observed_at": robot.now})
            cpu += time.process_time() - began
            facts = answer["step_seconds"], answer["execute"], tuple(answer["joints"]), asked, robot.now, {}
            start = underway[-1] if len(underway) else robot.filter.positions
            coming = robot.now + latency, Chunk(answer["actions"], *facts), start
        if coming is not None and robot.now >= coming[0] - 1e-9:
            assert follower.take(*coming[1:]) is None
            coming = None
        robot.command(follower.wanted())
        moving += not robot.filter.at_rest
    done = {"distance_m": robot.environment.distance(), "asked": asked, "moving_s": moving * PERIOD_S}
    done |= {"success": float(robot.environment.success()), "plan_cpu_s": cpu / asked}
    robot.environment.close()
    return done


def main() -> None:
    """Play all points and write results.json."""
    arguments = parser(__doc__, "outputs/bench/latency")
    arguments.add_argument("--episodes", type=int, default=50, help="of each point")
    arguments.add_argument("--seed", type=int, default=918_000, help="first scene")
    arguments.add_argument("--task", choices=ALL_TASKS, default="reach")
    arguments.add_argument("--planner", choices=PRESETS, default="realtime")
    arguments.add_argument("--latencies", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0, 3.0], help="seconds")
    arguments.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    arguments.add_argument("--seconds", type=float, default=6.0, help="of the robot's time, of an episode")
    options = arguments.parse_args()
    began = time.process_time()
    planning = PlannerOptions(replan="fixed")  # an arm that plans ahead needs steps to carry out meanwhile
    service = PolicyService(PolicyConfig(task=options.task, planner=options.planner, planning=planning))
    episodes = list(draw_episodes(options.task, options.seed, options.episodes))
    known = {name: getattr(options, name) for name in ("task", "planner", "seconds", "seed", "episodes")}
    points: dict[str, Any] = {}
    for latency in options.latencies:
        for way in options.ways:
            rows = [play(each, service, latency, way == "ahead", options.seconds) for each in episodes]
            distances = np.array([row["distance_m"] for row in rows])
            points[f"{way} {latency:g} s"] = {
                "success": interval_values(wilson(int(sum(row["success"] for row in rows)), len(rows))),
                "distance_m": interval_values(bootstrap_mean(distances, np.random.default_rng(0))),
                **{name: float(np.mean([row[name] for row in rows])) for name in ("asked", "moving_s", "plan_cpu_s")},
            }
            write_results(options.output, known | {"points": points, "cpu_s": time.process_time() - began})
    for name, point in points.items():
        print(f"{name:16} {100 * point['success']['value']:.0f} % at {100 * point['distance_m']['value']:.1f} cm")


if __name__ == "__main__":
    main()
