"""Inspection: figures in closed form, every defect found by its own name, nothing left out in silence."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dexworld.cli.inspect import Inspect, show
from dexworld.cli.reader_options import reader_options
from dexworld.data import inspection
from dexworld.data.datasets import open_dataset
from dexworld.data.inspection import InspectConfig, Inspection, account, inspect
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.statistics import ANY_VALUE, Spread
from dexworld.data.video import VideoError
from dexworld.hands import LEFT, RIGHT
from dexworld.track import ArrayFrames, Track

FOCAL, HEIGHT, WIDTH, FPS = 100.0, 48, 64, 10.0


def moving_hands(length: int = 12, step: float = 0.01) -> Track:
    """Both hands one metre ahead, `step` metres further right in every frame; the picture changes with them.

    A hand is a column of 21 points, 1.1 cm apart, that starts 10 px left or right of the centre.
    """
    time = np.arange(length)
    keypoints = np.zeros((length, 42, 3))
    keypoints[..., 0] = time[:, None] * step
    keypoints[:, LEFT, 0] -= 0.1
    keypoints[:, RIGHT, 0] += 0.1
    keypoints[..., 1] = np.tile(np.arange(21) * 0.1 / 9 - 0.1, 2)
    keypoints[..., 2] = 1.0
    pictures = ArrayFrames(np.random.default_rng(0).integers(0, 256, (length, HEIGHT, WIDTH, 3), dtype=np.uint8))
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    columns = {"keypoints_world": keypoints, "keypoints_valid": np.ones((length, 42), dtype=bool)}
    return Track(np.tile(np.eye(4), (length, 1, 1)), intrinsics, columns, FPS, pictures, "test", "move")


class Listed:
    """A source of given episodes; an exception in the list is raised when its place is read."""

    kind = "listed"

    def __init__(self, items, quarantined=(), folder=Path("folder")):
        self.items, self.quarantined, self.folder = list(items), tuple(quarantined), folder
        self.ids = tuple(f"episode-{number}" for number in range(len(self.items)))
        self.splits = ("",) * len(self.items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]

    def files(self, index):
        return ()


def found(*episodes: Track, workers: int = 1, **settings) -> Inspection:
    return inspect(Listed(episodes), InspectConfig(workers=workers, **settings))


def written(folder: Path, *episodes: Track) -> EpisodeDataset:
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for number, episode in enumerate(episodes):
        writer.write(f"{number:04d}", episode)
    return writer.finish()


def kinds(episode: Track, **settings) -> set[str]:
    return set(found(episode, decode="all", **settings).findings)


def changed(name: str, where, change) -> Track:
    """The moving hands with a part of one array replaced by what `change` makes of it."""
    episode = moving_hands()
    array = (episode[name] if name in episode.columns else getattr(episode, name)).copy()
    array[where] = change(array[where])
    return episode.with_columns(**{name: array}) if name in episode.columns else replace(episode, **{name: array})


def test_speeds_and_lengths_are_those_of_the_motion():
    result = found(*[moving_hands(12)] * 3)
    figures = account(result)
    for side in ("left_hand", "right_hand"):
        assert figures["speeds_per_s"][side]["count"] == 3 * 11
        assert figures["speeds_per_s"][side]["mean"] == pytest.approx(0.1)
        assert figures["speeds_per_s"][side]["max"] == pytest.approx(0.1)
    assert figures["speeds_per_s"]["camera"]["max"] == 0
    assert figures["hand_length_m"]["left"]["p50"] == pytest.approx(0.1, abs=0.005)
    assert figures["length_s"]["mean"] == pytest.approx(1.2)
    assert (figures["frames"], figures["hours"]) == (36, pytest.approx(3.6 / 3600))
    assert (figures["tasks"]["most_common"], figures["fps"]) == ([["move", 3]], {"10": 3})
    assert figures["frame_sizes"] == {"64x48": 3}
    assert result.findings == {}


def test_recorded_actions_are_described_by_dimension_and_confidence_by_hand():
    generator = np.random.default_rng(0)
    actions = generator.normal((0.0, -300.0, 2e-3), (0.5, 20.0, 1e-3), (400, 3))
    actions[:, 2] = np.sign(actions[:, 2])  # open or closed
    episodes = [moving_hands(40).with_columns(action=part) for part in actions.reshape(10, 40, 3)]
    short = moving_hands(5).with_columns(action=np.array([1.0, np.nan, 3.0, 3.0, 3.0]))
    (one, three) = account(found(*episodes, moving_hands(), short, decode="none"))["actions"]
    assert (three["dimensions"], three["episodes"], three["frames"], three["not_finite"]) == (3, 10, 400, 0)
    for name, expected in (("min", actions.min(0)), ("max", actions.max(0)), ("mean", actions.mean(0))):
        np.testing.assert_allclose(three[name], expected, rtol=1e-9)
    np.testing.assert_allclose(three["std"], actions.std(0), rtol=1e-9)
    np.testing.assert_allclose(three["q01"], np.quantile(actions, 0.01, axis=0), rtol=0.03)
    np.testing.assert_allclose(three["q99"], np.quantile(actions, 0.99, axis=0), rtol=0.03)
    assert (one["dimensions"], one["frames"], one["not_finite"], one["mean"]) == (1, 5, 1, [2.5])
    plain = account(found(moving_hands(), decode="none"))
    assert (plain["actions"], plain["confidence"], plain["extras"]) == ([], None, {})
    confidence = np.full((12, 42), 0.25, dtype=np.float32)
    confidence[:, RIGHT] = 0.75
    figures = account(found(moving_hands().with_columns(keypoint_confidence=confidence), decode="none"))
    assert [figures["confidence"][side]["mean"] for side in ("left", "right")] == [0.25, 0.75]
    assert figures["extras"] == {"keypoint_confidence": 1}


def test_a_turning_camera_has_the_rotation_speed_of_its_turns():
    cos, sin = np.cos(np.radians(2.0) * np.arange(12)), np.sin(np.radians(2.0) * np.arange(12))
    turned = np.moveaxis(np.array([[cos, -sin], [sin, cos]]), -1, 0)
    figures = account(found(changed("world_from_camera", np.s_[:, :2, :2], lambda _: turned)))
    assert figures["speeds_per_s"]["camera_turn_deg"]["mean"] == pytest.approx(20.0)


def test_visibility_counts_what_is_annotated_in_front_and_inside():
    episode = moving_hands(10, step=0.0)
    points, valid = episode.keypoints_world.copy(), episode.keypoints_valid.copy()
    points[:, 5:8] = [0.0, 0.0, -1.0]  # behind, but neither the wrist nor a tip: the hand is seen all the same
    valid[:, 9:12] = False
    points[:3, 0] = [0.0, 0.0, -1.0]  # the wrist is behind
    points[3:5, 4] = [5.0, 0.0, 1.0]  # the thumb's tip is outside the picture
    valid[:, RIGHT] = False
    episode = episode.with_columns(keypoints_world=points, keypoints_valid=valid)
    figures = account(found(episode))["visibility"]
    assert (figures["left"], figures["right"]) == (0.5, 0.0)
    assert figures["hands_in_picture"] == {"none": 0.5, "one": 0.5, "two": 0.0}


JUMP = ("keypoints_world", np.s_[6:, 30, 2], lambda z: z + 0.9)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (JUMP, "keypoint-jump"),
        (("world_from_camera", np.s_[6:, 0, 3], lambda _: 3.0), "camera-jump"),
        (("world_from_camera", np.s_[3, 0, 1], lambda _: 0.1), "not-rigid"),
        (("world_from_camera", np.s_[:, 0, 0], lambda _: -1.0), "not-rigid"),
        (("keypoints_world", np.s_[..., 2], lambda _: -1.0), "behind-camera"),
        (("keypoints_world", np.s_[..., 0], lambda x: x + 50.0), "never-visible"),
        (("keypoints_world", np.s_[:], lambda points: points * 1000.0), "hand-size"),
        (("keypoints_world", np.s_[:], lambda points: points[0]), "frozen-labels"),
        (("keypoints_valid", np.s_[:], lambda _: False), "no-keypoints"),
        (("intrinsics", np.s_[:2], lambda matrix: matrix * 4.0), "intrinsics"),
    ],
)
def test_every_defect_of_labels_is_found_by_its_name(change, kind):
    assert kind in kinds(changed(*change))
    assert kind not in kinds(moving_hands())


def test_jumps_are_reported_with_episode_frame_and_speed():
    findings = {row["kind"]: row for row in account(found(moving_hands(), changed(*JUMP)))["findings"]}
    jump = findings["keypoint-jump"]
    assert (jump["title"], jump["episodes"]) == ("keypoints jump", 1)
    message = f"1 times above 8 m/s, up to {np.hypot(0.01, 0.9) * FPS:.3g} m/s"
    assert jump["examples"] == [{"episode": "episode-1", "frame": 6, "message": message}]


def test_a_picture_that_stands_still_is_wrong_only_while_hands_move():
    moving, resting = moving_hands(step=0.02), moving_hands(step=0.0)
    frozen = ArrayFrames(np.repeat(moving.frames.array[:1], 12, axis=0))
    assert "frozen-frames" in kinds(replace(moving, frames=frozen))
    assert "frozen-frames" not in kinds(replace(resting, frames=frozen))
    result = found(replace(moving, frames=frozen), decode="all")
    counts = {"episodes": 1, "decoded": 12, "compared": 11, "identical": 11, "black": 0}
    assert account(result)["pictures"] == {"decode": "all"} | counts


def test_black_pictures_and_a_rate_unlike_the_videos_are_found():
    class Timed(ArrayFrames):
        fps = 30.0
        timestamps = np.arange(12) / FPS + 0.2 * (np.arange(12) > 4)

    episode = moving_hands()
    assert "black-frames" in kinds(replace(episode, frames=ArrayFrames(np.zeros((12, HEIGHT, WIDTH, 3), np.uint8))))
    assert {"rate", "uneven-times"} <= kinds(replace(episode, frames=Timed(episode.frames.array)))


class Undecodable(ArrayFrames):
    def read(self, indices):
        raise VideoError("video.mp4: frame 7 can't be decoded")


def test_what_is_broken_is_listed_with_stage_and_reason_and_the_rest_still_counts():
    episode = moving_hands()
    unreadable = CorruptEpisodeError("0001.hdf5: key 'camera' is missing")
    undecodable = replace(episode, frames=Undecodable(episode.frames.array))
    items = [episode, unreadable, undecodable, TypeError("unhashable"), episode]
    source = Listed(items, quarantined=[("extra.mp4", "has no labels")])
    reports = []
    result = inspect(source, InspectConfig(workers=1), each=lambda report, done, total: reports.append(report))
    stages = {"extra.mp4": "opening", "episode-1": "labels", "episode-2": "frames", "episode-3": "labels"}
    assert {row["episode"]: row["broken"] for row in result.broken} == stages
    assert "key 'camera' is missing" in result.broken[1]["reason"]
    assert result.broken[3]["reason"].startswith("unexpected TypeError: unhashable (test_inspection.py:")
    figures = account(result)
    assert (figures["readable"], figures["frames"]) == (2, 24)
    assert [report.row["episode"] for report in reports] == list(source.ids)
    assert json.loads(json.dumps(reports[1].row))["reason"] == "0001.hdf5: key 'camera' is missing"
    assert figures["broken"]["by_stage"] == {"opening": 1, "labels": 2, "frames": 1}


def test_an_empty_dataset_is_an_error_and_one_of_broken_files_is_an_account():
    with pytest.raises(ValueError, match="folder holds no episode of kind 'listed'"):
        inspect(Listed([]))
    result = inspect(Listed([], quarantined=[("a.mp4", "damaged")]))
    assert account(result)["broken"]["count"] == 1


def test_a_sample_says_so_and_is_the_same_for_the_same_seed(monkeypatch):
    source = Listed([moving_hands(2 + number) for number in range(30)])

    def lengths(**settings):
        names = []
        config = InspectConfig(workers=1, **settings)
        result = inspect(source, config, each=lambda report, done, total: names.append(report.row["episode"]))
        return account(result), names

    figures, names = lengths(episodes=10, seed=3)
    assert (figures["episodes"], figures["read"], figures["sample"], len(names)) == (30, 10, True, 10)
    assert names == sorted(names, key=lambda name: int(name.split("-")[1]))
    assert names == lengths(episodes=10, seed=3)[1] != lengths(episodes=10, seed=4)[1]
    assert figures["estimate"]["hours"] == pytest.approx(3 * figures["hours"])
    assert not lengths(episodes=0)[0]["sample"]
    monkeypatch.setattr(inspection, "ALL_UP_TO", 5)
    assert lengths()[0]["read"] == 5


def test_decoding_may_be_left_out_done_for_some_or_for_all(monkeypatch):
    source = Listed([moving_hands()] * 6)
    monkeypatch.setattr(inspection, "DECODED", 3)
    monkeypatch.setattr(inspection, "SNAPSHOTS", 2)
    counts = {}
    for decode in ("none", "sample", "all"):
        result = inspect(source, InspectConfig(workers=1, decode=decode))
        shots = [shot.episode for shot in result.snapshots]
        counts[decode] = (*(result.figures.tallies["pictures"][name] for name in ("episodes", "decoded")), shots)
    assert counts["none"] == (0, 0, [])
    assert counts["sample"] == (3, 18, ["episode-0", "episode-2"])
    assert counts["all"] == (6, 72, ["episode-0", "episode-3"])


def test_a_snapshot_shows_the_frame_with_most_keypoints_at_a_size_to_look_at(tmp_path):
    episode = moving_hands(12, step=0.06)  # the hands leave the picture
    large = ArrayFrames(episode.frames.array.repeat(16, axis=1).repeat(16, axis=2))
    matrix = np.diag([16.0, 16.0, 1.0]) @ episode.intrinsics
    (shot,) = found(replace(episode, frames=large, intrinsics=matrix)).snapshots
    assert shot.image.shape == (288, 384, 3)
    assert shot.visible.sum() == 42
    np.testing.assert_allclose(shot.pixels[0], [6 * (32 - 10 + 6 * shot.frame), 6 * (24 - 10)], atol=1e-6)


def test_the_account_is_the_same_with_one_process_and_with_two(tmp_path):
    written(tmp_path / "data", *map(moving_hands, (6, 7, 8)))
    (tmp_path / "data" / "episodes" / "0001.mp4").write_bytes(b"nothing")
    dataset = open_dataset(tmp_path / "data")
    one, two = (account(inspect(dataset, InspectConfig(workers=workers))) for workers in (1, 2))
    assert one == two
    assert one["broken"]["count"] == 1
    assert one["bytes"] == sum(path.stat().st_size for index in range(2) for path in dataset.files(index))


def test_spreads_add_up_know_their_quantiles_and_leave_out_what_is_no_number():
    values = np.random.default_rng(0).gamma(2.0, 0.2, 5000)
    first, second, none = (Spread(ANY_VALUE) for _ in range(3))
    first.add(np.append(values[:2000], [np.nan, np.inf]))
    second.add(values[2000:])
    first.merge(second)
    found = first.to_json()
    assert (found["count"], found["min"], found["max"]) == (5000, values.min(), values.max())
    assert (found["mean"], found["std"]) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    for share in (0.05, 0.5, 0.99):
        assert found[f"p{round(100 * share):02d}"] == pytest.approx(np.quantile(values, share), rel=0.03)
    outside = Spread(np.array([0.0, 0.5, 1.0]))
    outside.add(np.array([-1.0, 0.0, 0.5, 0.9, 1.0, 7.0]))
    assert outside.counts.tolist() == [1, 1, 3, 1]
    assert set(none.to_json().values()) == {0, None}


@pytest.fixture
def folder(tmp_path):
    """Four episodes: two good ones, one that jumps, one whose video is gone."""
    confidence = np.full((12, 42), 0.9, np.float32)
    episodes = [
        replace(moving_hands().with_columns(keypoint_confidence=confidence), task=f"pick & place <{number}>")
        for number in range(4)
    ]
    jump = np.where(np.arange(12) < 5, 0.0, 2.0)[:, None, None]
    episodes[2] = episodes[2].with_columns(keypoints_world=episodes[2].keypoints_world + jump)
    written(tmp_path / "data", *episodes)
    (tmp_path / "data" / "episodes" / "0003.mp4").unlink()
    return tmp_path / "data"


def run(folder: Path, out: Path, **settings) -> str:
    """The page of the command."""
    Inspect(folder, out, config=InspectConfig(workers=1, **settings)).run()
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_command_writes_page_figures_and_a_line_per_episode(folder, tmp_path, capsys):
    text = run(folder, tmp_path / "out", seed=5)
    assert "18 decoded, 0 of 9 equal the one before" in text
    assert text.index("Broken") < text.index("What looks wrong") < text.index("Contact sheet")
    named = ("left hand, tracking confidence", "pick &amp; place &lt;0&gt;", "Tracking errors or missing frames")
    for part in ("episodes/0003", "keypoints jump", "0002, frame 5", *named):
        assert part in text
    assert len(re.findall(r'src="data:image/jpeg', text)) == 3  # contact sheet
    assert not re.search(r'(?:src|href)="http', text)
    shown = capsys.readouterr().out
    assert "keypoints jump" in shown
    assert "episodes/0003" in shown
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (content["kind"], content["episodes"], content["readable"], content["run"]["seed"]) == ("episodes", 3, 3, 5)
    assert content["findings"][0]["kind"] == "keypoint-jump"
    assert content["broken"]["episodes"][0]["stage"] == "opening"
    lines = [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    assert [line["episode"] for line in lines] == ["0000", "0001", "0002"]
    assert lines[2]["findings"][0]["frame"] == 5


def test_a_page_of_a_sample_says_how_many_of_how_many_and_the_seed(folder, tmp_path):
    text = run(folder, tmp_path / "out", episodes=2, seed=7, decode="none")
    assert "2 of 3 episodes (a sample drawn with seed 7)" in text
    assert "≈" in text
    assert "Contact sheet" not in text


def test_a_dataset_of_broken_files_has_a_page(folder, tmp_path):
    for path in (folder / "episodes").glob("*.mp4"):
        path.unlink()
    assert run(folder, tmp_path / "out").count("episodes/000") >= 4


def test_tables_show_each_dimension_of_actions_and_say_how_many_rows_are_left_out(tmp_path, capsys):
    source = written(tmp_path / "robot", moving_hands().with_columns(action=np.linspace([-1.0, 0.0], [1.0, 0.002], 12)))
    text = run(source.folder, tmp_path / "out")
    assert not re.search("Broken|What looks wrong", text)
    assert "2 dimensions, 12 frames, episodes: 1<" in text
    assert re.search(r"<td>1</td>(<td class=\"numeric\">[^<]*</td>){5}<td class=\"numeric\">0.002</td>", text)
    figures = account(inspect(source, InspectConfig(workers=1)))
    broken = [{"episode": f"{number}", "stage": "labels", "reason": "[/red] [bold]x"} for number in range(22)]
    show(figures | {"broken": {"count": 22, "episodes": broken}}, seed=0)
    shown = capsys.readouterr().out
    assert shown.count("[/red] [bold]x") == 20  # text from the dataset is no markup
    assert "and 2 more: see results.json" in shown


def test_reader_options_come_as_settings_or_as_a_file(tmp_path):
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"egodex": {"split": "train", "max_episodes": 3}}))
    settings = ("egodex.split=extra", "lerobot.extras=a,b", "droid.hand.style=official", "droid.intrinsics=60,60,64,36")
    chosen = reader_options((str(path), *settings))
    assert (chosen.egodex.split, chosen.egodex.max_episodes, chosen.lerobot.extras) == ("extra", 3, ("a", "b"))
    assert (chosen.droid.hand.style, chosen.droid.intrinsics) == ("official", (60.0, 60.0, 64.0, 36.0))
    assert reader_options(()) == reader_options(("egodex.split=null",))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("egodex.splits=test", r"reader.egodex has unknown fields splits; EgoDexOptions knows split, min_confidence"),
        ("egodex.max_episodes=few", r"reader.egodex.max_episodes is 'few'; it must be int"),
        ("egodex.min_confidence=2", "lie between 0 and 1"),
        ("test", "LAYOUT.FIELD=VALUE"),
        ("droid.hand.style=fist", r"reader.droid.hand.style is 'fist'; choose 'gripper' or 'official'"),
    ],
)
def test_reader_options_that_do_not_exist_or_fit_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        reader_options((setting,))
