"""Checkpoints in the DexWM release's layout give the release's numbers, or say tensor by tensor why they can't."""

import copy
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import EllipsisType

import pytest
import torch
from release_fixtures import DIM, ENCODER_DIM, IMAGE_SIZE, TOKENS, Release, release, save_release
from torch import Tensor

from dexworld.actions import OFFICIAL, HandMotion, hand_motion
from dexworld.cli.convert import Convert
from dexworld.geometry import rigid, rotation_from_euler_xyz
from dexworld.models.checkpoint import CheckpointError
from dexworld.models.dexwm import DexWM
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.latent_space import LatentSpace
from dexworld.models.release import ReleaseOptions, convert_weights, infer_config, read_release
from dexworld.models.release_file import ReleaseFile
from dexworld.models.world_model import preset
from encoder_fixtures import save_tiny


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> ReleaseOptions:
    """For the fixtures' small pictures, and a DINOv2 of their width in a folder."""
    folder = save_tiny("dinov2", tmp_path_factory.mktemp("encoder"), hidden_size=ENCODER_DIM)
    return ReleaseOptions(encoder_source=str(folder), image_size=IMAGE_SIZE)


@pytest.fixture(scope="module")
def theirs() -> Release:
    return release()


@pytest.fixture
def path(theirs: Release, tmp_path: Path) -> Path:
    """A file of the release that holds `theirs`."""
    return save_release(theirs, tmp_path / "m_39.pth.tar")


