import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from dexworld.models.perceptual import BLOCKS, LPIPS, SCALE, SHIFT
from dexworld.video.judge.video_measures import NO_WEIGHTS, Perceptual, PerceptualConfig, gradient_distances


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
    with pytest.raises(ValueError, match="convert them once"):
        LPIPS.from_files(tmp_path / "vgg.pth", files[1])


def test_without_weights_there_are_reasons_and_no_numbers():
    truth = scene()
    region = np.zeros(truth.shape[:3], bool)
    region[:, :10] = True
    measures = Perceptual()(blurred(truth), truth, region, "a prompt")
    named = {"lpips", "lpips_inside", "lpips_outside", "dreamsim", "xclip"}
    assert {name for name, value in measures.items() if value == NO_WEIGHTS} == named
    assert all(isinstance(measures[name], float) for name in set(measures) - named)


def test_with_weights_lpips_is_measured(files):
    truth = scene()
    measures = Perceptual(PerceptualConfig(*files))(blurred(truth), truth, np.zeros(truth.shape[:3], bool))
    assert measures["lpips"] > 0
    assert measures["lpips_outside"] == pytest.approx(measures["lpips"])
    assert measures["lpips_inside"] is None  # nothing is inside


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


def test_the_gradient_distance_is_zero_for_equal_videos_and_grows_with_blur():
    truth = scene()
    slight = gradient_distances(blurred(truth), truth)[0]
    strong = gradient_distances(blurred(blurred(blurred(truth))), truth)[0]
    assert gradient_distances(truth, truth) == [0.0]
    assert 0 < slight < strong < 1


def test_the_gradient_distance_forgives_brightness_but_not_a_missing_object():
    truth = scene()
    brighter = (truth.astype(int) + 12).clip(0, 255).astype(np.uint8)
    missing = truth.copy()
    missing[:, 8:24, 8:24] = 120
    assert gradient_distances(brighter, truth)[0] < 0.1 * gradient_distances(missing, truth)[0]


def test_the_gradient_distance_of_flat_against_an_edge_is_its_closed_form():
    flat, edge = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.uint8)
    edge[:, :, 16:] = 255
    column = np.zeros((1, 32, 32), bool)
    column[:, :, 15] = True  # where the gradient to the next pixel is, at full scale
    found = gradient_distances(flat, edge, [column])[0]
    full = 3**0.5 / (3**0.5 + 0.02)
    assert found == pytest.approx(full, abs=1e-5)  # the edge is a whole pixel's at every scale


def test_the_gradient_distance_inside_a_region_is_larger_where_the_difference_is():
    truth = scene()
    prediction = truth.copy()
    prediction[:, :16, :16] = 0
    region = np.zeros(truth.shape[:3], bool)
    region[:, :16, :16] = True
    whole, inside, outside, nothing = gradient_distances(prediction, truth, [None, region, ~region, region & False])
    assert inside > whole > outside
    assert nothing is None
