"""What the tensors of a DexWM release checkpoint are, part by part, and what is wrong with them.

A checkpoint holds three parts: the frozen encoder (told by its patch embedding), the keypoint head (told by the layer
that draws twelve maps of square cells) and the predictor (told by the action layers of its blocks).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt

import torch
from torch import Tensor

from dexworld.actions import ACTION_DIM
from dexworld.hands import NUM_TRACKED
from dexworld.models.official_file import MODULATIONS, is_modulation
from dexworld.models.official_names import (
    POSITIONS,
    Roles,
    Shape,
    assumed_name,
    common_block,
    head_block,
    isolating_prefix,
    layers_of,
    loose_layers,
    numbered,
    predictor_block,
)

PREDICTOR, HEAD = "predictor.", "keypoint_head."
TOKENS_OF_PATCH = {14: 448, 16: 336}  # 224 x 392 and 224 x 384 images


@dataclass(frozen=True)
class PredictorSizes:
    """What the predictor's tensors say. tokens: of the encoder's grid; slots: frames in a window and the target."""

    dim: int
    depth: int
    mlp_ratio: int
    latent_dim: int
    slots: int
    tokens: int


@dataclass(frozen=True)
class HeadSizes:
    """What the keypoint head's tensors say. tokens: places it draws at; cell: pixels along the side of each."""

    dim: int
    depth: int
    mlp_ratio: int
    tokens: int
    cell: int


@dataclass(frozen=True)
class Placed:
    """One of our layers (blocks as `*`), the layers of the file that it is made of, and how they were recognised."""

    ours: str
    theirs: tuple[str, ...]
    how: str


@dataclass
class Layout:
    """What a checkpoint's tensors are.

    sources: our tensors' names and the names of the file's that they are made of, rows below rows. encoder: names of
    the frozen encoder's tensors. problems: tensors that are missing, unexpected or of a wrong shape, one line each.
    predictor, head: None if the part isn't there. patch: side of the encoder's patches, None if it isn't in the file.
    """

    predictor: PredictorSizes | None = None
    head: HeadSizes | None = None
    patch: int | None = None
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    encoder: list[str] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def put(
        self,
        roles: Roles,
        ours: str,
        theirs: str,
        blocks: Iterable[int] | None = None,
        unbiased: Sequence[str] = (),
    ) -> None:
        """Take over layers as ours that begin with `ours`, theirs with `theirs`; `*` in both is a block's number."""
        for role, found in roles.items():
            names = tuple(f"{theirs}{layer.name}" for layer in found.layers)
            self.placed.append(Placed(f"{ours}{role}", names, found.how))
            for layer in found.layers:
                if (layer.bias is None) != (role in unbiased):
                    wrong = "unexpected" if role in unbiased else "missing"
                    self.problems.append(f"{theirs}{layer.bias or f'{layer.name}.bias'} is {wrong}")
            for kind in ("weight",) if role in unbiased else ("weight", "bias"):
                tensors = [f"{theirs}{layer.weight if kind == 'weight' else layer.bias}" for layer in found.layers]
                for index in ["*"] if blocks is None else [str(each) for each in blocks]:
                    key = f"{ours}{role}.{kind}".replace("*", index)
                    self.sources[key] = tuple(tensor.replace("*", index) for tensor in tensors)

    def put_blocks(
        self,
        shapes: Mapping[str, Shape],
        container: str,
        ours: str,
        place: Callable[[dict[str, Shape]], tuple[Roles, list[str]]],
        unbiased: Sequence[str] = (),
    ) -> tuple[int, int]:
        """Take over the numbered blocks in `container`; `place` tells the layers of one. Depth and MLP width."""
        blocks: dict[int, dict[str, Shape]] = {}
        for name, shape in shapes.items():
            number, _, tail = name.removeprefix(container).partition(".")
            if name.startswith(container) and number.isdigit():
                blocks.setdefault(int(number), {})[tail] = shape
        usual, problems = common_block(blocks, container)
        roles, misplaced = place(usual)
        self.problems += [*problems, *(f"{container}*.{each}" for each in misplaced)]
        self.put(roles, f"{ours}blocks.*.", f"{container}*.", sorted(blocks), unbiased)
        hidden = roles["mlp.0"].layers[0].shape[0] if "mlp.0" in roles else 0
        return max(blocks) + 1, hidden

    def put_table(self, ours: str, names: list[str], shapes: Mapping[str, Shape], dim: int) -> Shape:
        """Take over the one table of position embeddings among `names`, and complain of the others. Its shape."""
        found = [name for name in names if len(shapes[name]) > 1 and shapes[name][-1] == dim]
        how = "shape"
        if len(found) > 1:
            found, how = [name for name in found if POSITIONS.search(name)], "name"
        self.problems += [f"{name} {shapes[name]} is unexpected" for name in names if name not in found[:1]]
        if not found:
            self.problems.append(
                f"{ours} is missing: no table of vectors of {dim}, as {assumed_name(ours)[0]} would be"
            )
            return ()
        self.sources[ours] = (found[0],)
        self.placed.append(Placed(ours, (found[0],), how))
        return shapes[found[0]]


