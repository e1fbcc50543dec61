"""What is written down about a converted DexWM release checkpoint: provenance, assumptions, and the model card."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from dexworld.models.config import DexWMConfig
from dexworld.models.official_config import OfficialOptions
from dexworld.models.official_file import ReleaseFile
from dexworld.models.official_layout import HEAD, Layout, smoothness

LICENCE = "CC-BY-NC-4.0"
CLEARER = 0.1  # by how much the other order of the head's pixels must be smoother to be called the likely one
# Where the same encoder weights give other latents than in the release.
ENCODER_DIFFERENCES = {
    "dinov2": (
        "The release takes DINOv2 from torch.hub, whose code shifts position embeddings by a tenth of a patch when it "
        "resizes them; that of transformers does not, so latents of images differ slightly from the release's."
    ),
    "vjepa2": (
        "The release takes V-JEPA 2 from transformers, which numbers positions wrongly on grids that are not square "
        "(versions 5.17 to 5.23 do); our encoder numbers them right, so latents of images may differ."
    ),
}


def provenance(file: ReleaseFile, options: OfficialOptions, notes: tuple[str, ...]) -> dict[str, Any]:
    """Where converted weights come from. `training_seeds` is empty: simulated scenes of ours are new to them."""
    training = {name: file.others[name] for name in ("epoch", "step") if isinstance(file.others.get(name), int)}
    return {
        "source": file.path.name,
        "sha256": file.sha256,
        "key": file.key,
        "layout": "DexWM release",
        "licence": LICENCE,
        "training": training,
        "training_seeds": [],
        "keypoint_rows": options.keypoint_rows,
        "assumed": list(notes),
    }


def assumptions(
    config: DexWMConfig, layout: Layout, file_weights: Mapping[str, Tensor], options: OfficialOptions
) -> Iterator[str]:
    """What was taken for granted in reading a checkpoint, a sentence each."""
    by_order = [f"{each.ours} from {', '.join(each.theirs)}" for each in layout.placed if each.how == "order"]
    by_order = [each for each in by_order if ".norm_" not in each]  # a pre-norm block has one order only
    if by_order:
        yield f"Told by their order in the file alone: {'; '.join(by_order)}."
    yield (
        f"Attention heads are not in the tensors: {config.predictor.heads} of {options.head_width} in the predictor, "
        f"{config.keypoint_head.heads} in the keypoint head. Rows of fused layers are query, key, value."
    )
    last, cell = file_weights[layout.sources[f"{HEAD}project_out.weight"][0]].float(), config.keypoint_head.cell
    pixels_first = options.keypoint_rows == "pixels-first"
    chosen, other = smoothness(last, cell, pixels_first), smoothness(last, cell, not pixels_first)
    doubt = (
        f" But neighbouring pixels are more alike the other way ({other:.2f} against {chosen:.2f}): look at a heatmap."
    )
    yield f"Rows of the keypoint head's last layer are {options.keypoint_rows}." + (
        doubt if other > chosen + CLEARER else ""
    )
    yield "No scene of this package's simulator was among the training data."
    copy = "whose copy in the file is not converted" if layout.encoder else "of which the file holds no copy"
    yield f"The encoder is {config.encoder.source}, {copy}."
    if difference := ENCODER_DIFFERENCES.get(config.encoder.family or ""):
        yield difference


def model_card(config: DexWMConfig, layout: Layout, provenance: Mapping[str, Any], notes: tuple[str, ...]) -> str:
    """The README.md of a converted checkpoint."""
    predictor, head = config.predictor, config.keypoint_head
    places = "x".join(map(str, head.token_grid or config.grid))
    rows = "\n".join(
        f"| `{each.ours}` | {', '.join(f'`{name}`' for name in each.theirs)} | {each.how} |" for each in layout.placed
    )
    listed = "\n".join(f"- {note}" for note in notes)
    window = f"window of {predictor.num_context} frames"
    return f"""---
license: cc-by-nc-4.0
---
# A checkpoint of the DexWM release, converted

Licence: the weights are those of the authors of DexWM (arXiv 2512.13644) and keep their licence, {LICENCE}: **no
commercial use**. The Apache-2.0 licence of dexworld's code does not cover them.

| | |
|---|---|
| Converted from | `{provenance["source"]}`, SHA-256 `{provenance["sha256"]}` |
| Predictor | width {predictor.dim}, {predictor.depth} blocks, {predictor.heads} heads, {window} |
| Keypoint head | width {head.dim}, {head.depth} blocks, {head.heads} heads, drawn at {places} places |
| Encoder | `{config.encoder.source}` on images of {config.image_size[0]} x {config.image_size[1]}; not included |
| Actions | the release's: window frame, world-frame camera differences, raw metres and radians |

## Taken for granted

{listed}

## Which tensor became which

| ours | in the file | told by |
|---|---|---|
{rows}
"""
