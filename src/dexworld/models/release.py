"""Checkpoints of the DexWM release as models of ours: the same numbers, our file format, their licence (CC-BY-NC).

The tables hold the release's names; our own modules know the shapes. The frozen encoder is named, not copied.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dexworld.hands import NUM_TRACKED
from dexworld.models.checkpoint import CheckpointError, write_checkpoint
from dexworld.models.config import ENCODERS, DexWMConfig, EncoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.hub import CARD_FILE, Shared, front_matter
from dexworld.models.keypoint_head import EvaluatorConfig, KeypointEvaluator, KeypointHead
from dexworld.models.latent_space import LatentSpace
from dexworld.models.predictor import Predictor
from dexworld.models.release_file import ReleaseFile, read_release_file
from dexworld.models.world_model import preset
from dexworld.writing import write_text

LICENCE = "CC-BY-NC-4.0"
ENCODER_DIFFERENCES = {  # where the same encoder weights give other latents than in the release
    "dinov2": "The release takes DINOv2 from torch.hub, which shifts position embeddings by a tenth of a patch when it "
    "resizes them; transformers does not. So latents of images differ slightly from the release's.",
    "vjepa2": "The release takes V-JEPA 2 from transformers, whose versions 5.17 to 5.23 number positions wrongly on "
    "grids that are not square. Our encoder numbers them right, so latents of images may differ.",
}
ENCODER, KEYPOINTS = "image_embedder.", "kp_layer.vit_decoder."
# Our layers and tables, and the release's; `*` is the number of a block. Both have modulations in the order of
# `predictor.Block`, and the rows of fused projections in the order query, key, value.
PREDICTOR = {
    "positions": "pos_embed",
    "project_in": "input_proj",  # this and the next only where the encoder has another width
    "project_out": "output_proj",
    "blocks.*.modulation": "blocks.*.adaLN_modulation.1",
    "blocks.*.self_qkv": "blocks.*.attn.packed_proj",
    "blocks.*.self_out": "blocks.*.attn.out_proj",
    "blocks.*.cross_query": "blocks.*.cttn.packed_proj",  # its first third
    "blocks.*.cross_key_value": "blocks.*.cttn.packed_proj",  # the rest
    "blocks.*.cross_out": "blocks.*.cttn.out_proj",
    "blocks.*.mlp.0": "blocks.*.mlp.fc1",
    "blocks.*.mlp.2": "blocks.*.mlp.fc2",
    "final_modulation": "final_layer.adaLN_modulation.1",
    "final": "final_layer.linear",
}
HEAD = {
    "positions": f"{KEYPOINTS}pos_embed",
    "project_in": f"{KEYPOINTS}input_proj",
    "blocks.*.norm_attention": f"{KEYPOINTS}blocks.*.norm1",
    "blocks.*.qkv": f"{KEYPOINTS}blocks.*.attn.qkv",
    "blocks.*.out": f"{KEYPOINTS}blocks.*.attn.proj",
    "blocks.*.norm_mlp": f"{KEYPOINTS}blocks.*.norm2",
    "blocks.*.mlp.0": f"{KEYPOINTS}blocks.*.mlp.0",
    "blocks.*.mlp.2": f"{KEYPOINTS}blocks.*.mlp.3",
    "norm": f"{KEYPOINTS}norm",
    "project_out": f"{KEYPOINTS}head.0",
}
SIZES = {  # the tensors that tell a model's sizes, and their number of axes
    "pos_embed": 3,
    "blocks.0.mlp.fc1.weight": 2,
    f"{KEYPOINTS}pos_embed": 3,
    f"{KEYPOINTS}input_proj.weight": 2,
    f"{KEYPOINTS}blocks.0.mlp.0.weight": 2,
    f"{KEYPOINTS}head.0.weight": 2,
}
HEAD_WIDTH = 64  # of each of the predictor's attention heads
IMAGE_SIZES = {(14, 448): (224, 392), (16, 336): (224, 384)}  # by patch and number of tokens


@dataclass(frozen=True)
class ReleaseOptions:
    """What the tensors of a release checkpoint can't tell. The defaults are the release's."""

    encoder_source: str | None = None
    """Local folder or hub id of the encoder, instead of the usual one."""
    image_size: tuple[int, int] | None = None
    """Height and width of images; from the number of tokens for 224 x 392 (patch 14) and 224 x 384 (patch 16)."""
    keypoint_rows: Literal["pixels-first", "keypoints-first"] = "pixels-first"
    """Order of the rows of the keypoint head's last layer: pixel row, pixel column, keypoint; or keypoint first."""

    def __post_init__(self) -> None:
        if self.keypoint_rows not in ("pixels-first", "keypoints-first"):
            raise ValueError(f"keypoint_rows is {self.keypoint_rows!r}; choose 'pixels-first' or 'keypoints-first'")