def read_layout(weights: Mapping[str, Tensor]) -> Layout:
    """What the tensors of a release checkpoint are, without wrappers' prefixes. Raises nothing: see its problems."""
    layout = Layout()
    modulations = _modulations(weights)
    container = numbered(modulations)
    patches = next((name for name, value in weights.items() if _is_patch_embedding(name, value)), None)
    if patches is not None:
        layout.patch = int(weights[patches].shape[-1])
        root = isolating_prefix(patches, modulations)
        layout.encoder = [name for name in weights if root and name.startswith(root)]
    encoder = set(layout.encoder)
    shapes: dict[str, Shape] = {name: tuple(value.shape) for name, value in weights.items() if name not in encoder}
    if container is None:
        layout.problems.append(
            f"no numbered blocks with an action layer of shape (11 D, {ACTION_DIM}), as "
            f"{assumed_name('predictor.blocks.*.modulation')[0]} would be"
        )
        return layout
    head_root = _head_root(shapes, modulations, container, layout.patch)
    head = {name: shape for name, shape in shapes.items() if head_root and name.startswith(head_root)}
    _put_predictor(layout, {name: shape for name, shape in shapes.items() if name not in head}, modulations, container)
    if head and layout.predictor is not None:
        _put_head(layout, head, layout.predictor.latent_dim)
    return layout


