"""Text embeddings: whole prompts, the padding each family was trained with, and a cache."""

import importlib.util
import json

import pytest
import torch

from dexworld.models.checkpoint import CheckpointError
from dexworld.video.model.prompt_embeddings import embed_prompts, load_text_encoder
from dexworld.video.model.video_config import BackboneConfig

LONG = "the left right hand opens a drawer and grasps red cup then puts it down"
WORDS = LONG.split()
COGVIDEOX = BackboneConfig("cogvideox", text_dim=8, text_tokens=12)
WAN = BackboneConfig("wan", text_dim=8, text_tokens=12)
KINDS = pytest.mark.parametrize("backbone", [COGVIDEOX, WAN], ids=["t5", "umt5"])


def save_text_encoder(root, backbone):
    """A tiny T5 or UMT5 encoder and a word tokenizer, in the layout of a published model."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(root / "tokenizer")
    settings = {"vocab_size": len(vocabulary), "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    settings |= {"dropout_rate": 0.0, "is_encoder_decoder": False}
    torch.manual_seed(0)
    if backbone.kind == "cogvideox":
        encoder = transformers.T5EncoderModel(transformers.T5Config(**settings))
    else:
        encoder = transformers.UMT5EncoderModel(transformers.UMT5Config(**settings))
    encoder.save_pretrained(root / "text_encoder")
    return root


@KINDS
def test_the_whole_prompt_is_read_not_its_first_line(backbone, tmp_path):
    save_text_encoder(tmp_path, backbone)
    prompts = ["the hand opens a drawer", "the hand opens a drawer\nand grasps the red cup"]
    text = embed_prompts(prompts, backbone, tmp_path)
    one, two = (text[prompt] for prompt in prompts)
    assert one.shape == (12, 8)
    assert not torch.allclose(one[5:], two[5:])


def test_t5_sees_its_padding_and_umt5_masks_it_to_zeros(tmp_path):
    prompt = "the hand opens a drawer"  # five words and the end mark
    t5 = embed_prompts([prompt], COGVIDEOX, save_text_encoder(tmp_path / "t5", COGVIDEOX))[prompt]
    assert t5[6:].abs().amax(dim=1).min() > 0
    umt5 = embed_prompts([prompt], WAN, save_text_encoder(tmp_path / "umt5", WAN))[prompt]
    assert umt5[:6].abs().amax(dim=1).min() > 0
    assert not umt5[6:].any()


@torch.no_grad()
def test_embeddings_are_those_of_the_published_pipelines(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    prompts = ["the hand opens a drawer", "the left hand grasps"]
    for backbone, name in ((COGVIDEOX, "CogVideoXPipeline"), (WAN, "WanPipeline")):
        save_text_encoder(tmp_path / name, backbone)
        tokenizer, encoder = load_text_encoder(tmp_path / name, backbone)
        parts = {"tokenizer": tokenizer, "text_encoder": encoder, "vae": None, "transformer": None, "scheduler": None}
        pipeline = getattr(diffusers, name)(**parts)
        options = {"do_classifier_free_guidance": False, "max_sequence_length": 12, "device": "cpu"}
        theirs, _ = pipeline.encode_prompt(prompts, **options, dtype=torch.float32)
        ours = embed_prompts(prompts, backbone, tmp_path / name)
        torch.testing.assert_close(torch.stack([ours[prompt] for prompt in prompts]), theirs)


@KINDS
def test_prompts_that_are_cut_are_counted_and_reported(backbone, tmp_path, caplog):
    save_text_encoder(tmp_path, backbone)
    with caplog.at_level("WARNING"):
        embed_prompts(["the hand", LONG], backbone, tmp_path)
    assert "1 of 2 prompts are longer than 12 tokens" in caplog.text


@KINDS
def test_a_cached_set_of_prompts_needs_no_encoder_whatever_path_names_it(backbone, tmp_path, monkeypatch):
    source = save_text_encoder(tmp_path / "model", backbone)
    first = embed_prompts(["the hand", "a cup"], backbone, source, cache=tmp_path / "cache")
    (source / "text_encoder").rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    again = embed_prompts(["a cup", "the hand", "a cup"], backbone, "./model", cache="cache")
    assert torch.equal(again["the hand"], first["the hand"])
    with pytest.raises(CheckpointError, match="no text_encoder"):
        embed_prompts(["another prompt"], backbone, source, cache=tmp_path / "cache")


def test_a_corrupt_cache_file_says_to_delete_it(tmp_path):
    source = save_text_encoder(tmp_path / "model", WAN)
    embed_prompts(["the hand"], WAN, source, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="delete it"):
        embed_prompts(["the hand"], WAN, source, cache=tmp_path / "cache")


def test_an_encoder_of_another_kind_or_width_is_refused(tmp_path):
    save_text_encoder(tmp_path, COGVIDEOX)
    with pytest.raises(CheckpointError, match="holds T5EncoderModel, but wan reads UMT5EncoderModel"):
        embed_prompts(["a cup"], WAN, tmp_path)
    with pytest.raises(CheckpointError, match="embeds into 8 numbers, the model reads 4096"):
        embed_prompts(["a cup"], BackboneConfig("cogvideox", text_dim=4096), tmp_path)


def test_a_sentencepiece_tokenizer_names_the_package_that_reads_it(tmp_path, monkeypatch):
    save_text_encoder(tmp_path, COGVIDEOX)
    (tmp_path / "tokenizer" / "tokenizer.json").rename(tmp_path / "tokenizer" / "spiece.model")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else found(name))
    with pytest.raises(ImportError, match=r"sentencepiece.*pip install 'dexworld\[video\]'"):
        embed_prompts(["a cup"], COGVIDEOX, tmp_path)


def test_the_encoder_may_be_a_folder_of_its_own(tmp_path):
    source = save_text_encoder(tmp_path, WAN)
    for path in (source / "tokenizer").iterdir():
        path.rename(source / "text_encoder" / path.name)
    assert json.loads((source / "text_encoder" / "config.json").read_text())["architectures"] == ["UMT5EncoderModel"]
    direct = embed_prompts(["a cup"], WAN, source / "text_encoder")["a cup"]
    assert direct.abs().sum() > 0