@dataclass(frozen=True)
class ReleaseCheckpoint(Shared):
    """A release checkpoint, converted.

    predictor, head: our state dicts, float32. provenance: where they come from; `assumed` are sentences for people.
    """

    config: DexWMConfig
    predictor: dict[str, Tensor]
    head: dict[str, Tensor]
    provenance: dict[str, Any]

    def model(self) -> DexWM:
        """The world model, in evaluation mode. Loads the encoder that the config names, by folder or hub id."""
        model = DexWM(self.config, self.provenance)
        model.predictor.load_state_dict(self.predictor)
        model.keypoint_head.load_state_dict(self.head)
        return model.eval()

    def evaluator(self, encoder_fingerprint: str) -> KeypointEvaluator:
        """The keypoint head as an evaluator of its own, for the latents of the encoder with that fingerprint."""
        config = EvaluatorConfig(LatentSpace.of(self.config, encoder_fingerprint), self.config.keypoint_head)
        evaluator = KeypointEvaluator(config, self.provenance)
        evaluator.head.load_state_dict(self.head)
        return evaluator.eval()

    def with_head_of(self, other: "ReleaseCheckpoint") -> "ReleaseCheckpoint":
        """This world model with another checkpoint's head. Raises CheckpointError if that reads other latents."""
        mine, theirs = self.config, other.config
        if (mine.encoder.dim, mine.grid, mine.image_size) != (theirs.encoder.dim, theirs.grid, theirs.image_size):
            reads = f"{other.provenance['source']} reads {theirs.grid} latents of width {theirs.encoder.dim}"
            makes = f"{self.provenance['source']} makes {mine.grid} of width {mine.encoder.dim}"
            raise CheckpointError(f"{reads}, {makes}")
        assumed = [*self.provenance["assumed"], f"The keypoint head is that of {other.provenance['source']}."]
        provenance = {**self.provenance, "keypoint_head": other.provenance, "assumed": assumed}
        config = replace(mine, keypoint_head=theirs.keypoint_head)
        return replace(self, config=config, head=other.head, provenance=provenance)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and the model card. The encoder is named, not loaded or copied."""
        self.write_card(folder)
        weights = {f"predictor.{name}": value for name, value in self.predictor.items()}
        weights |= {f"keypoint_head.{name}": value for name, value in self.head.items()}
        write_checkpoint(folder, self.config, weights, self.provenance)

    def write_card(self, folder: str | Path) -> None:
        """Write the model card, `README.md`, alone, making the folder if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / CARD_FILE, model_card(self.config, self.provenance))


def read_release(path: str | Path, options: ReleaseOptions = ReleaseOptions()) -> ReleaseCheckpoint:
    """Read a file of the release; its config follows from the shapes of its tensors.

    Raises CheckpointError for a file that can't be read safely, naming every tensor that is missing, unexpected, of a
    wrong shape or not finite, and for what the options must say.
    """
    file = read_release_file(path)
    config = infer_config(file, options)
    predictor, head = convert_weights(file, config, options)
    provenance = {
        "source": file.path.name,
        "sha256": file.sha256,
        "layout": "DexWM release",
        "licence": LICENCE,
        "training": {name: file.others[name] for name in ("epoch", "train_steps") if name in file.others},
        "training_seeds": [],  # simulated scenes of ours are new to it
        "keypoint_rows": options.keypoint_rows,
        "assumed": assumptions(config, options.keypoint_rows),
    }
    return ReleaseCheckpoint(config, predictor, head, provenance)


