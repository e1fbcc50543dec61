"""Checkpoints in the DexWM release's layout give the release's numbers, or say tensor by tensor why they can't."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from official_fixtures import (
    ENCODER_DIM,
    HEAD_WIDTH,
    IMAGE_SIZE,
    KEYPOINT_HEADS,
    TOKENS,
    Release,
    release,
    save_release,
)
from transformers import Dinov2Config, Dinov2Model

from dexworld.actions import OFFICIAL, HandMotion, hand_motion
from dexworld.cli.convert import Convert
from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.evaluator import KeypointEvaluator
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.latent_space import LatentSpace
from dexworld.models.official import OfficialCheckpoint, load_official, read_official
from dexworld.models.official_config import OfficialOptions, official_config
from dexworld.models.official_file import unwrapped
from dexworld.models.official_layout import read_layout

OPTIONS = OfficialOptions(
    head_width=HEAD_WIDTH, keypoint_heads=KEYPOINT_HEADS, image_size=IMAGE_SIZE, encoder_source="none"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A DINOv2 of the fixtures' width in a folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    Dinov2Model(
        Dinov2Config(hidden_size=ENCODER_DIM, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def theirs() -> Release:
    return release()


@pytest.fixture
def options(encoder: str) -> OfficialOptions:
    return replace(OPTIONS, encoder_source=encoder)


def window(batch: int = 2, frames: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (B, frames, tokens, E) and actions (B, frames - 1, 44, 3), some of them of the release's odd 2 pi."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, frames, TOKENS, ENCODER_DIM, generator=generator)
    actions = 0.3 * torch.randn(batch, frames - 1, 44, 3, generator=generator)
    actions[:, ::2, 43, 2] = 6.2822
    return latents, actions


def still(actions: torch.Tensor) -> HandMotion:
    batch, steps = actions.shape[:2]
    return HandMotion(
        actions, torch.zeros(batch, steps + 1, 12, 3), torch.zeros(batch, steps + 1, 12, dtype=torch.bool)
    )


def ours_of(checkpoint: OfficialCheckpoint) -> DexWM:
    return checkpoint.model(check_encoder=False)


@torch.no_grad()
def assert_same_numbers(model: DexWM, theirs: Release) -> None:
    latents, actions = window()
    expected, maps = theirs(latents, actions.flatten(2))
    assert expected.abs().mean() > 0.1  # the comparison is of something
    assert maps.std() > 0.05
    assert (model.predict(latents, still(actions)) - expected).abs().max() < 1e-5
    assert (model.keypoint_logits(expected) - maps).abs().max() < 1e-5


@pytest.mark.parametrize("sizes", [{}, {"dim": ENCODER_DIM, "depth": 1}, {"head_dim": 16, "head_depth": 3}])
def test_predictions_and_heatmaps_of_all_slots_equal_the_releases(
    sizes: dict, options: OfficialOptions, tmp_path: Path
) -> None:
    theirs = release(**sizes)
    if sizes.get("dim") == ENCODER_DIM:
        options = replace(options, head_width=HEAD_WIDTH if ENCODER_DIM % HEAD_WIDTH == 0 else ENCODER_DIM)
        for block in theirs.blocks:
            block.attn.head_width = block.cross_attn.head_width = options.head_width
    checkpoint = read_official(save_release(theirs, tmp_path / "m_39.pth.tar"), options)
    assert_same_numbers(ours_of(checkpoint), theirs)


def test_last_frame_inference_and_rollouts_equal_the_releases(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    model = ours_of(read_official(save_release(theirs, tmp_path / "m_39.pth.tar"), options))
    latents, actions = window()
    with torch.no_grad():
        expected, maps = theirs(latents, actions.flatten(2), last_only=True)
        for index in range(len(latents)):
            motion = still(actions[index : index + 1])
            context = model.start(latents[index, :8], motion.index(0).slice(0, 7))
            predicted = model.rollout(context, motion.slice(7, 8))[:, 0]
            assert (predicted[0] - expected[index, -1]).abs().max() < 1e-5
            assert (model.keypoint_logits(predicted)[0] - maps[index, -1]).abs().max() < 1e-5
        _, long = window(frames=13)  # more steps than the window has slots: predictions feed predictions
        unrolled = theirs.rollout(latents[:, 0], long.flatten(2))
        assert (model.unroll(latents[:, :1], still(long)) - unrolled).abs().max() < 1e-5


def test_the_config_follows_from_the_shapes(theirs: Release, options: OfficialOptions, tmp_path: Path) -> None:
    checkpoint = read_official(save_release(theirs, tmp_path / "m_39.pth.tar"), options)
    config = checkpoint.config
    assert (config.predictor.dim, config.predictor.depth, config.predictor.heads) == (32, 2, 2)
    assert (config.predictor.mlp_ratio, config.predictor.num_context) == (2, 8)
    predictor = config.predictor
    assert [predictor.residual, predictor.embed_actions, predictor.pixel_aligned] == [False, False, False]
    assert (config.keypoint_head.dim, config.keypoint_head.depth, config.keypoint_head.cell) == (32, 2, 14)
    assert (config.keypoint_head.token_grid, config.keypoint_head.loss) == ((4, 4), "mse")
    assert config.action_convention == OFFICIAL
    assert config.action_scale == (1.0, 1.0, 1.0)
    assert (config.encoder.patch, config.encoder.dim, config.encoder.source) == (14, 24, options.encoder_source)
    assert len(checkpoint.encoder) == len(theirs.encoder.state_dict())


@torch.no_grad()
def test_windows_of_keypoints_and_cameras_give_the_releases_predictions(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(2)
    keypoints = 0.2 * torch.randn(1, 9, 42, 3, generator=generator, dtype=torch.float64)
    angles = 0.2 * torch.randn(1, 9, 3, generator=generator, dtype=torch.float64)
    places = 0.2 * torch.randn(1, 9, 3, generator=generator, dtype=torch.float64)
    cameras = torch.eye(4, dtype=torch.float64).repeat(1, 9, 1, 1)
    cameras[..., :3, :3], cameras[..., :3, 3] = rotations(angles), places
    homogeneous = torch.cat([keypoints, torch.ones(1, 9, 42, 1, dtype=torch.float64)], dim=-1)
    in_first_camera = (homogeneous @ torch.linalg.inv(cameras[:, :1]).mT)[..., :3]
    rows = torch.cat([in_first_camera, places[:, :, None], angles[:, :, None]], dim=2)  # (1, 9, 44, 3)
    actions = rows[:, 1:] - rows[:, :-1]
    actions[..., 43, 2] %= 2 * torch.pi
    assert actions[..., 43, 2].max() > 6  # a small turn to one side is almost a full turn in the release

    checkpoint = read_official(save_release(theirs, tmp_path / "m.pth.tar"), options)
    valid, intrinsics = torch.ones(1, 9, 42, dtype=torch.bool), torch.eye(3, dtype=torch.float64)[None]
    motion = hand_motion(keypoints, valid, cameras, intrinsics, checkpoint.config.action_convention)
    latents, _ = window(batch=1)
    expected, _ = theirs(latents, actions.float().flatten(2))
    assert (ours_of(checkpoint).predict(latents, motion.to(torch.float32)) - expected).abs().max() < 1e-5


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """Rotation matrices of angles about the fixed axes x, then y, then z."""
    generators = torch.zeros(3, 3, 3, dtype=angles.dtype)
    for axis, (row, column) in enumerate(((2, 1), (0, 2), (1, 0))):
        generators[axis, row, column], generators[axis, column, row] = 1.0, -1.0
    about_x, about_y, about_z = (
        torch.matrix_exp(angles[..., axis, None, None] * generators[axis]) for axis in range(3)
    )
    return about_z @ about_y @ about_x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": None}, "no known image size has 28 tokens of 14 x 14 pixels"),
        ({"head_width": 12}, "a predictor of width 32 is not a multiple of its heads"),
        ({"keypoint_heads": 5}, "a keypoint head of width 32 is not a multiple of its heads"),
        ({"encoder_source": None}, "an encoder of 14-pixel patches and width 24, which is none of dinov2"),
        ({"encoder": "dinov2"}, "the encoder dinov2 has patches of 14 and width 1024, but the tensors say 14 and 24"),
    ],
)
def test_what_the_tensors_can_not_tell_is_asked_for(
    changes: dict, message: str, theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_official(save_release(theirs, tmp_path / "m.pth.tar"), replace(options, **changes))
    for contradiction in ({"encoder": "resnet"}, {"head_width": 0}, {"keypoint_rows": "columns"}):
        with pytest.raises(ValueError, match=r"choose from dinov2|must be positive|choose 'pixels-first'"):
            replace(options, **contradiction)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_wrappers_do_not_matter(
    prefix: str, theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    path = save_release(theirs, tmp_path / "m_39.pth.tar", prefix)
    assert_same_numbers(ours_of(read_official(path, options)), theirs)
    assert list(unwrapped({"module.blocks.0._checkpoint_wrapped_module.mlp.fc1._orig_mod.weight": torch.zeros(1)})) == [
        "blocks.0.mlp.fc1.weight"
    ]
    with pytest.raises(CheckpointError, match="two tensors are named a"):
        unwrapped({"module.a": torch.zeros(1), "a": torch.zeros(1)})


def renamed(weights: dict, *pairs: tuple[str, str]) -> dict:
    for old, new in pairs:
        weights = {name.replace(old, new): value for name, value in weights.items()}
    return weights


def split_rows(weights: dict, layer: str, *parts: tuple[str, int]) -> dict:
    """A fused layer as several, each with so many thirds of its rows."""
    result = {}
    for name, value in weights.items():
        if f".{layer}." not in name:
            result[name] = value
            continue
        first = 0
        for new, thirds in parts:
            rows = len(value) // 3
            result[name.replace(layer, new)] = value[first * rows : (first + thirds) * rows].clone()
            first += thirds
    return result


FOREIGN: dict[str, Callable[[dict], dict]] = {
    "inside another module": lambda weights: {f"net.{name}": value for name, value in weights.items()},
    "other names": lambda weights: renamed(
        weights, ("pos_embed", "position"), ("blocks.", "layers."), ("cross_attn", "cttn"), ("heatmap_model", "kp")
    ),
    "names that say nothing": lambda weights: renamed(
        weights, ("cross_attn", "second"), ("attn", "first"), ("mlp", "third"), ("proj_in", "in"), ("proj_out", "back")
    ),
    "cross-attention as q and kv": lambda weights: split_rows(
        weights, "cross_attn.qkv", ("cross_attn.q", 1), ("cross_attn.kv", 2)
    ),
    "cross-attention as q, k and v": lambda weights: split_rows(
        weights, "cross_attn.qkv", ("cross_attn.q_proj", 1), ("cross_attn.k_proj", 1), ("cross_attn.v_proj", 1)
    ),
    "torch's own attention": lambda weights: renamed(
        weights,
        ("cross_attn.qkv.", "cross_attn.in_proj_"),
        ("cross_attn.proj", "cross_attn.out_proj"),
    ),
    "flat attention layers": lambda weights: renamed(
        weights, ("cross_attn.", "cross_"), ("attn.proj", "attn_out"), ("attn.qkv", "attn_qkv")
    ),
    "positions with a first axis": lambda weights: {
        name: value[None] if name == "pos_embed" else value for name, value in weights.items()
    },
    "half precision": lambda weights: {
        name: value.bfloat16().float().bfloat16() for name, value in weights.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_names_and_splits_are_recognised_by_shape_and_order(
    kind: str, theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    theirs = release(seed=3)
    if kind == "half precision":
        theirs.load_state_dict({name: value.bfloat16().float() for name, value in theirs.state_dict().items()})
    path = save_release(theirs, tmp_path / "m_39.pth.tar", model=FOREIGN[kind](theirs.state_dict()))
    checkpoint = read_official(path, options)
    assert_same_numbers(ours_of(checkpoint), theirs)
    assert any("by their order" in note for note in checkpoint.notes) == (kind == "names that say nothing")


def test_a_head_with_the_keypoint_first_is_read_when_told_and_doubted_when_not(
    options: OfficialOptions, tmp_path: Path
) -> None:
    theirs = release()
    with torch.no_grad():  # a head whose neighbouring pixels are alike, as trained ones' are
        smooth = torch.randn(1, 1, 12, 32, generator=torch.Generator().manual_seed(0)).expand(14, 14, -1, -1)
        theirs.heatmap_model.head.weight.copy_(0.2 * smooth.flatten(0, 2))
    weights = theirs.state_dict()
    for kind in ("weight", "bias"):
        name = f"heatmap_model.head.{kind}"
        rows = weights[name].unflatten(0, (14, 14, 12))
        weights[name] = rows.movedim(2, 0).flatten(0, 2).contiguous()
    path = save_release(theirs, tmp_path / "m_39.pth.tar", model=weights)
    told = read_official(path, replace(options, keypoint_rows="keypoints-first"))
    assert_same_numbers(ours_of(told), theirs)
    assert not any("look at a heatmap" in note for note in told.notes)
    assert any("look at a heatmap" in note for note in read_official(path, options).notes)


def test_every_tensor_that_is_missing_unexpected_or_of_another_shape_is_named(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    weights = release(depth=3).state_dict()
    del weights["blocks.1.attn.qkv.bias"]
    del weights["final_layer.linear.weight"]
    del weights["heatmap_model.norm.weight"]
    weights["blocks.2.mlp.fc1.weight"] = torch.zeros(5, 32)
    weights["blocks.0.extra.weight"] = torch.zeros(3, 3)
    weights["time_embed"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as error:
        read_official(save_release(theirs, tmp_path / "m.pth.tar", model=weights), options)
    for complaint in (
        "blocks.1.attn.qkv.bias is missing: other blocks have it, (96,)",
        "blocks.2.mlp.fc1.weight has shape (5, 32), in other blocks (64, 32)",
        "blocks.0.extra.weight (3, 3) is unexpected",
        "predictor.final is missing: nothing of shape (D, D) can be it, as final_layer.linear would be",
        "keypoint_head.norm is missing",
        "time_embed (7,) is unexpected",
    ):
        assert complaint in str(error.value)
    weights = {**theirs.state_dict(), "ema.decay": torch.zeros(1)}
    path = save_release(theirs, tmp_path / "e.pth.tar", model=weights)
    with pytest.raises(CheckpointError, match=r"ema\.decay \(1,\) is unexpected"):
        read_official(path, options)
    assert_same_numbers(ours_of(read_official(path, replace(options, ignore=("ema.*",)))), theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {n: v for n, v in weights.items() if "adaLN" not in n}, "which every DexWM has"),
        (lambda weights: {n: v for n, v in weights.items() if "heatmap" not in n}, "no keypoint head"),
        (lambda weights: {n: v for n, v in weights.items() if n != "pos_embed"}, "predictor.positions is missing"),
        (lambda weights: {n: v for n, v in weights.items() if ".fc2." not in n}, "mlp.2 is missing"),
        (lambda weights: {n: v for n, v in weights.items() if "blocks.0." not in n}, r"blocks\.0 is missing"),
        (
            lambda weights: {**weights, "pos_embed": weights["pos_embed"][:, :-1]},
            r"images of \(56, 98\) do not have 27 tokens of 14",
        ),
        (lambda weights: {**weights, "proj_in.bias": torch.full((32,), torch.nan)}, "project_in.bias holds NaN"),
        (lambda weights: {**weights, "proj_in.bias": torch.zeros(31)}, r"has shape \(31,\), expected \(32,\)"),
        (lambda weights: {**weights, "heatmap_model.blocks.0.attn.qkv.bias": torch.zeros(96)}, "qkv.bias is"),
        (lambda weights: {"model": 3}, "which every DexWM has"),
    ],
)
def test_checkpoints_of_another_layout_are_refused_with_the_reason(
    change: Callable[[dict], dict], message: str, theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    path = save_release(theirs, tmp_path / "m.pth.tar", model=change(theirs.state_dict()))
    with pytest.raises(CheckpointError, match=message):
        read_official(path, options)


class Sneaky:
    """Runs code when it is unpickled by a reader that isn't careful."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_files_that_would_run_code_or_are_damaged_are_refused(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    path = save_release(theirs, tmp_path / "m.pth.tar", args=Sneaky(tmp_path / "touched"))
    with pytest.raises(CheckpointError, match="could run code"):
        read_official(path, options)
    assert not (tmp_path / "touched").exists()
    whole = save_release(theirs, path).read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"truncated|damaged"):
            read_official(path, options)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(CheckpointError, match="checksum"):
        read_official(path, options)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        read_official(tmp_path / "nowhere.pth.tar", options)


