"""What each baseline is told, and that nothing else differs from DexWM."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import SMALL_MODEL, random_track, refused

from dexworld.actions import hand_motion
from dexworld.hands import BODY_KEYPOINTS
from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import PointsConfig
from dexworld.models.sentences import sentence_encoder
from dexworld.models.world_model import build_world_model, preset
from dexworld.training.cost import trained_parameters
from kind_fixtures import BASELINES, config_of

# Numbers that the predictor is told of a step: DexWM's appendix C.3, with the key sets of its released code.
TOLD = {"nwm": 6, "peva": 66, "action-free": 0, "text": 512}
CDIT_BLOCKS, CDIT_WIDTH = {"s": 12, "b": 12, "l": 24, "xl": 32}, {"s": 384, "b": 768, "l": 1024, "xl": 1024}  # Table 5


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("size", CDIT_BLOCKS)
def test_a_baseline_is_dexwm_but_for_the_inputs_of_its_adaln_layers(kind, size):
    config = preset(f"{kind}-paper-{size}")
    assert config.action_dim == TOLD[kind]
    outputs = (11 * CDIT_BLOCKS[size] + 2) * CDIT_WIDTH[size]  # of all AdaLN layers, the last one's included
    difference = trained_parameters(config) - trained_parameters(preset(f"paper-{size}"))
    assert difference == (TOLD[kind] - 132) * outputs


def told(kind: str, track):
    model = build_world_model(config_of(kind, SMALL_MODEL))
    return model.condition(track).deltas


def test_nwm_is_told_the_camera_as_dexwm_is_and_no_hand():
    track = random_track(2, 4)
    assert torch.equal(told("nwm", track), told("dexwm", track)[..., -2:, :])
    away = track.with_columns(keypoints_world=track.keypoints_world * 2)
    assert torch.equal(told("nwm", track), told("nwm", away))


def test_peva_is_told_wrists_body_and_camera_and_no_finger():
    track = random_track(2, 4)
    deltas, hands = told("peva", track), told("dexwm", track)
    assert deltas.shape == (2, 3, 22, 3)
    assert torch.equal(deltas[..., [0, 1, 20, 21], :], hands[..., [0, 21, 42, 43], :])
    body = track.with_columns(keypoints_world=track.keypoints_world.clone(), keypoints_valid=track.keypoints_valid)
    body.keypoints_world[..., :18, :], body.keypoints_valid[..., :18] = track["body_world"], True
    labels = (body.keypoints_world, body.keypoints_valid, body.world_from_camera, body.intrinsics)
    assert torch.equal(deltas[..., 2:20, :], hand_motion(*labels).deltas[..., : len(BODY_KEYPOINTS), :])
    fingers = track.keypoints_world.clone()
    fingers[..., 1:21, :] += 1
    assert torch.equal(deltas, told("peva", track.with_columns(keypoints_world=fingers)))
    refused("no upper body", told, "peva", track.with_columns(body_world=None))


def test_a_sentence_is_told_in_every_step_and_silence_is_zero():
    track = random_track(3, 4)
    letters = track["task_utf8"].clone()
    letters[1] = letters[0]
    letters[2] = 0
    deltas = told("text", track.with_columns(task_utf8=letters))
    assert deltas.shape == (3, 3, 1, 64)
    assert torch.equal(deltas[0], deltas[1])
    assert torch.equal(deltas[0, 0], deltas[0, 2])
    assert not deltas[2].any()
    alone = replace(random_track(1, 4).index(0), task="take the cup").with_columns(task_utf8=None)
    spoken = torch.tensor(sentence_encoder("hashed").encode(["Take, the cup!"])[0])
    assert torch.allclose(told("text", alone)[0, 0].double(), spoken / spoken.square().mean().sqrt(), atol=1e-6)


def test_parts_that_tell_the_hands_are_refused():
    for kind in BASELINES:
        config = preset(f"{kind}-debug")
        refused("pixel_aligned tells", replace, config, predictor=replace(config.predictor, pixel_aligned=True))
        refused("a point head is told", replace, config, points=PointsConfig())
    refused("no scale", replace, preset("text-debug"), action_scale=(0.1, 0.1, 0.1))


WORDS = ["<pad>", "</s>", "<unk>", "take", "the", "red", "cup", "and", "put", "it", "down"]


@pytest.fixture(params=["t5", "clip"])
def text_model(request, tmp_path):
    """The folder of a tiny T5 or CLIP with a tokenizer of words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 12}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(tmp_path)
    torch.manual_seed(0)
    if request.param == "t5":
        settings = {"vocab_size": len(WORDS), "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        transformers.T5EncoderModel(transformers.T5Config(**settings)).save_pretrained(tmp_path)
    else:
        settings = {"vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
        settings |= {"num_attention_heads": 2, "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 12}
        transformers.CLIPTextModel(transformers.CLIPTextConfig(**settings)).save_pretrained(tmp_path)
    return tmp_path


def test_sentences_are_read_by_a_t5_or_clip_of_the_users_folder(text_model):
    config = config_of("text", SMALL_MODEL).with_sentences(str(text_model))
    assert (config.sentences, config.width, config.action_dim) == (str(text_model), 8, 8)
    short, long = sentence_encoder(config.sentences).encode(["take the cup", "take the red cup and put it down"])
    alone = sentence_encoder(config.sentences).encode(["take the cup"])[0]
    assert torch.allclose(torch.tensor(short), torch.tensor(alone), atol=1e-6)  # padding says nothing
    assert abs(short - long).max() > 1e-2
    track = random_track(1, 3)
    assert build_world_model(config).condition(track).deltas.shape == (1, 2, 1, 8)


def test_what_is_no_text_model_is_named(tmp_path):
    refused("can't be read", sentence_encoder, str(tmp_path), error=CheckpointError)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    refused("holds a vit; a sentence encoder is a t5, umt5 or clip", sentence_encoder, str(tmp_path), error=ValueError)
