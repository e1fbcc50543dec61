"""Checkpoints of the DexWM release as models of ours: the same numbers, our file format, their licence.

A release checkpoint (`<name>_<epoch>.pth.tar`) becomes a `paper-*` model with the release's action convention and its
keypoint head of 16 x 16 places. What the file's tensors can't tell is in `OfficialOptions`; what was taken for granted
is in the `notes` of the result. The release is licensed CC-BY-NC, and so is what is converted from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import CheckpointError, write_checkpoint
from dexworld.models.config import DexWMConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.evaluator import EvaluatorConfig, KeypointEvaluator
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.latent_space import LatentSpace
from dexworld.models.official_card import assumptions, model_card, provenance
from dexworld.models.official_config import OfficialOptions, infer_config
from dexworld.models.official_file import read_release_file
from dexworld.models.official_layout import HEAD, PREDICTOR, Layout, assemble, read_layout
from dexworld.models.predictor import Predictor

CARD_FILE = "README.md"
SAME = 1e-6  # between an encoder's weights and their copy in a checkpoint


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A release checkpoint, understood.

    weights: predictor and keypoint head by our names, float32. encoder: the frozen encoder's tensors in the file, by
    its names. notes: what was assumed, one sentence each, for people to read.
    """

    config: DexWMConfig
    weights: dict[str, Tensor]
    encoder: dict[str, Tensor]
    layout: Layout
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()

    def model(self, check_encoder: bool = True) -> DexWM:
        """The world model, in evaluation mode. Loads the encoder that the config names, by folder or hub id.

        check_encoder: raise CheckpointError where it has other weights than the one in the file (if that has one).
        """
        model = DexWM(self.config, self.provenance)
        model.predictor.load_state_dict(_part(self.weights, PREDICTOR))
        model.keypoint_head.load_state_dict(_part(self.weights, HEAD))
        if check_encoder and self.encoder:
            different = different_tensors(model.encoder, self.encoder)
            if different:
                raise CheckpointError(
                    f"{self.provenance['source']} was trained on another encoder than {self.config.encoder.source}: "
                    f"{len(different)} of the encoder's tensors are not in the file, e.g. {', '.join(different[:3])}"
                )
        return model.eval()

    def evaluator(self, encoder_fingerprint: str) -> KeypointEvaluator:
        """The keypoint head as an evaluator of its own, for the latents of the encoder with that fingerprint."""
        config = EvaluatorConfig(LatentSpace.of(self.config, encoder_fingerprint), self.config.keypoint_head)
        evaluator = KeypointEvaluator(config, self.provenance)
        evaluator.head.load_state_dict(_part(self.weights, HEAD))
        return evaluator.eval()

    def with_head_of(self, other: "OfficialCheckpoint") -> "OfficialCheckpoint":
        """This world model with another checkpoint's head. Raises CheckpointError if that reads other latents."""
        mine, theirs = self.config, other.config
        if (mine.encoder.dim, mine.grid, mine.image_size) != (theirs.encoder.dim, theirs.grid, theirs.image_size):
            raise CheckpointError(
                f"{other.provenance['source']} reads {theirs.grid} latents of width {theirs.encoder.dim}, "
                f"{self.provenance['source']} makes {mine.grid} of width {mine.encoder.dim}"
            )
        return replace(
            self,
            config=replace(mine, keypoint_head=theirs.keypoint_head),
            weights={**_part(self.weights, PREDICTOR, keep=True), **_part(other.weights, HEAD, keep=True)},
            provenance={**self.provenance, "keypoint_head": other.provenance},
            notes=(*self.notes, f"The keypoint head is that of {other.provenance['source']}."),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write our format: `config.json`, `model.safetensors`, and `README.md`, the model card with the licence.

        The encoder is named, not copied, so this needs no encoder.
        """
        self.write_card(folder)
        write_checkpoint(folder, self.config, self.weights, self.provenance)

    def write_card(self, folder: str | Path) -> None:
        """Write the model card alone, making the folder if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        card = model_card(self.config, self.layout, self.provenance, self.notes)
        (Path(folder) / CARD_FILE).write_text(card, encoding="utf-8")


def load_official(path: str | Path, options: OfficialOptions = OfficialOptions()) -> DexWM:
    """The world model in a file of the release. Raises CheckpointError as `read_official` does."""
    return read_official(path, options).model()


def read_official(path: str | Path, options: OfficialOptions = OfficialOptions()) -> OfficialCheckpoint:
    """Read a file of the release; its config follows from the shapes of its tensors.

    Raises CheckpointError for a file that can't be read safely, naming every tensor that is missing, unexpected or of a
    wrong shape, and for what the options must say.
    """
    file = read_release_file(path, options.key)
    weights = {
        name: value
        for name, value in file.weights.items()
        if not any(fnmatch(name, pattern) for pattern in options.ignore)
    }
    layout = read_layout(weights)
    if layout.problems:
        raise CheckpointError(f"{path} does not have the release's layout:\n  " + "\n  ".join(layout.problems))
    if layout.head is None:
        raise CheckpointError(f"{path} holds no keypoint head, which every model of the release has")
    config = infer_config(layout, file, options)
    ours = assemble(layout, weights, options.keypoint_rows == "pixels-first")
    _require_fit(ours, config, path)
    encoder = {name: weights[name] for name in layout.encoder}
    notes = tuple(assumptions(config, layout, weights, options))
    return OfficialCheckpoint(config, ours, encoder, layout, provenance(file, options, notes), notes)


def _require_fit(weights: dict[str, Tensor], config: DexWMConfig, path: str | Path) -> None:
    """Raise CheckpointError naming each tensor that our modules don't have so, or that isn't finite."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            PREDICTOR: Predictor(config.predictor, config.encoder.dim, config.grid, config.image_size, (1.0, 1.0, 1.0)),
            HEAD: KeypointHead(config.keypoint_head, config.encoder.dim, config.grid, config.image_size),
        }
    expected = {
        prefix + name: tuple(value.shape)
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    problems = [f"{name} {expected[name]} is missing" for name in expected if name not in weights]
    for name, value in weights.items():
        if name not in expected:
            problems.append(f"{name} {tuple(value.shape)} is unexpected")
        elif tuple(value.shape) != expected[name]:
            problems.append(f"{name} has shape {tuple(value.shape)}, expected {expected[name]}")
        elif not torch.isfinite(value).all():
            problems.append(f"{name} holds NaN or Inf")
    if problems:
        raise CheckpointError(f"{path} does not fit the model that its shapes describe:\n  " + "\n  ".join(problems))


def different_tensors(encoder: nn.Module, theirs: Mapping[str, Tensor]) -> list[str]:
    """Names of an encoder's tensors that `theirs` holds nowhere with the same values, whatever their names there.

    Fused query, key and value count as three.
    """
    known: dict[tuple[int, ...], list[Tensor]] = {}
    for value in theirs.values():
        parts = [value, *value.chunk(3)] if value.ndim in (1, 2) and value.shape[0] % 3 == 0 else [value]
        for part in parts:
            known.setdefault(tuple(part.shape), []).append(part)
    return [
        name
        for name, value in encoder.named_parameters()
        if not any(_equal(value, other) for other in known.get(tuple(value.shape), []))
    ]


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    first = torch.allclose(ours.detach().flatten()[:8], theirs.flatten()[:8].to(ours), atol=SAME, rtol=0)
    return first and torch.allclose(ours.detach(), theirs.to(ours), atol=SAME, rtol=0)


def _part(weights: Mapping[str, Tensor], prefix: str, keep: bool = False) -> dict[str, Tensor]:
    """The tensors of one part, without its prefix unless `keep`."""
    return {
        name if keep else name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)
    }