def test_the_weights_are_found_under_any_key_and_asked_for_where_two_could_be_meant(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    weights = theirs.state_dict()
    for name, content in (
        ("bare", weights),
        ("other", {"net": weights, "epoch": 1}),
        ("ordered", OrderedDict(weights)),
    ):
        path = tmp_path / f"{name}.pth.tar"
        torch.save(content, path)
        assert read_official(path, options).provenance["key"] == ("net" if name == "other" else None)
    torch.save({"model": weights, "ema": weights}, path)
    with pytest.raises(CheckpointError, match="several world models"):
        read_official(path, options)
    assert read_official(path, replace(options, key="ema")).provenance["key"] == "ema"
    with pytest.raises(CheckpointError, match="'opt' is not a state dict"):
        read_official(path, replace(options, key="opt"))


def test_a_converted_model_is_ours_with_its_source_and_licence(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    import hashlib

    path = save_release(theirs, tmp_path / "m_39.pth.tar")
    Convert(path, tmp_path / "model", options=options).run()
    model = DexWM.from_pretrained(tmp_path / "model")
    assert_same_numbers(model, theirs)
    assert model.provenance["source"] == "m_39.pth.tar"
    assert model.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.provenance["training"] == {"epoch": 39, "step": 800}
    card = (tmp_path / "model" / "README.md").read_text()
    for text in ("license: cc-by-nc-4.0", "no\ncommercial use", model.provenance["sha256"], "`blocks.*.attn.qkv`"):
        assert text in card
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["provenance"]["licence"] == "CC-BY-NC-4.0"
    with pytest.raises(FileExistsError, match="already holds a model"):
        Convert(path, tmp_path / "model", options=options).run()


def test_the_evaluation_head_of_another_checkpoint_is_taken(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    other = release(seed=5, head_dim=64, head_depth=3)
    head_path = save_release(other, tmp_path / "kp_layer.pth.tar")
    Convert(save_release(theirs, tmp_path / "m.pth.tar"), tmp_path / "model", head=head_path, options=options).run()
    model = DexWM.from_pretrained(tmp_path / "model")
    latents, actions = window()
    with torch.no_grad():
        expected, _ = theirs(latents, actions.flatten(2))
        maps = other.heatmap_model(latents[0])
        assert (model.predict(latents, still(actions)) - expected).abs().max() < 1e-5
        assert (model.keypoint_logits(latents[0]) - maps).abs().max() < 1e-5
        Convert(head_path, tmp_path / "evaluator", part="evaluator", options=options).run()
        evaluator = KeypointEvaluator.from_pretrained(tmp_path / "evaluator")
        assert (evaluator(latents[0]) - maps).abs().max() < 1e-5
    assert evaluator.config.latents == LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    assert "license: cc-by-nc-4.0" in (tmp_path / "evaluator" / "README.md").read_text()
    assert model.provenance["keypoint_head"]["source"] == "kp_layer.pth.tar"


def test_the_encoder_is_compared_with_the_copy_in_the_file(
    theirs: Release, options: OfficialOptions, tmp_path: Path
) -> None:
    encoder = Dinov2Model.from_pretrained(str(options.encoder_source)).state_dict()
    copied = {name: value for name, value in theirs.state_dict().items() if not name.startswith("encoder.")}
    for name, value in encoder.items():  # under the names of another library, query, key and value fused
        if ".attention.query." in name:
            parts = [encoder[name.replace("query", part)] for part in ("query", "key", "value")]
            copied[f"encoder.net.{name.replace('attention.query', 'qkv')}"] = torch.cat(parts)
        elif ".attention.key." not in name and ".attention.value." not in name:
            copied[f"encoder.net.{name}"] = value
    path = save_release(theirs, tmp_path / "m.pth.tar", model=copied)
    assert_same_numbers(load_official(path, options), theirs)
    changed = "encoder.net.embeddings.patch_embeddings.projection.weight"
    copied[changed] = copied[changed] + 0.01
    path = save_release(theirs, tmp_path / "n.pth.tar", model=copied)
    with pytest.raises(CheckpointError, match=r"1 of the encoder's tensors are not in the file, e\.g\. .*projection"):
        load_official(path, options)


@pytest.mark.parametrize("grid", [(0, 4), (4, -1), (4, 4, 4)])
def test_a_head_of_impossible_places_is_refused(grid: tuple) -> None:
    with pytest.raises(ValueError, match=r"sizes must be positive|token_grid is rows and columns"):
        KeypointHeadConfig(token_grid=grid)


@pytest.mark.parametrize(
    ("size", "dim", "depth", "heads"),
    [("s", 384, 12, 6), ("b", 768, 12, 12), ("l", 1024, 24, 16), ("xl", 1024, 32, 16)],
)
def test_the_papers_sizes_are_recognised_from_their_shapes(size: str, dim: int, depth: int, heads: int) -> None:
    from dexworld.models.predictor import Predictor

    config = official_config(size)  # type: ignore[arg-type]
    with torch.device("meta"):
        parts = {
            "": Predictor(config.predictor, 1024, config.grid, config.image_size, (1.0, 1.0, 1.0)),
            "heatmap_model.": KeypointHead(config.keypoint_head, 1024, config.grid, config.image_size),
        }
        weights = {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}
        weights["encoder.patch_embed.proj.weight"] = torch.zeros(1024, 3, 14, 14)
    layout = read_layout(weights)
    assert layout.problems == []
    assert layout.predictor is not None
    assert layout.head is not None
    assert (layout.predictor.dim, layout.predictor.depth, layout.predictor.dim // 64) == (dim, depth, heads)
    assert (layout.predictor.slots, layout.predictor.tokens, layout.predictor.latent_dim) == (9, 448, 1024)
    assert (layout.head.tokens, layout.head.cell, layout.head.dim, layout.head.depth) == (256, 14, 256, 6)
    count = sum(value.numel() for value in parts["heatmap_model."].parameters())
    assert abs(count - 5.67e6) < 0.01e6  # the release's head