def window(batch: int = 2, frames: int = 9) -> tuple[Tensor, Tensor]:
    """Latents (B, frames, tokens, E) and actions (B, frames - 1, 44, 3), some of them of the release's odd 2 pi."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, frames, TOKENS, ENCODER_DIM, generator=generator)
    actions = 0.3 * torch.randn(batch, frames - 1, 44, 3, generator=generator)
    actions[:, ::2, 43, 2] = 6.2822
    return latents, actions


def still(actions: Tensor) -> HandMotion:
    pixels = torch.zeros(actions.shape[0], actions.shape[1] + 1, 12, 3)
    return HandMotion(actions, pixels, pixels[..., 0] > 0)


def refused(path: Path, options: ReleaseOptions, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_release(path, options)


def converted(path: Path, options: ReleaseOptions) -> DexWM:
    return read_release(path, options).model()


@torch.no_grad()
def assert_same_numbers(model: DexWM, theirs: Release) -> None:
    """Predictions of all slots and heatmaps, in double precision."""
    model, theirs = model.double(), copy.deepcopy(theirs).double()
    latents, actions = (each.double() for each in window())
    expected, maps = theirs(latents, actions.flatten(2))
    assert expected.abs().mean() > 0.1  # the comparison is of something
    assert maps.std() > 0.05
    assert (model.predict(latents, still(actions)) - expected).abs().max() < 1e-12
    assert (model.keypoint_logits(expected) - maps).abs().max() < 1e-12


@pytest.mark.parametrize("sizes", [{}, {"dim": ENCODER_DIM, "depth": 1}, {"head_dim": 16, "head_depth": 3}], ids=str)
def test_predictions_and_heatmaps_of_all_slots_equal_the_releases(sizes, options, tmp_path):
    theirs = release(**sizes)
    assert_same_numbers(converted(save_release(theirs, tmp_path / "m.pth.tar"), options), theirs)


def test_last_frame_inference_and_rollouts_equal_the_releases(theirs, path, options):
    model = converted(path, options)
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


@torch.no_grad()
def test_windows_of_keypoints_and_cameras_give_the_releases_predictions(theirs, path, options):
    numbers = 0.2 * torch.randn(1, 9, 44, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    keypoints, angles, places = numbers[:, :, :42], numbers[:, :, 42], numbers[:, :, 43]
    cameras = rigid(rotation_from_euler_xyz(angles), places)
    in_first_camera = (keypoints - places[:, :1, None]) @ cameras[:, :1, :3, :3]
    rows = torch.cat([in_first_camera, places[:, :, None], angles[:, :, None]], dim=2)  # (1, 9, 44, 3)
    actions = rows[:, 1:] - rows[:, :-1]
    actions[..., 43, 2] %= 2 * torch.pi
    assert actions[..., 43, 2].max() > 6  # a small turn to one side is almost a full turn in the release

    model, latents = converted(path, options), window(batch=1)[0]
    valid, intrinsics = torch.ones(1, 9, 42, dtype=torch.bool), torch.eye(3, dtype=torch.float64)[None]
    motion = hand_motion(keypoints, valid, cameras, intrinsics, model.config.action_convention)
    expected, _ = theirs(latents, actions.float().flatten(2))
    assert (model.predict(latents, motion.to(torch.float32)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_wrappers_do_not_matter(prefix, theirs, options, tmp_path):
    path = save_release(theirs, tmp_path / "m_39.pth.tar", prefix)
    assert_same_numbers(converted(path, options), theirs)
    doubled = {"pos_embed": torch.zeros(1), f"{prefix or 'module.'}pos_embed": torch.zeros(1)}
    refused(save_release(theirs, path, model=doubled), options, "two tensors are named pos_embed")


def test_a_state_dict_alone_in_half_precision_is_read(options, tmp_path):
    theirs = release(seed=3)
    theirs.load_state_dict({name: value.bfloat16().float() for name, value in theirs.state_dict().items()})
    torch.save({name: value.bfloat16() for name, value in theirs.state_dict().items()}, tmp_path / "half.pth.tar")
    model = converted(tmp_path / "half.pth.tar", options)
    assert_same_numbers(model, theirs)
    assert model.provenance["training"] == {}


def test_a_head_with_the_keypoint_first_is_read_when_asked_for(options, tmp_path):
    theirs = release()
    weights = theirs.state_dict()
    for name in ("kp_layer.vit_decoder.head.0.weight", "kp_layer.vit_decoder.head.0.bias"):
        weights[name] = weights[name].unflatten(0, (14, 14, 12)).movedim(2, 0).flatten(0, 2).contiguous()
    path = save_release(theirs, tmp_path / "m_39.pth.tar", model=weights)
    assert_same_numbers(converted(path, replace(options, keypoint_rows="keypoints-first")), theirs)


def test_every_tensor_that_is_missing_unexpected_or_of_another_shape_is_named(options, tmp_path):
    theirs = release(depth=3)
    weights = theirs.state_dict()
    for name in ("blocks.1.attn.packed_proj.bias", "final_layer.linear.weight", "kp_layer.vit_decoder.norm.weight"):
        del weights[name]
    weights |= {
        "blocks.2.mlp.fc1.weight": torch.zeros(5, DIM),
        "blocks.2.cttn.packed_proj.weight": torch.zeros(2 * DIM, DIM),
        "blocks.0.extra.weight": torch.zeros(3, 3),
        "time_embed": torch.zeros(7),
        "kp_layer.vit_decoder.blocks.0.attn.qkv.bias": torch.zeros(96),
        "input_proj.bias": torch.full((DIM,), torch.nan),
    }
    with pytest.raises(CheckpointError) as error:
        read_release(save_release(theirs, tmp_path / "m", model=weights), options)
    assert sorted(str(error.value).splitlines()[1:]) == [
        "  blocks.0.extra.weight (3, 3) is unexpected",
        "  blocks.1.attn.packed_proj.bias (384,) is missing",
        "  blocks.2.cttn.packed_proj.weight has shape (256, 128), expected (384, 128)",
        "  blocks.2.mlp.fc1.weight has shape (5, 128), expected (256, 128)",
        "  final_layer.linear.weight (128, 128) is missing",
        "  input_proj.bias holds NaN or Inf",
        "  kp_layer.vit_decoder.blocks.0.attn.qkv.bias (96,) is unexpected",
        "  kp_layer.vit_decoder.norm.weight (32,) is missing",
        "  time_embed (7,) is unexpected",
    ]


def without(part: str) -> Callable[[dict], dict]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def cut(*index: slice | EllipsisType) -> Callable[[dict], dict]:
    return lambda weights: {**weights, "pos_embed": weights["pos_embed"][index]}


@pytest.mark.parametrize(
    ("change", "options_changed", "message"),
    [
        (without("kp_layer"), {}, r"lacks .*: kp_layer\.vit_decoder\.pos_embed, kp_layer.*head\.0\.weight$"),
        (without("pos_embed"), {}, r"lacks tensors .* sizes: pos_embed, kp_layer\.vit_decoder\.pos_embed$"),
        (without("fc2"), {}, r"blocks\.0\.mlp\.fc2\.weight \(128, 256\) is missing"),
        (without("output_proj"), {}, r"output_proj\.weight \(64, 128\) is missing"),
        (without("blocks.0."), {}, r"lacks tensors .*: blocks\.0\.mlp\.fc1\.weight, kp_layer"),
        (cut(slice(None), slice(27)), {}, r"images of \(56, 98\) do not have 27 tokens of 14"),
        (cut(..., slice(127)), {}, "a multiple of 64"),
        (cut(slice(1)), {}, "contradict each other"),
        (lambda weights: {"model": 3}, {}, "holds no state dict under 'model'"),
        (lambda weights: 3, {}, "holds no state dict under 'model'"),
        (dict, {"image_size": None}, "no known image size has 28 tokens of 14 x 14 pixels"),
        (dict, {"image_size": (56, 84)}, r"images of \(56, 84\) do not have 28 tokens of 14"),
        (dict, {"encoder_source": None}, "an encoder of 14-pixel patches and width 64, which is none of dinov2"),
    ],
)
def test_what_is_of_another_layout_or_not_told_is_refused(change, options_changed, message, theirs, options, tmp_path):
    path = save_release(theirs, tmp_path / "m.pth.tar", model=change(theirs.state_dict()))
    refused(path, replace(options, **options_changed), message)


class Sneaky(str):
    """A file that is made when this is unpickled by a reader that isn't careful."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(self),))


