"""A visitor's look at a dataset: filters, the film, what is broken, and nothing read before it is looked at."""

import shutil
from collections import Counter

import numpy as np
import pytest
from data_fixtures import FRAMES, damage, write_small_dataset
from studio_fixtures import HereDesk

from dexworld.data.inspection import inspect
from dexworld.data.statistics import ANY_VALUE, Figures, Spread
from dexworld.studio.data_session import DataChoice, DataSession
from dexworld.studio.data_view import label, said
from dexworld.studio.dataset_reader import (
    ASIDE,
    PARTLY,
    SEEN,
    SURVEY,
    UNSEEN,
    DatasetReader,
    OpenedFolder,
    SurveyNews,
    narrowed,
)
from dexworld.studio.start_frame import Start
from dexworld.studio.state_link import Place, packed, unpacked
from dexworld.studio.survey_drawing import findings_list, hands_strip, histogram, histograms, shares


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("data") / "small").folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "small")


@pytest.fixture
def session(folder):
    """At a folder whose last episode broke after it was opened."""
    desk = HereDesk(DatasetReader(), wait=True)
    session = DataSession(desk, lambda: None)
    session.open(DataChoice(str(folder)))
    session.watch(True)
    desk.answer()
    damage(folder, "e3")
    desk.wait = False
    desk.answer()
    return session


def test_a_folder_opens_with_its_first_frame_and_the_survey_agrees_with_inspect(session, folder):
    assert session.episode.name == "e0"
    assert session.picture.shape == (48, 64, 3)
    whole = inspect(session._desk.made._folder(str(folder)).source, SURVEY)
    assert session.survey.read == whole.read == 4
    assert session.survey.figures.frames == whole.figures.frames
    assert [row["episode"] for row in session.rows.values() if "broken" in row] == ["e3"]
    assert {row["kind"] for row in session.survey.account["findings"]} == set(whole.findings) == {"keypoint-jump"}


def test_filters_leave_the_episodes_that_fit(session):
    def left(**changes):
        session.filter(**{"find": "", "which": "all", "hand": "any"} | changes)
        return session.matches()

    assert left() == [0, 1, 2, 3]
    assert left(find="PUSH the") == [1, 2]
    assert left(find="e2") == [2]
    assert left(which="broken") == [3]
    assert left(which="whole") == [0, 1, 2]
    assert left(which="looks wrong") == [2]
    assert left(hand="left") == left(hand="both") == [0, 2]
    assert left(hand="right", find="push") == [1, 2]
    assert left(find="nothing like it") == []
    session.step(1)
    assert session.choice.episode == 0


def test_one_walks_among_the_episodes_that_match(session):
    session.filter(find="push")
    found = []
    for _ in range(3):
        session.step(1)
        found.append(session.episode.name)
    session.step(-1)
    assert [*found, session.episode.name] == ["e1", "e2", "e1", "e2"]


def test_a_broken_episode_says_what_fails_and_the_next_one_can_be_looked_at(session):
    session.go_to(3)
    assert session.problem
    assert session.episode is None
    assert "can't be used: reading its labels fails. " in findings_list(session.row)
    assert "are not the" in findings_list(session.row)
    assert session.problem[:20] in said(session)
    assert label(3, "e3", session.row) == "3: e3 (broken)"
    session.go_to(2)
    assert (session.problem, session.episode.name) == ("", "e2")
    assert "keypoints jump" in findings_list(session.row)
    assert "frame 6" in findings_list(session.row)


def test_each_frame_tells_which_hand_is_seen(session):
    session.go_to(1)
    hands = session.episode.hands
    assert set(hands[:, 0]) == {UNSEEN}
    assert hands[5, 1] == PARTLY
    assert set(np.delete(hands[:, 1], 5)) == {SEEN}
    session.go_to(2)
    assert session.episode.hands[6:, 1].tolist() == [ASIDE] * 6
    strip = hands_strip(hands, 3)
    assert "partly tracked" in strip
    assert "out of the picture" not in strip


