"""How a planning policy plans: steps, spreads, history, and when it has to be done."""

from dataclasses import dataclass, field
from typing import Literal

from dexworld.planning.approach import Approach
from dexworld.planning.candidates import ModelConfig
from dexworld.planning.gradient import KinematicStart
from dexworld.robots.boxes import Box


@dataclass(frozen=True)
class MPCConfig:
    """How the policy plans. Angles in radians; paper: section 4.4 and its appendix C.

    horizon: steps T. replan: `shrink` plans the steps that remain of it (3, 2, 1: the paper); `fixed` always T.
    arm_std, finger_std: initial spread (paper: 0.3 and 0.1, fingers 0.01 when placing). rewiden: when re-planning, the
        std is at least this share of the initial one (the release: 0).
    max_history: observed frames the model is given, newest last. kinematic_start: None plans with the model at once.
    image_size: (height, width) that the dynamics takes; images are cropped to their middle. None takes them whole.
    reached_px: the hand stands still while the goal's points are on average this near to where they should be: what is
        left is then less than a forecast's error.
    approach: pushes that join the first population of a search in hand space; for goals on points.
    keep_out: boxes (low corner, high corner), metres in the world, that the arm stays out of; for `KeepOut`.
    deadline_s: seconds of wall time that a plan may take: the search then returns its best so far, which depends on how
        fast the machine is. None is no limit.
    """

    horizon: int = 3
    replan: Literal["shrink", "fixed"] = "shrink"
    arm_std: float = 0.3
    finger_std: float = 0.1
    rewiden: float = 0.5
    max_history: int = 4
    kinematic_start: KinematicStart | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    image_size: tuple[int, int] | None = None
    reached_px: float = 6.0
    approach: Approach | None = None
    keep_out: tuple[Box, ...] = ()
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.max_history < 1:
            raise ValueError(f"horizon and max_history must be at least 1, got {self.horizon} and {self.max_history}")
        if self.replan not in ("shrink", "fixed"):
            raise ValueError(f"replan is {self.replan!r}; choose 'shrink' or 'fixed'")
        if self.arm_std <= 0 or self.finger_std <= 0 or not 0 <= self.rewiden <= 1:
            raise ValueError("arm_std and finger_std must be above 0 and rewiden between 0 and 1")
        if not self.reached_px >= 0:
            raise ValueError(f"reached_px must not be negative, got {self.reached_px}")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ValueError(f"deadline_s must be above 0, got {self.deadline_s}")
