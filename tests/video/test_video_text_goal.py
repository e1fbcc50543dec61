"""The text score is X-CLIP's own cosine, with weights from a folder and no others."""

import json

import numpy as np
import pytest
import torch

from dexworld.video.judge.video_measures import TextScorer

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
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


def test_scores_are_the_cosines_of_the_models_embeddings(weights):
    from transformers import AutoTokenizer, XCLIPModel

    scorer = TextScorer(weights)
    videos = [video(0), video(1), np.zeros((9, 48, 64, 3), dtype=np.uint8)]
    scores = scorer(videos, "a hand opens a drawer")
    model = XCLIPModel.from_pretrained(str(weights)).eval()
    ids = AutoTokenizer.from_pretrained(str(weights))(["a hand opens a drawer"], return_tensors="pt", truncation=True)
    ids = {name: ids[name][:, :16] for name in ("input_ids", "attention_mask")}
    for each, score in zip(videos, scores, strict=True):
        with torch.no_grad():
            output = model(pixel_values=scorer.prepared(each)[None], **ids)
        embedded = (each.reshape(1, -1) for each in (output.video_embeds, output.text_embeds))
        cosine = torch.nn.functional.cosine_similarity(*embedded)
        assert score == pytest.approx(float(cosine), abs=1e-5)
        assert -1.0 <= score <= 1.0
    assert len(set(np.round(scores, 6))) == 3


def test_a_video_is_spread_evenly_over_the_frames_and_squeezed_not_cropped(weights):
    scorer = TextScorer(weights)
    clip = np.zeros((10, 48, 64, 3), dtype=np.uint8)
    clip[9] = 255
    clip[3, :, :4] = 255  # a strip at the very left of the fourth frame
    prepared = scorer.prepared(clip)
    assert prepared.shape == (4, 3, 32, 32)
    black, white = prepared[0].mean().item(), prepared[3].mean().item()
    assert black < 0 < white
    assert prepared[1, :, :, 0].mean() > prepared[1, :, :, 16].mean() + 1.0


def test_an_empty_sentence_and_missing_weights_are_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="empty"):
        TextScorer(weights)([video(0)], "  ")
    with pytest.raises(OSError, match="no file named"):
        TextScorer(tmp_path)
