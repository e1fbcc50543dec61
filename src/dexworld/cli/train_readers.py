"""The verbs `train decoder`, `evaluator`, `points`, `policy` and `text`: what reads the latents of a world model."""

import logging
from dataclasses import dataclass
from typing import Annotated

import tyro

from dexworld.training.train_decoder import DecoderRunConfig, train_decoder
from dexworld.training.train_evaluator import EvaluatorRunConfig, train_evaluator
from dexworld.training.train_points import PointsRunConfig, train_points
from dexworld.training.train_policy import PolicyRunConfig, train_policy
from dexworld.training.train_text import TextRunConfig, train_text

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class TrainDecoder:
    """Train a network that turns latents back into pictures, for `--decoder`; start it again to go on."""

    run_config: Annotated[DecoderRunConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train, and leave the decoder in `<output>/model`."""
        logger.info("the decoder is in %s", train_decoder(self.run_config))


@dataclass(frozen=True)
class TrainEvaluator:
    """Train the keypoint head that predictions are judged with, apart from any world model; start it again to go on."""

    run_config: Annotated[EvaluatorRunConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train, and leave the evaluator in `<output>/model`."""
        logger.info("the evaluator is in %s", train_evaluator(self.run_config))


@dataclass(frozen=True)
class TrainPoints:
    """Teach a world model where points of objects are, and where hands push them; start it again to go on."""

    run_config: Annotated[PointsRunConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train, and leave the world model in `<output>/model`."""
        logger.info("the world model is in %s", train_points(self.run_config))


@dataclass(frozen=True)
class TrainPolicy:
    """Train a policy that moves a robot to a goal picture, to hold planning against; start it again to go on."""

    run_config: Annotated[PolicyRunConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train, and leave the policy in `<output>/model`."""
        logger.info("the policy is in %s", train_policy(self.run_config))


@dataclass(frozen=True)
class TrainText:
    """Teach a world model with points to understand sentences about them; start it again to go on."""

    run_config: Annotated[TextRunConfig, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train, and leave the world model in `<output>/model`."""
        logger.info("the world model is in %s", train_text(self.run_config))
