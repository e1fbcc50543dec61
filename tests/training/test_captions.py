"""Sentences about scenes: they are true, tell objects apart, and keep some words out of training."""

import numpy as np
import pytest

from dexworld.track import OBJECT_KINDS
from dexworld.training import captions
from dexworld.training.captions import NOUNS, PAIRS, Scene, colour_names, draw_caption, meanings, nearest_caption

RED, BLUE, GREEN, GREY = (0.9, 0.1, 0.1), (0.1, 0.2, 0.9), (0.1, 0.8, 0.2), (0.5, 0.5, 0.5)
FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # of a camera that looks along the world's x


def scene_of(*objects, shown=None, turn=0.0):
    """A scene of (kind, colour, x, y); turn: of the camera, radians to the left."""
    kinds = np.array([OBJECT_KINDS.index(each[0]) for each in objects] + [-1])
    colours = np.array([each[1] for each in objects] + [(np.nan,) * 3])
    positions = np.array([(*each[2:], 0.95) for each in objects] + [(np.nan,) * 3])
    pose, (cos, sin) = np.eye(4), (np.cos(turn), np.sin(turn))
    pose[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ FORWARD
    return Scene(kinds, colours, positions, np.array([True] * len(objects) + [False]) if shown is None else shown, pose)


def drawn(scene, wording="seen", count=300):
    rng = np.random.default_rng(0)
    return [each for each in (draw_caption(rng, scene, wording) for _ in range(count)) if each is not None]


TWO = scene_of(("ball", BLUE, 0.7, 0.0), ("mug", GREEN, 0.8, -0.25))


@pytest.mark.parametrize(
    ("rgb", "names"),
    [
        (RED, ("red",)),
        (BLUE, ("blue",)),
        (GREEN, ("green",)),
        ((0.9, 0.55, 0.1), ("orange", "yellow")),
        ((0.9, 0.1, 0.35), ("pink", "red")),
        (GREY, ()),
    ],
)
def test_a_colour_has_its_name_and_those_of_near_hues(rgb, names):
    assert colour_names(np.array(rgb)) == names


def test_all_kinds_of_the_simulator_have_nouns():
    assert tuple(NOUNS) == OBJECT_KINDS


def test_sentences_mean_what_they_say_in_the_viewers_axes():
    for caption in drawn(TWO):
        meaning, words = caption.meaning, caption.sentence.split()
        offset = np.subtract(meaning.target, TWO.places[meaning.anchor])
        if "left" in meaning.sides:
            assert offset[1] > 0.03
            assert {"left", "leftwards"} & set(words)
        if "near" in meaning.sides:
            assert offset[0] < -0.03
        if meaning.relation == "towards":
            way = TWO.places[meaning.anchor] - TWO.places[meaning.moved]
            assert np.dot(np.subtract(meaning.target, TWO.places[meaning.moved]), way) > 0
        if meaning.relation == "next":
            assert np.linalg.norm(offset) == pytest.approx(0.11)
        assert ("blue" in words or "ball" in words or "sphere" in words) or meaning.moved == 1 or len(words) > 4


def test_left_is_the_viewers_left_however_the_camera_is_turned():
    objects = (("ball", BLUE, 0.7, 0.0),)
    for turn in (0.0, 0.5, np.pi):
        scene = scene_of(*objects, turn=turn)
        left = next(each for each in meanings(scene, 0) if each.sides == ("left",))
        moved = (scene.end(left) - scene.positions[0])[:2]
        np.testing.assert_allclose(moved, 0.1 * np.array([-np.sin(turn), np.cos(turn)]), atol=1e-9)


def test_an_object_is_called_by_what_tells_it_from_the_others():
    alike = scene_of(("ball", BLUE, 0.7, 0.0), ("ball", GREEN, 0.8, -0.25), ("mug", BLUE, 0.7, 0.3))
    rng = np.random.default_rng(0)
    for moved, pair in ((0, ("blue", "ball")), (1, ("green", "ball"))):
        assert captions._names(alike, moved, "seen")[0] == pair
        assert (None, "ball") not in captions._names(alike, moved, "seen")
    assert draw_caption(rng, scene_of(("ball", BLUE, 0.7, 0.0), ("ball", BLUE, 0.7, 0.2)), "seen") is None
    assert (None, "mug") in captions._names(alike, 2, "seen")
    assert ("blue", None) not in captions._names(alike, 2, "seen")


def test_what_the_picture_hides_is_not_spoken_of():
    hidden = scene_of(("ball", BLUE, 0.7, 0.0), ("mug", GREEN, 0.8, -0.25), shown=np.array([True, False, False]))
    assert {(each.meaning.moved, each.meaning.anchor) for each in drawn(hidden)} == {(0, 0)}


def test_words_and_pairs_that_are_kept_out_of_training_are_not_in_it():
    kept = {each for words in captions.COLOURS.values() for each in words[1]}
    kept |= {each for words in NOUNS.values() for each in words[1]}
    seen, other = (" / ".join(each.sentence for each in drawn(TWO, wording)) for wording in ("seen", "words"))
    assert not [each for each in kept if f" {each} " in seen]
    assert [each for each in kept if f" {each} " in other]
    colour, kind = PAIRS[1]
    paired = scene_of((kind, BLUE, 0.7, 0.0), ("mug", GREEN, 0.8, -0.25))
    assert {each.meaning.moved for each in drawn(paired, "pairs")} == {0}
    assert colour == "blue"
    assert (colour, kind) not in captions._names(paired, 0, "seen")


def test_places_are_free_and_the_nearest_sentence_is_near():
    for caption in drawn(TWO):
        other = TWO.places[1 - caption.meaning.moved]
        assert np.linalg.norm(np.subtract(caption.meaning.target, other)) > captions.APART
    rng = np.random.default_rng(0)
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        target = TWO.places[0] + 0.12 * np.array([np.cos(angle), np.sin(angle)])
        found = nearest_caption(rng, TWO, 0, target)
        assert np.linalg.norm(np.subtract(found.meaning.target, target)) < 0.01
    assert nearest_caption(rng, scene_of(("ball", GREY, 0.7, 0.0), ("ball", RED, 0.7, 0.2)), 0, target) is None
