"""Learned policies and controls as kinds of variants: they play tasks where world models plan."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from dexworld.baselines.goal_policy import NAMES, Form, GoalPolicy, GoalPolicyConfig
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.models.latent_space import LatentSpace
from dexworld.robots.franka_allegro import JOINTS
from dexworld.studies.study import UNTRAINED, Plan, Table, Variant
from dexworld.studies.world_model_plan import phases_of
from dexworld.studies.world_model_runs import WorldModels, what_it_took
from dexworld.training.cost import policy_cost
from dexworld.training.estimate import PlanConfig, gpu_hours
from dexworld.training.train_policy import PolicyRunConfig, PolicyTrainConfig, train_policy

Control = Literal["kinematics_only", "random", "do_nothing"]


@dataclass(frozen=True)
class Policies(WorldModels):
    """A form of `dexworld train policy`, trained on latents of the study's encoder."""

    form: Form = "bc"

    @property
    def plays(self) -> str:
        """As `WorldModels.plays`."""
        return NAMES[self.form]

    def train(self, study: Any, variant: Variant, seed: int) -> dict[str, Any]:
        """From new weights. `Variant.training` names fields of `PolicyTrainConfig`."""
        training = study.table.training_of(variant, seed, PolicyTrainConfig)
        own: dict[str, Any] = {"checkpoint": str(self.readers(study, variant) / "encoder"), "form": self.form}
        own |= {"size": study.table.sizes.policy_size, "validation_fraction": 0.0, "device": study.device}
        place: dict[str, Any] = {"data": study.data(*variant.data), "output": study.folder(variant.name, seed)}
        config = PolicyRunConfig(**place, training=training, **own)
        return what_it_took(partial(train_policy, config), GoalPolicy.from_pretrained, training)

    def measure(self, study: Any, variant: Variant, seed: int) -> Sums:
        """By the tasks that it plays."""
        encoder, policy = self.readers(study, variant) / "encoder", study.folder(variant.name, seed) / "model"
        return self._measured(study, variant, seed, encoder, policy)

    def plan(self, table: Table, variant: Variant, machines: PlanConfig) -> Plan:
        """By torch's count of operations."""
        model = table.model_of(variant)
        config = GoalPolicyConfig.sized(LatentSpace.of(model, ""), len(JOINTS), self.form, table.sizes.policy_size)
        phases = phases_of(table, variant, model, PolicyTrainConfig)
        plan = Plan(sum(count for _, count in phases), phases[-1][0].batch_size, None, None)
        try:
            parameters, flops = policy_cost(config, model)
        except ImportError as error:
            return replace(plan, why=str(error))
        samples = sum(count * training.batch_size for training, count in phases)
        return replace(plan, parameters=parameters, gpu_hours=gpu_hours(flops, machines, samples))


@dataclass(frozen=True)
class Controls(WorldModels):
    """A control of `dexworld evaluate tasks`, which reads goals with the model of `Variant.initial`. Trains nothing."""

    control: Control = "do_nothing"
    borrows: ClassVar[bool] = True

    @property
    def plays(self) -> str:
        """As `WorldModels.plays`."""
        return self.control

    def train(self, study: Any, variant: Variant, seed: int) -> dict[str, Any]:
        """Nothing."""
        return dict(UNTRAINED)

    def measure(self, study: Any, variant: Variant, seed: int) -> Sums:
        """By the tasks that it plays."""
        return self._measured(study, variant, seed, study.folder(str(variant.initial), seed) / "model")

    def plan(self, table: Table, variant: Variant, machines: PlanConfig) -> Plan:
        """Nothing."""
        return Plan(0, 0, None, None)