def test_a_film_plays_to_its_end_in_chunks_and_scrubs_to_any_frame(session):
    session.seek(7)
    without = session._desk.made.pictures(session.choice.folder, 0, (7,), False)[0]
    assert abs(int(without[2, 2, 0]) - (7 * 15 + 40)) < 4
    assert (session.picture != without).any()  # the hands are drawn
    session.show_hands(False)
    np.testing.assert_array_equal(session.picture, without)
    session.seek(FRAMES - 1)
    session.play()
    assert session.choice.frame == 0
    shown = [0]
    while session.playing:
        session.advance()
        shown.append(session.choice.frame)
    assert shown == [*range(FRAMES), FRAMES - 1]


class Told:
    """Stands in for the reader of a large folder: nothing but names, and a count of what is asked for."""

    def __init__(self, count):
        self.count, self.asked = count, Counter()

    def open(self, folder):
        return OpenedFolder("told", tuple(f"cup {index}" for index in range(self.count)), (("a file", "empty"),), 2000)

    def survey(self, folder, known):
        self.asked["survey"] += 1
        row = {"episode": "", "findings": [], "task": "", "left": 1, "right": 0}
        return SurveyNews(known + 500, dict.fromkeys(range(known, known + 500), row), Figures(), {})

    def __getattr__(self, name):
        def refuse(*asked):
            self.asked[name] += 1
            raise ValueError("not there")

        return refuse


def test_of_a_large_folder_only_what_is_looked_at_is_read():
    reader = Told(5000)
    session = DataSession(HereDesk(reader), lambda: None)
    session.open(DataChoice("large"))
    assert not reader.asked  # nobody looks
    session.watch(True)
    assert reader.asked == {"episode": 1, "check": 1, "survey": 4}
    session.filter(find="cup 49")
    assert session.matches() == [index for index in range(5000) if "49" in str(index)]
    session.filter(find="", hand="left")
    assert len(session.matches()) == 2000
    session.watch(False)
    session.step(1)
    assert reader.asked["episode"] == 1


def test_what_fails_is_said_and_not_asked_again(folder):
    session = DataSession(HereDesk(DatasetReader()), lambda: None)
    session.open(DataChoice("nowhere"))
    session.watch(True)
    assert "nowhere" in session.problem
    assert "nowhere" in said(session)
    session.open(DataChoice(str(folder), episode=99))
    assert (session.problem, session.choice.episode) == ("", 0)


def test_histograms_show_every_value_once_and_the_episode_beside_the_dataset(session):
    values = np.random.default_rng(0).normal(2.0, 0.5, 4000)
    spread = Spread(ANY_VALUE)
    spread.add(values)
    expected, _ = np.histogram(values, bins=24, range=(values.min(), values.max()))
    found = shares(spread, float(values.min()), float(values.max()))
    np.testing.assert_allclose(found.sum(), 1.0)
    np.testing.assert_allclose(found, expected / len(values), atol=0.01)
    same = Spread(ANY_VALUE)
    same.add(np.full(5, 3.0))
    assert shares(same, 2.0, 4.0).sum() == 1.0
    drawn = histograms(session.figures, session.episode.figures)
    assert "recorded action, dimension 1 of 2" in drawn
    assert drawn.count("<g ") == 2 * drawn.count("<svg")
    assert histogram("none", Spread(ANY_VALUE), None) == ""


def test_pictures_are_made_no_wider_than_they_are_shown():
    assert narrowed(np.zeros((720, 1280, 3), np.uint8)).shape == (360, 640, 3)
    assert narrowed(np.zeros((30, 40, 3), np.uint8)).shape == (30, 40, 3)


def test_a_link_restores_the_episode_the_frame_and_the_filters():
    choice = DataChoice("a folder/ü", 7, 3, "cup", "broken", "left")
    assert unpacked(packed(Place("Data", Start(), (), data=choice))) == Place("Data", Start(), (), data=choice)
    with pytest.raises(ValueError, match="which is 'odd'"):
        unpacked(packed(Place("Data", Start(), (), data=DataChoice(which="odd"))))