def infer_config(file: ReleaseFile, options: ReleaseOptions) -> DexWMConfig:
    """The model that a file's tensors describe. Raises CheckpointError where the sizes don't tell or don't fit."""
    weights, where = file.weights, file.path
    absent = [name for name, axes in SIZES.items() if name not in weights or weights[name].ndim != axes]
    if absent:
        raise CheckpointError(f"{where} lacks tensors of the release that tell a model's sizes: {', '.join(absent)}")
    (slots, tokens, dim), (hidden, _), (_, places, head_dim), (_, latent_dim), (head_hidden, _), (rows, _) = (
        weights[name].shape for name in SIZES
    )
    patch, side = isqrt(rows // NUM_TRACKED), isqrt(places)
    if NUM_TRACKED * patch**2 != rows or side**2 != places or dim % HEAD_WIDTH:
        raise CheckpointError(
            f"{where}: the predictor's width {dim} must be a multiple of {HEAD_WIDTH}, the keypoint head's {places} "
            f"places a square, and its {rows} outputs {NUM_TRACKED} square patches"
        )
    size = options.image_size or IMAGE_SIZES.get((patch, tokens))
    if size is None or (size[0] // patch) * (size[1] // patch) != tokens:
        known = "no known image size has" if size is None else f"images of {size} do not have"
        raise CheckpointError(f"{where}: {known} {tokens} tokens of {patch} x {patch} pixels; say the right image_size")
    encoder = _encoder_config(file, options, patch, latent_dim)
    base, depth, head_depth = preset("official-xl"), _depth(weights, "blocks."), _depth(weights, f"{KEYPOINTS}blocks.")
    heads, ratio, head_ratio, grid = dim // HEAD_WIDTH, hidden // dim, head_hidden // head_dim, (side, side)
    head = base.keypoint_head
    try:
        predictor = replace(base.predictor, dim=dim, depth=depth, heads=heads, mlp_ratio=ratio, num_context=slots - 1)
        head = replace(head, dim=head_dim, depth=head_depth, mlp_ratio=head_ratio, cell=patch, token_grid=grid)
        return replace(base, image_size=size, encoder=encoder, predictor=predictor, keypoint_head=head)
    except ValueError as error:
        raise CheckpointError(f"{where}: the sizes of its tensors contradict each other: {error}") from error


def _depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    numbers = (name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix))
    return min(len(weights), 1 + max(int(number) for number in numbers if number.isdigit()))  # at least one each


def _encoder_config(file: ReleaseFile, options: ReleaseOptions, patch: int, dim: int) -> EncoderConfig:
    """The encoder of that patch and width. Web-SSL's are DINOv2's, but only DINOv2 has torch.hub's names (`qkv`)."""
    known = {name: config for name, config in ENCODERS.items() if config.kind == "transformers"}
    fitting = [config for config in known.values() if (config.patch, config.dim) == (patch, dim)]
    copied = [name for name in file.weights if name.startswith(ENCODER)]
    if "webssl" in str(file.others.get("args")) or (copied and not any(".qkv." in name for name in copied)):
        fitting.sort(key=lambda config: config.family == "dinov2")
    if fitting:
        return replace(fitting[0], source=options.encoder_source or fitting[0].source)
    if options.encoder_source is None:
        raise CheckpointError(
            f"{file.path} was made on an encoder of {patch}-pixel patches and width {dim}, which is none of "
            f"{', '.join(known)}; say the encoder_source"
        )
    return EncoderConfig("transformers", dim, patch, 1, options.encoder_source)


def convert_weights(file: ReleaseFile, config: DexWMConfig, options: ReleaseOptions) -> list[dict[str, Tensor]]:
    """State dicts of our predictor and head. Raises CheckpointError naming each tensor that is wrong or not finite."""
    space, cell = (config.encoder.dim, config.grid, config.image_size), config.keypoint_head.cell
    with torch.device("meta"):
        predictor = Predictor(config.predictor, *space, config.action_scale)
        head = KeypointHead(config.keypoint_head, *space)
    results: list[dict[str, Tensor]] = [{}, {}]
    problems: dict[str, str | None] = {}  # by the release's names
    for module, names, result in zip((predictor, head), (PREDICTOR, HEAD), results, strict=True):
        for ours, expected in module.state_dict().items():
            theirs, shape = release_name(ours, names), tuple(expected.shape)
            packed = ".cttn.packed_proj." in theirs  # its rows are query, key, value
            if packed:
                shape = (3 * config.predictor.dim, *shape[1:])
            elif theirs == f"{KEYPOINTS}pos_embed":
                shape = (1, *shape)
            problems[theirs] = _problem(file.weights, theirs, shape)
            if problems[theirs]:
                continue
            value = file.weights[theirs].float()
            if packed:
                value = value[: len(expected)] if ".cross_query." in ours else value[-len(expected) :]
            elif theirs.startswith(f"{KEYPOINTS}head.0.") and options.keypoint_rows == "pixels-first":
                value = value.unflatten(0, (cell, cell, -1)).movedim(2, 0)
            result[ours] = value.reshape(expected.shape)
    extra = [name for name in file.weights if name not in problems and not name.startswith(ENCODER)]
    found = [problem for problem in problems.values() if problem]
    found += [f"{name} {tuple(file.weights[name].shape)} is unexpected" for name in extra]
    if found:
        raise CheckpointError(f"{file.path} does not have the release's layout:\n  " + "\n  ".join(found))
    return results


def release_name(ours: str, names: Mapping[str, str]) -> str:
    """The release's name of the tensor that one of ours is made of."""
    layer, _, kind = re.sub(r"^blocks\.\d+\.", "blocks.*.", ours).rpartition(".")
    theirs = f"{names[layer]}.{kind}" if layer else names[kind]
    return theirs.replace("*", ours.split(".")[1]) if "*" in theirs else theirs


def _problem(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> str | None:
    if name not in weights:
        return f"{name} {shape} is missing"
    if weights[name].shape != shape:
        return f"{name} has shape {tuple(weights[name].shape)}, expected {shape}"
    return None if torch.isfinite(weights[name]).all() else f"{name} holds NaN or Inf"


def assumptions(config: DexWMConfig, keypoint_rows: str) -> list[str]:
    """What was assumed in reading a checkpoint, a sentence each."""
    notes = [
        f"The tensors don't tell the number of attention heads: {config.predictor.heads} in the predictor, "
        f"{config.keypoint_head.heads} in the keypoint head.",
        f"Rows of the keypoint head's last layer are {keypoint_rows}. If heatmaps look scrambled, take the other.",
        "No scene of this package's simulator was among the training data.",
        f"The encoder is {config.encoder.source}; a copy in the file is not converted.",
        ENCODER_DIFFERENCES.get(config.encoder.family or ""),
    ]
    return [note for note in notes if note]


def model_card(config: DexWMConfig, provenance: Mapping[str, Any]) -> str:
    """The README.md of a converted checkpoint."""
    predictor, head, (height, width) = config.predictor, config.keypoint_head, config.image_size
    listed = "\n".join(f"- {note}" for note in provenance["assumed"])
    return f"""{front_matter(LICENCE.lower(), "robotics", "world-model")}
# A checkpoint of the DexWM release, converted

Licence: the weights are those of the authors of DexWM (arXiv 2512.13644) and keep their licence, {LICENCE}: **no
commercial use**. The Apache-2.0 licence of dexworld's code does not cover them.

| | |
|---|---|
| Converted from | `{provenance["source"]}`, SHA-256 `{provenance["sha256"]}` |
| Predictor | width {predictor.dim}, {predictor.depth} blocks, window of {predictor.num_context} frames |
| Keypoint head | width {head.dim}, {head.depth} blocks, drawn at {head.token_grid} places |
| Encoder | `{config.encoder.source}` on images of {height} x {width}; not included |
| Actions | the release's: window frame, world-frame camera differences, raw metres and radians |

## Assumed

{listed}
"""