def test_files_that_would_run_code_or_are_damaged_are_refused(theirs, path, options, tmp_path):
    whole = path.read_bytes()
    save_release(theirs, path, args=Sneaky(tmp_path / "touched"))
    refused(path, options, "could run code")
    assert not (tmp_path / "touched").exists()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, options, "is truncated, damaged")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    path.write_bytes(flipped)
    refused(path, options, "checksum")
    refused(tmp_path / "nowhere.pth.tar", options, "no checkpoint file")
    torch.save({"decoder_state": {"pos_embed": torch.zeros(1)}}, path)
    refused(path, options, r"pixel decoder \(decoder_state\), which is not converted")


def test_a_converted_model_is_ours_with_its_source_and_licence(theirs, path, options, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dexworld"):
        Convert(path, tmp_path / "model", options=options).run()
    assert "no commercial use" in caplog.text
    model = DexWM.from_pretrained(tmp_path / "model")
    assert_same_numbers(model, theirs)
    assert model.provenance["source"] == "m_39.pth.tar"
    assert model.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.provenance["training"] == {"epoch": 39, "train_steps": 800}
    card = (tmp_path / "model" / "README.md").read_text()
    texts = ("license: cc-by-nc-4.0", "no\ncommercial use", model.provenance["sha256"], "scrambled")
    assert [text for text in texts if text not in card] == []
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["provenance"]["licence"] == "CC-BY-NC-4.0"
    with pytest.raises(FileExistsError, match="already holds a model"):
        Convert(path, tmp_path / "model", options=options).run()


def test_the_evaluation_head_of_another_checkpoint_is_taken(theirs, path, options, tmp_path):
    other = release(seed=5, head_dim=64, head_depth=3)
    head_path = save_release(other, tmp_path / "kp_layer.pth.tar")
    Convert(path, tmp_path / "model", head=head_path, options=options).run()
    model = DexWM.from_pretrained(tmp_path / "model")
    latents, actions = window()
    with torch.no_grad():
        expected, _ = theirs(latents, actions.flatten(2))
        maps = other.heatmaps(latents[0])
        assert (model.predict(latents, still(actions)) - expected).abs().max() < 1e-5
        assert (model.keypoint_logits(latents[0]) - maps).abs().max() < 1e-5
        Convert(head_path, tmp_path / "evaluator", part="evaluator", options=options).run()
        evaluator = KeypointEvaluator.from_pretrained(tmp_path / "evaluator")
        assert (evaluator(latents[0]) - maps).abs().max() < 1e-5
    assert evaluator.config.latents == LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    assert "license: cc-by-nc-4.0" in (tmp_path / "evaluator" / "README.md").read_text()
    assert model.provenance["keypoint_head"]["source"] == "kp_layer.pth.tar"
    narrow = save_release(release(encoder_dim=48), tmp_path / "narrow.pth.tar")
    with pytest.raises(CheckpointError, match=r"narrow.pth.tar reads \(4, 7\) latents of width 48, m_39"):
        Convert(path, tmp_path / "other", head=narrow, options=options).run()


@pytest.mark.parametrize(("size", "dim", "depth"), [("s", 384, 12), ("b", 768, 12), ("l", 1024, 24), ("xl", 1024, 32)])
def test_the_papers_sizes_are_recognised_and_no_tensor_is_left(size, dim, depth):
    with torch.device("meta"):
        theirs = Release(dim, depth, encoder_dim=1024, head_dim=256, head_depth=6, tokens=448, side=16)
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in theirs.state_dict().items()}
    file = ReleaseFile(Path("m.pth.tar"), weights, {}, "")
    config = infer_config(file, ReleaseOptions())
    expected = preset(f"official-{size}")
    assert config.predictor == expected.predictor
    assert config.keypoint_head == replace(expected.keypoint_head, token_grid=(16, 16))
    assert config.image_size == (224, 392)
    assert (config.action_convention, config.action_scale) == (OFFICIAL, (1.0, 1.0, 1.0))
    predictor, head = (
        sum(map(Tensor.numel, part.values())) for part in convert_weights(file, config, ReleaseOptions())
    )
    assert predictor + head == sum(map(Tensor.numel, without("image_embedder.")(weights).values()))
    assert abs(head - 5.67e6) < 0.01e6  # the release's head


def test_dinov2_and_webssl_are_told_apart_by_names_or_arguments():
    with torch.device("meta"):
        theirs = Release(384, 1, encoder_dim=1024, head_dim=256, head_depth=1, tokens=448, side=16)
    weights = without("image_embedder.")(theirs.state_dict())
    for names, args, family in (
        (["blocks.0.attn.qkv.weight"], {}, "dinov2"),
        (["encoder.layer.0.attention.attention.query.weight"], {}, "webssl"),
        ([], {"model": {"encoder": "webssl_vitl"}}, "webssl"),
        ([], {}, "dinov2"),
    ):
        copied = {f"image_embedder.{name}": torch.zeros(1) for name in names}
        file = ReleaseFile(Path("m.pth.tar"), weights | copied, {"args": args}, "")
        assert infer_config(file, ReleaseOptions()).encoder.family == family
