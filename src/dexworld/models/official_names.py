"""Which tensors of a DexWM release checkpoint are which of ours.

The release's tensor shapes and their meaning are known (dimensions, fused qkv, eleven modulation vectors in order); not
all of its names are. So a tensor is told by its place and shape first. A name decides only between tensors of the same
shape, and where no name is recognised their order does; every such decision is reported (`Found.how`). `ASSUMED_NAMES`
is the layout that we take the release to have, in one table: it is what messages about missing tensors name.

D predictor width, E encoder width, W head width, P tokens, S window slots, R MLP ratio.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dexworld.actions import ACTION_DIM
from dexworld.models.official_file import MODULATIONS

Shape = tuple[int, ...]
How = Literal["shape", "name", "order"]  # what told a tensor from the others

# (ours, assumed name, shape, meaning). `*` is the number of a block. An assumption: see the module's docstring.
ASSUMED_NAMES: tuple[tuple[str, str, str, str], ...] = (
    ("predictor.positions", "pos_embed", "S, P, D", "position of each slot and token"),
    ("predictor.project_in", "proj_in", "D, E", "only where D is not E"),
    ("predictor.project_out", "proj_out", "E, D", "only where D is not E"),
    ("predictor.blocks.*.modulation", "blocks.*.adaLN_modulation.1", "11 D, 132", "self 3, context 2, cross 3, MLP 3"),
    ("predictor.blocks.*.self_qkv", "blocks.*.attn.qkv", "3 D, D", "rows are query, key, value"),
    ("predictor.blocks.*.self_out", "blocks.*.attn.proj", "D, D", ""),
    ("predictor.blocks.*.cross_qkv", "blocks.*.cross_attn.qkv", "3 D, D", "in one, or as q and kv, or as q, k and v"),
    ("predictor.blocks.*.cross_out", "blocks.*.cross_attn.proj", "D, D", ""),
    ("predictor.blocks.*.mlp.0", "blocks.*.mlp.fc1", "R D, D", ""),
    ("predictor.blocks.*.mlp.2", "blocks.*.mlp.fc2", "D, R D", ""),
    ("predictor.final_modulation", "final_layer.adaLN_modulation.1", "2 D, 132", "shift, scale"),
    ("predictor.final", "final_layer.linear", "D, D", ""),
    ("keypoint_head.positions", "heatmap_model.pos_embed", "256, W", "16 x 16 places, not the encoder's grid"),
    ("keypoint_head.project_in", "heatmap_model.embed", "W, E", ""),
    ("keypoint_head.blocks.*.norm_attention", "heatmap_model.blocks.*.norm1", "W", ""),
    ("keypoint_head.blocks.*.qkv", "heatmap_model.blocks.*.attn.qkv", "3 W, W", "without bias"),
    ("keypoint_head.blocks.*.out", "heatmap_model.blocks.*.attn.proj", "W, W", ""),
    ("keypoint_head.blocks.*.norm_mlp", "heatmap_model.blocks.*.norm2", "W", ""),
    ("keypoint_head.blocks.*.mlp.0", "heatmap_model.blocks.*.mlp.fc1", "4 W, W", ""),
    ("keypoint_head.blocks.*.mlp.2", "heatmap_model.blocks.*.mlp.fc2", "W, 4 W", ""),
    ("keypoint_head.norm", "heatmap_model.norm", "W", ""),
    ("keypoint_head.project_out", "heatmap_model.head", "12 c c, W", "rows are pixel row, pixel column, keypoint"),
)
CROSS = re.compile(r"cross|cttn|ctx|context|(?:^|[._])(?:ca|c_attn|xattn|cond)(?:[._]|$)")
OUTPUT = re.compile(r"(?:^|[._])(?:proj|out|out_proj|o_proj|to_out(?:\.\d+)?|wo)$")
QUERY_KEY_VALUE = tuple(re.compile(rf"(?:^|[._])(?:to_|w_?)?{x}(?:_proj|_linear)?$") for x in ("q", "k", "v"))
POSITIONS = re.compile(r"pos")
_WEIGHT_OR_BIAS = re.compile(r"^(?P<layer>.*?)[._]?(?P<kind>weight|bias)$")


@dataclass(frozen=True)
class Layer:
    """A linear layer or a normalisation: its name, the shape of its weight, and the names of weight and bias."""

    name: str
    shape: Shape
    weight: str
    bias: str | None

    @property
    def parent(self) -> str:
        """The module that holds it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Found:
    """The layers whose rows, one below the other, are one of ours; and how they were told from others."""

    layers: tuple[Layer, ...]
    how: How


Roles = dict[str, Found]


