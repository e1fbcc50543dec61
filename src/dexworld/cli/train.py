"""The verb `train`: a world model from collected or prepared data."""

import logging
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from dexworld.training.estimate import PlanConfig, plan_run
from dexworld.training.recipes import epochs_on_paper, with_recipe
from dexworld.training.train_world_model import RunConfig, train

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Train:
    """Train a world model on collected episodes; start it again to go on where it stopped.

    What is trained beside it has commands of its own: `dexworld train decoder` and `dexworld train evaluator`.
    """

    run_config: Annotated[RunConfig, tyro.conf.arg(name="")]
    recipe: str | None = None
    """A named way to train (`pretrain_egodex_droid`, `finetune_robocasa`, and both with `_official`): it fills in what
    is left at its default, and the steps from its epochs."""
    dry_run: bool = False
    """Show what the run takes (on paper without `--data`: EgoDex and DROID at the paper's scale), and stop."""
    machines: PlanConfig = field(default_factory=PlanConfig)

    def run(self) -> None:
        """Train, and leave the model in `<output>/model`."""
        config = self.run_config if self.recipe is None else with_recipe(self.recipe, self.run_config)
        if self.dry_run:
            machines = self.machines
            if self.recipe is not None:
                machines = replace(machines, epochs=epochs_on_paper(self.recipe, config, machines.epochs))
            sys.stdout.write(plan_run(config, machines))
            return
        logger.info("the model is in %s", train(config))
