"""Sentences become points of the whole picture."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dexworld.planning.sentence_goal import sentence_points


class Understands:
    """A model that finds the brightest pixel, whatever the sentence, and puts it 20 pixels to the left."""

    def __init__(self, sure: float = 0.9) -> None:
        self.config, self.points, self.sure = SimpleNamespace(image_size=(40, 60)), None, sure
        self.text = SimpleNamespace(goal=self.goal)

    def encode(self, picture):
        return picture.float().sum(-1)

    def goal(self, points, latents, sentence):
        row, column = divmod(int(latents.argmax()), latents.shape[1])
        start = torch.tensor([float(column), float(row)])
        return SimpleNamespace(start=start, end=start - torch.tensor([20.0, 0.0]), sure=self.sure)


def picture(u, v, width=70):
    image = np.zeros((40, width, 3), np.uint8)
    image[v, u] = 255
    return image


@pytest.mark.parametrize(("u", "end"), [(45, 25), (20, 5)])  # the model's picture begins five pixels in
def test_points_are_those_of_the_whole_picture_and_stay_inside_the_models(u, end):
    start, wanted = sentence_points(Understands(), picture(u, 12), "left")
    assert (start.tolist(), wanted.tolist()) == ([[u, 12]], [[end, 12]])


def test_an_object_that_is_hardly_found_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        sentence_points(Understands(), picture(45, 12), "push the can left")
        assert not caplog.text
        sentence_points(Understands(sure=0.1), picture(45, 12), "push the can left")
    assert "'push the can left': what is to be moved was hardly found" in caplog.text


def test_a_model_that_knows_no_words_is_refused():
    with pytest.raises(ValueError, match="dexworld train text"):
        sentence_points(SimpleNamespace(), picture(1, 1), "push the can left")