def layers_of(shapes: dict[str, Shape]) -> tuple[list[Layer], list[str]]:
    """The layers among tensors, in the file's order, and the names of the tensors that are neither weight nor bias."""
    weights: dict[str, str] = {}
    biases: dict[str, str] = {}
    others = []
    for name in shapes:
        match = _WEIGHT_OR_BIAS.match(name)
        if match is None:
            others.append(name)
        else:
            (weights if match["kind"] == "weight" else biases)[match["layer"]] = name
    others += [name for layer, name in biases.items() if layer not in weights]
    return [Layer(name, shapes[weight], weight, biases.get(name)) for name, weight in weights.items()], others


def common_block(blocks: dict[int, dict[str, Shape]], container: str) -> tuple[dict[str, Shape], list[str]]:
    """The tensors that blocks have in common, with their shapes, and a complaint for each tensor where one differs."""
    problems = [f"{container}{index} is missing" for index in range(max(blocks)) if index not in blocks]
    counted = Counter(name for block in blocks.values() for name in block)
    usual: dict[str, Shape] = {}
    for name in max(blocks.values(), key=len) | {name: () for block in blocks.values() for name in block}:
        if 2 * counted[name] >= len(blocks):
            shapes = Counter(block[name] for block in blocks.values() if name in block)
            usual[name] = shapes.most_common(1)[0][0]
    for index, block in sorted(blocks.items()):
        for name, shape in usual.items():
            full = f"{container}{index}.{name}"
            if name not in block:
                problems.append(f"{full} is missing: other blocks have it, {shape}")
            elif block[name] != shape:
                problems.append(f"{full} has shape {block[name]}, in other blocks {shape}")
        problems += [f"{container}{index}.{name} {block[name]} is unexpected" for name in block if name not in usual]
    return usual, problems


def predictor_block(shapes: dict[str, Shape], dim: int) -> tuple[Roles, list[str]]:
    """Roles of a predictor block's layers, and complaints: what could not be found, and what has no place."""
    layers, others = layers_of(shapes)
    problems = [f"{name} {shapes[name]} is unexpected" for name in others]
    roles: Roles = {}
    rest = list(layers)
    _take(roles, rest, "modulation", (MODULATIONS * dim, ACTION_DIM))
    _take_mlp(roles, rest, dim)
    problems += _take_attentions(roles, rest, dim)
    problems += [f"{layer.weight} {layer.shape} is unexpected" for layer in rest]
    return roles, problems + _missing(
        roles, ("modulation", "self_qkv", "self_out", "cross_qkv", "cross_out", "mlp.0", "mlp.2"), "predictor.blocks.*."
    )


def head_block(shapes: dict[str, Shape], dim: int) -> tuple[Roles, list[str]]:
    """Roles of a keypoint head block's layers, and complaints."""
    layers, others = layers_of(shapes)
    problems = [f"{name} {shapes[name]} is unexpected" for name in others]
    roles: Roles = {}
    rest = list(layers)
    norms = [layer for layer in rest if layer.shape == (dim,)]
    if len(norms) == 2:
        roles["norm_attention"], roles["norm_mlp"] = (Found((layer,), "order") for layer in norms)
        rest = [layer for layer in rest if layer not in norms]
    _take_mlp(roles, rest, dim)
    _take(roles, rest, "qkv", (3 * dim, dim))
    _take(roles, rest, "out", (dim, dim))
    problems += [f"{layer.weight} {layer.shape} is unexpected" for layer in rest]
    return roles, problems + _missing(
        roles, ("norm_attention", "qkv", "out", "norm_mlp", "mlp.0", "mlp.2"), "keypoint_head.blocks.*."
    )


def loose_layers(layers: Sequence[Layer], wanted: dict[str, Shape], prefix: str) -> tuple[Roles, list[str]]:
    """Roles of the layers outside blocks, each told by its shape in `wanted`, and complaints."""
    roles: Roles = {}
    rest = list(layers)
    for role, shape in wanted.items():
        _take(roles, rest, role, shape)
    problems = [f"{layer.weight} {layer.shape} is unexpected" for layer in rest]
    return roles, problems + _missing(roles, wanted, prefix)


def isolating_prefix(name: str, others: Iterable[str]) -> str | None:
    """The shortest prefix of `name`, whole parts with a dot at the end, that none of `others` has."""
    others, parts = list(others), name.split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if not any(other.startswith(prefix) for other in others):
            return prefix
    return None


def numbered(names: Sequence[str]) -> str | None:
    """What stands before the number of the block in names such as `blocks.3.attn.qkv.weight`: `blocks.`.

    The number is the first part that differs between names, or else the first number; None if there is none.
    """
    split = [name.split(".") for name in names]
    shortest = min((len(parts) for parts in split), default=0)
    digits = [at for at in range(shortest) if all(parts[at].isdigit() for parts in split)]
    varying = [at for at in digits if len({parts[at] for parts in split}) > 1]
    if not digits:
        return None
    return "".join(f"{part}." for part in split[0][: (varying or digits)[0]])


def assumed_name(ours: str) -> tuple[str, str]:
    """The assumed name and shape, in letters, of one of ours. Names in blocks may have a number or `*`."""
    wanted = re.sub(r"\.\d+\.", ".*.", ours, count=1)
    return next((theirs, shape) for name, theirs, shape, _ in ASSUMED_NAMES if name == wanted)


