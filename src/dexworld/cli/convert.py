"""The verb `convert`: a checkpoint of the DexWM release as a model folder of ours."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.release import LICENCE, ReleaseOptions, read_release

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint of the DexWM release (.pth.tar) to a model folder that every other verb takes."""

    checkpoint: tyro.conf.Positional[Path]
    """File that the release's training wrote."""
    output: Path
    """Folder for config.json, model.safetensors and README.md, the model card."""
    head: Path | None = None
    """Another release checkpoint whose keypoint head to take instead, e.g. the one for evaluation."""
    part: Literal["model", "evaluator"] = "model"
    """`evaluator` keeps the keypoint head alone, as a keypoint evaluator; this needs the encoder's weights."""
    options: Annotated[ReleaseOptions, tyro.conf.arg(name="")] = field(default_factory=ReleaseOptions)

    def run(self) -> None:
        """Convert, and say what was taken for granted."""
        if (self.output / "config.json").exists():
            raise FileExistsError(f"{self.output} already holds a model; choose another folder")
        checkpoint = read_release(self.checkpoint, self.options)
        if self.head is not None:
            checkpoint = checkpoint.with_head_of(read_release(self.head, self.options))
        if self.part == "evaluator":
            encoder = checkpoint.model().encoder
            checkpoint.write_card(self.output)
            checkpoint.evaluator(encoder_fingerprint(encoder)).save_pretrained(self.output)
        else:
            checkpoint.save_pretrained(self.output)
        for note in checkpoint.provenance["assumed"]:
            logger.info("%s", note)
        logger.info("the model is in %s; its licence is %s: no commercial use (README.md)", self.output, LICENCE)
