"""What policies are made of, from checkpoints: for evaluation, for pages and for servers."""

from collections.abc import Sequence
from typing import Any

from dexworld.baselines.goal_policy import GoalPolicy
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import BFloat16Rollouts, CheckedRollouts, WorldModel
from dexworld.planning.policies import PolicySetup
from dexworld.robots.environment import Environment, Workplace


def policy_setup(
    task: str,
    model: WorldModel | None,
    planner: str,
    environment: Environment | Workplace,
    what: str | None = None,
    **options: Any,
) -> PolicySetup:
    """What the policies for a task are made of; `options` are other fields of the setup.

    what: how the episode is called where the model predicts NaN or Inf.
    """
    if model is None:
        return PolicySetup(task, environment, planner=planner, **options)
    dynamics: Any = checked_rollouts(model, planner, what or task)
    changes = {"max_history": model.config.num_context, "image_size": model.config.image_size}
    changes["keep_out"] = getattr(environment, "keep_out", ())
    return PolicySetup(task, environment, dynamics, planner, changes=changes, **options)


def checked_rollouts(model: WorldModel, planner: str, what: str) -> CheckedRollouts:
    """The model as a planner preset uses it: rounding to bfloat16 is far below the model's own error, and the paper's
    planner stays as it is.
    """
    return (CheckedRollouts if planner == "paper" else BFloat16Rollouts)(model, what)


def learned_policies(folders: Sequence[str], model: WorldModel) -> dict[str, GoalPolicy]:
    """The learned policies by name. Raises ValueError for two of a name, and for one of another encoder's latents."""
    found: dict[str, GoalPolicy] = {}
    for folder in folders:
        policy = GoalPolicy.from_pretrained(folder)
        policy.config.latents.check_encoder(encoder_fingerprint(model.encoder), f"the policy {folder}")
        if policy.config.name in found:
            raise ValueError(
                f"policies {', '.join(folders)} hold two of kind {policy.config.name!r}; play one at a time"
            )
        found[policy.config.name] = policy
    return found