def _missing(roles: Roles, wanted: Iterable[str], prefix: str) -> list[str]:
    problems = []
    for role in wanted:
        if role not in roles:
            name, shape = assumed_name(prefix + role)
            problems.append(f"{prefix}{role} is missing: nothing of shape ({shape}) can be it, as {name} would be")
    return problems


def _take(roles: Roles, rest: list[Layer], role: str, shape: Shape) -> None:
    """Move the one layer of a shape from `rest` to its role; several of it are left, and so named as unexpected."""
    found = [layer for layer in rest if layer.shape == shape]
    if len(found) == 1:
        roles[role] = Found((found[0],), "shape")
        rest.remove(found[0])


def _take_mlp(roles: Roles, rest: list[Layer], dim: int) -> None:
    """The second MLP layer is the only one with another number of inputs than the width; the first stands with it."""
    inputs = {layer: layer.shape[1] for layer in rest if len(layer.shape) == 2 and layer.shape[0] == dim}
    second = [layer for layer, count in inputs.items() if count not in (dim, ACTION_DIM)]
    if len(second) != 1:
        return
    first = [layer for layer in rest if layer.shape == (second[0].shape[1], dim)]
    how: How = "shape"
    if len(first) > 1:
        beside = [layer for layer in first if layer.parent == second[0].parent]
        first, how = (beside, "name") if len(beside) == 1 else (first[-1:], "order")
    if first:
        roles["mlp.0"], roles["mlp.2"] = Found((first[0],), how), Found((second[0],), "shape")
        rest.remove(first[0])
        rest.remove(second[0])


def _take_attentions(roles: Roles, rest: list[Layer], dim: int) -> list[str]:
    """Self- and cross-attention: each has 3 D rows of query, key and value and D of output, and D inputs."""
    layers = [layer for layer in rest if layer.shape[1:] == (dim,)]
    groups = _by_parent(layers, dim) or _by_rows(layers, dim)
    if groups is None:
        return []
    labelled = [any(CROSS.search(layer.name) for layer in group) for group in groups]
    how: How = "name" if sum(labelled) == 1 else "order"
    self_group, cross_group = (groups[1], groups[0]) if labelled == [True, False] else (groups[0], groups[1])
    for role, group in (("self", self_group), ("cross", cross_group)):
        parts = _attention(group, dim)
        if parts is None:
            return [f"the {role}-attention's layers {', '.join(layer.name for layer in group)} are not understood"]
        (query_key_value, output), told_by = parts
        weakest: How = "order" if "order" in (how, told_by) else "name"
        roles[f"{role}_qkv"] = Found(query_key_value, weakest)
        roles[f"{role}_out"] = Found((output,), weakest)
    for layer in layers:
        rest.remove(layer)
    return []


def _by_parent(layers: list[Layer], dim: int) -> list[list[Layer]] | None:
    """Two groups of layers that stand in two modules, if each has an attention's rows."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.parent, []).append(layer)
    complete = [group for group in groups.values() if sum(layer.shape[0] for layer in group) == 4 * dim]
    return complete if len(groups) == len(complete) == 2 else None


def _by_rows(layers: list[Layer], dim: int) -> list[list[Layer]] | None:
    """Two groups of layers one after the other in the file, the first one ending where it has an attention's rows."""
    rows = 0
    for count, layer in enumerate(layers, 1):
        rows += layer.shape[0]
        if rows == 4 * dim:
            second = layers[count:]
            return [layers[:count], second] if sum(each.shape[0] for each in second) == 4 * dim else None
    return None


def _attention(group: list[Layer], dim: int) -> tuple[tuple[tuple[Layer, ...], Layer], How] | None:
    """The layers of query, key and value in this order, and the output's; and how they were told apart."""
    square = [layer for layer in group if layer.shape[0] == dim]
    wide = [layer for layer in group if layer.shape[0] != dim]
    named = [
        layer
        for layer in square
        if OUTPUT.search(layer.name) and not any(pattern.search(layer.name) for pattern in QUERY_KEY_VALUE)
    ]
    output = named[0] if len(named) == 1 else square[-1] if square else None
    if output is None:
        return None
    how: How = "name" if len(square) == 1 or len(named) == 1 else "order"
    singles = [layer for layer in square if layer is not output]
    if [layer.shape[0] for layer in wide] == [3 * dim] and not singles:
        return ((wide[0],), output), how
    if [layer.shape[0] for layer in wide] == [2 * dim] and len(singles) == 1:
        return ((singles[0], wide[0]), output), how
    if not wide and len(singles) == 3:
        by_name = [[layer for layer in singles if pattern.search(layer.name)] for pattern in QUERY_KEY_VALUE]
        if all(len(found) == 1 for found in by_name):
            return (tuple(found[0] for found in by_name), output), how
        return (tuple(singles), output), "order"
    return None