def _modulations(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the blocks' action layers; the final one is smaller."""
    found = {name: value.shape[0] for name, value in weights.items() if is_modulation(value)}
    return [name for name, rows in found.items() if rows == max(found.values())]


def _is_patch_embedding(name: str, value: Tensor) -> bool:
    return value.ndim in (4, 5) and value.shape[1] == 3 and name.endswith("weight")


def _head_root(
    shapes: Mapping[str, Shape], modulations: Sequence[str], container: str, patch: int | None
) -> str | None:
    """What the keypoint head's names begin with: the part that holds the last layer to twelve maps of square cells."""
    root = None
    for name, shape in shapes.items():
        if len(shape) != 2 or name.startswith(container) or shape[0] % NUM_TRACKED:
            continue
        cell = isqrt(shape[0] // NUM_TRACKED)
        if cell * cell * NUM_TRACKED != shape[0] or (patch is not None and cell != patch):
            continue
        prefix = isolating_prefix(name, modulations)
        if prefix and any(
            each == (3 * shape[1], shape[1]) for other, each in shapes.items() if other.startswith(prefix)
        ):
            root = prefix
    return root


def _put_predictor(layout: Layout, shapes: dict[str, Shape], modulations: Sequence[str], container: str) -> None:
    dim = shapes[modulations[0]][0] // MODULATIONS
    depth, hidden = layout.put_blocks(shapes, container, PREDICTOR, lambda block: predictor_block(block, dim))
    loose = {name: shape for name, shape in shapes.items() if not name.startswith(container)}
    layers, tables = layers_of(loose)
    widths = [layer.shape[1] for layer in layers if len(layer.shape) == 2 and layer.shape[0] == dim]
    latent_dim = next((width for width in widths if width not in (dim, ACTION_DIM)), dim)
    wanted: dict[str, Shape] = {"final_modulation": (2 * dim, ACTION_DIM), "final": (dim, dim)}
    if latent_dim != dim:
        wanted |= {"project_in": (dim, latent_dim), "project_out": (latent_dim, dim)}
    roles, problems = loose_layers(layers, wanted, PREDICTOR)
    layout.problems += problems
    layout.put(roles, PREDICTOR, "")
    shape = layout.put_table(f"{PREDICTOR}positions", tables, loose, dim)
    slots, tokens = _slots_and_tokens(layout, shape, layout.patch)
    layout.predictor = PredictorSizes(dim, depth, hidden // dim, latent_dim, slots, tokens)


def _slots_and_tokens(layout: Layout, shape: Shape, patch: int | None) -> tuple[int, int]:
    """Window slots and tokens of a position table (..., S, P, D), or (..., S * P, D) where the patch says P."""
    sizes = [size for size in shape[:-1] if size > 1]
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    known = TOKENS_OF_PATCH.get(patch or 0)
    if len(sizes) == 1 and known and sizes[0] % known == 0:
        return sizes[0] // known, known
    if shape:
        layout.problems.append(
            f"{layout.sources[f'{PREDICTOR}positions'][0]} has shape {shape}, expected (slots, tokens, D)"
        )
    return 0, 0


def _put_head(layout: Layout, shapes: dict[str, Shape], latent_dim: int) -> None:
    qkv = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == 3 * shape[1]]
    container = numbered(qkv)
    if container is None:
        layout.problems.append(f"{qkv[0]} is in no numbered block of the keypoint head")
        return
    dim = shapes[qkv[0]][1]
    depth, hidden = layout.put_blocks(shapes, container, HEAD, lambda block: head_block(block, dim), unbiased=("qkv",))
    loose = {name: shape for name, shape in shapes.items() if not name.startswith(container)}
    layers, tables = layers_of(loose)
    rows = [layer.shape[0] for layer in layers if len(layer.shape) == 2 and layer.shape[1] == dim]
    wanted: dict[str, Shape] = {"project_in": (dim, latent_dim), "norm": (dim,), "project_out": (rows[-1], dim)}
    roles, problems = loose_layers(layers, wanted, HEAD)
    layout.problems += problems
    layout.put(roles, HEAD, "")
    table = layout.put_table(f"{HEAD}positions", tables, loose, dim)
    tokens = 1
    for size in table[:-1]:
        tokens *= size
    layout.head = HeadSizes(dim, depth, hidden // dim, tokens, isqrt(rows[-1] // NUM_TRACKED))


def assemble(layout: Layout, weights: Mapping[str, Tensor], pixels_first: bool) -> dict[str, Tensor]:
    """Our predictor's and head's tensors, by our names, float32, from the file's. `layout` must have no problems.

    pixels_first: rows of the head's last layer are (pixel row, pixel column, keypoint), else (keypoint, row, column).
    """
    result: dict[str, Tensor] = {}
    for ours, theirs in layout.sources.items():
        value = torch.cat([weights[name] for name in theirs]) if len(theirs) > 1 else weights[theirs[0]]
        value = value.float()
        if ".cross_qkv." in ours and layout.predictor is not None:
            dim = layout.predictor.dim
            result[ours.replace("cross_qkv", "cross_query")] = value[:dim]
            result[ours.replace("cross_qkv", "cross_key_value")] = value[dim:]
            continue
        if ours == f"{PREDICTOR}positions" and layout.predictor is not None:
            value = value.reshape(layout.predictor.slots, layout.predictor.tokens, -1)
        if ours == f"{HEAD}positions":
            value = value.reshape(-1, value.shape[-1])
        if ours.startswith(f"{HEAD}project_out.") and layout.head is not None and pixels_first:
            value = maps_first(value, layout.head.cell)
        result[ours] = value
    return result


def maps_first(rows: Tensor, cell: int) -> Tensor:
    """Rows (cell * cell * 12, ...) in the order pixel row, pixel column, keypoint to keypoint, row, column."""
    return rows.unflatten(0, (cell, cell, NUM_TRACKED)).movedim(2, 0).flatten(0, 2)


def smoothness(weight: Tensor, cell: int, pixels_first: bool) -> float:
    """Mean cosine between the rows of neighbouring pixels of the head's last weight (12 c c, W), read in an order.

    Neighbouring pixels of a map are alike in a trained head, so the right order has the higher value.
    """
    rows = (maps_first(weight, cell) if pixels_first else weight).unflatten(0, (NUM_TRACKED, cell, cell))
    unit = torch.nn.functional.normalize(rows, dim=-1)
    across, down = unit[:, :, 1:] * unit[:, :, :-1], unit[:, 1:] * unit[:, :-1]
    return float(across.sum(-1).mean() + down.sum(-1).mean()) / 2
