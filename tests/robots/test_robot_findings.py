"""A bad robot file is one message that says what to change; a good one has no problems."""

import pytest

from dexworld import cli
from dexworld.robots.described_robot import named_robot, read_robot, robot_names, shipped_description, shipped_model
from dexworld.robots.robot_findings import robot_findings
from robot_fixtures import HAND_TOML, TWO_HANDS_TOML, hand_mjcf, two_hands_urdf

pytest.importorskip("mujoco")


def files(folder, model=None, description=HAND_TOML, name="hand.xml"):
    (folder / name).write_text(hand_mjcf() if model is None else model)
    (folder / "hand.toml").write_text(description)
    return folder / name, folder / "hand.toml"


def texts(folder, kind="problem", **changes):
    return [finding.text for finding in robot_findings(read_robot(*files(folder, **changes))) if finding.kind == kind]


def scaled(text, factor):
    """A URDF whose lengths are so many times as large."""
    parts = text.split('xyz="')
    for index, part in enumerate(parts[1:], 1):
        numbers, rest = part.split('"', 1)
        axis = parts[index - 1].endswith("<axis ")
        parts[index] = f'{numbers if axis else " ".join(str(factor * float(each)) for each in numbers.split())}"{rest}'
    return 'xyz="'.join(parts)


def test_a_good_hand_has_no_problems_and_says_what_it_assumes(tmp_path):
    assert texts(tmp_path) == []
    notes = texts(tmp_path, "note")
    assert "the ring finger of the right hand stands in for the little finger" in notes
    assert any("lacks 1 of 4 keypoints" in note for note in notes)


@pytest.mark.parametrize("name", robot_names())
def test_a_shipped_robot_has_no_problems(name):
    try:
        shipped_model(shipped_description(name))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert [finding for finding in robot_findings(named_robot(name)) if finding.kind == "problem"] == []


def test_degrees_where_radians_belong_are_named_in_both_directions(tmp_path):
    urdf = two_hands_urdf().replace('upper="1.4"', 'upper="80"')
    (problem,) = texts(tmp_path, model=urdf, description=TWO_HANDS_TOML, name="two.urdf")
    assert "may turn from 0 to 80 rad: are these degrees?" in problem
    (problem,) = texts(tmp_path, model=hand_mjcf().replace('angle="radian" ', ""))
    assert 'Add <compiler angle="radian"/>' in problem


def test_millimetres_are_named(tmp_path):
    urdf = scaled(two_hands_urdf(), 1000)
    problems = texts(tmp_path, model=urdf, description=TWO_HANDS_TOML, name="two.urdf")
    assert len(problems) == 2  # two hands
    assert all("are lengths millimetres?" in problem for problem in problems)
    (problem,) = texts(tmp_path, model=hand_mjcf().replace('range="-0.2 0.3"', 'range="-200 300"'))
    assert "slide along may move 300 m: are these millimetres?" in problem
    (problem,) = texts(tmp_path, model=hand_mjcf().replace('size="0.01 0.04 0.04"', 'size="10 40 40"'))
    assert 'Give it scale="0.001 0.001 0.001"' in problem


def test_a_left_hand_taken_for_a_right_one_is_named_and_two_that_are_swapped(tmp_path):
    (problem,) = texts(tmp_path, description=HAND_TOML.replace("[right]", "[left]"))
    assert "it is a right hand, whose table is [right]" in problem
    whole = TWO_HANDS_TOML.replace("[left]", "[other]").replace("[right]", "[left]").replace("[other]", "[right]")
    (problem,) = texts(tmp_path, model=two_hands_urdf(), description=whole, name="two.urdf")
    assert "[left] and [right] are swapped" in problem


def test_a_finger_that_bends_backward_names_its_joints(tmp_path):
    axis = '<joint name="middle_bend" axis="0 1 0"'
    model = hand_mjcf().replace(axis, axis.replace("1", "-1"))
    (problem,) = texts(tmp_path, model=model)
    assert "joint middle_bend bends the middle finger of the right hand out of its back: reverse" in problem


def test_places_that_cannot_be_of_one_hand_are_named(tmp_path):
    far = HAND_TOML.replace('"index_tip"]', '{ at = "index_tip", offset = [0.0, 0.0, 0.3] }]')
    assert any("IndexFingerTip of the right hand lie 0.3" in each for each in texts(tmp_path, description=far))
    turned = HAND_TOML.replace('index = ["index1", "index2"', 'index = ["index_tip", "index2"').replace(
        '"index_tip"]', '"index1"]'
    )
    assert any("list its places from the knuckle to the tip" in each for each in texts(tmp_path, description=turned))
    swapped = (
        HAND_TOML.replace("index = ", "OTHER = ").replace("middle = ", "index = ").replace("OTHER = ", "middle = ")
    )
    assert any("don't lie in this order" in each for each in texts(tmp_path, description=swapped))
    palm = HAND_TOML.replace('wrist = "palm"', 'wrist = "palm"\npalm = "side"')
    model = hand_mjcf().replace('<body name="thumb1"', '<site name="side" euler="0 0 1.6"/><body name="thumb1"')
    (problem,) = texts(tmp_path, model=model, description=palm)
    assert "the palm 'side' differs from the keypoints in x by 92 degrees" in problem


def test_joints_that_nothing_moves_and_couplings_that_leave_their_limits_are_noted(tmp_path):
    notes = texts(tmp_path, "note", description=HAND_TOML.replace(', "ring_bend"', ""))
    assert "joint 'ring_bend' is held at 0: list it in `fingers` or `arm`, let it follow one in [coupled]" in notes[0]
    assert any(
        "joint 'ring_end' follows 'ring_bend', which isn't controlled, and is held at 0" in each for each in notes
    )
    wide = '<joint joint1="index_end" joint2="index_bend" polycoef="0 3 0 0 0"/>'
    (note,) = [each for each in texts(tmp_path, "note", model=hand_mjcf(wide)) if "beyond its own limits" in each]
    assert "joint 'index_end' follows 'index_bend' through [0.00, 4.50]" in note


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (HAND_TOML.replace('"index_bend"', '"indx_bend"'), r"no joint 'indx_bend'; did you mean index_bend"),
        (HAND_TOML.replace('"index_tip"', '"index_tp"'), r"no body or site 'index_tp'; did you mean index_tip"),
        (
            HAND_TOML.replace("fingers = [", 'fingers = ["index_end", '),
            "joint 'index_end' follows 'index_bend'; leave it",
        ),
        (HAND_TOML.replace("fingers = [", 'fingers = ["along", '), "joint 'along' stands twice"),
        (HAND_TOML.replace("[right]", "[rigth]"), "unknown key 'rigth'; did you mean right"),
        (
            HAND_TOML.replace('little = "ring"', 'little = "rink"'),
            "'rink' is no finger that has places; did you mean ring",
        ),
        (HAND_TOML.replace(', "index_tip"]', "]"), "right.index needs four places from knuckle to tip"),
        (HAND_TOML.replace('wrist = "palm"', ""), "right.wrist is missing"),
        (HAND_TOML + "[limits]\nalong = [1, 0]", r"joint 'along' has the limits \[1.0, 0.0\]"),
        ('base = "index1"\n' + HAND_TOML, "isn't below the base 'index1'"),
        (HAND_TOML + '[coupled]\nindex_end = { of = "index_nd" }', "no joint 'index_nd'; did you mean index_end"),
        (HAND_TOML + "[[parts]]\nmodel = 'hand.xml'\non = 'palm'", "is in the robot already: give its part a `prefix`"),
        (HAND_TOML + "[limits]\nthumb_bnd = [0, 1]", "no joint 'thumb_bnd'; did you mean thumb_bend"),
        (HAND_TOML + "[limits]\nindex_end = [0, 1]", r"'index_end' isn't controlled; leave it out of \[limits\]"),
        (HAND_TOML + "[held]\nalong = 0.1", r"'along' is controlled; leave it out of \[held\]"),
        (HAND_TOML + "[[spheres]]\nat = 'palm'\nradius = 0.0", "needs a radius above 0"),
        (HAND_TOML + "[limits]\nalong = [nan, 1]", "limits.along must be 2 numbers"),
        (
            HAND_TOML
            + "[grip]\nworld_from_palm = [[1,0,0],[0,1,0],[0,0,1]]\ncentre = [0,0,0]\nopened = [0]\nclosed = [1]",
            "grip needs 4 numbers in opened and in closed",
        ),
        ('name = "x', "is no TOML"),
        ("arm = ['along']", r"no hand: add a table \[right\] or \[left\]"),
    ],
)
def test_a_bad_description_is_refused_with_what_to_change(tmp_path, description, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_robot(*files(tmp_path, description=description))
    assert str(tmp_path / "hand.toml") in str(raised.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            hand_mjcf(
                '<joint joint1="index_end" joint2="middle_end" polycoef="0 1 0 0 0"/>'
                '<joint joint1="middle_end" joint2="index_end" polycoef="0 1 0 0 0"/>'
            ),
            "follow each other in a circle: index_end -> middle_end -> index_end",
        ),
        (
            hand_mjcf().replace('euler="0.1 0 0">', 'euler="0.1 0 0"><joint name="loose" type="ball"/>'),
            "body 'palm' hangs on a ball joint",
        ),
        (hand_mjcf().replace(' range="-0.2 0.3"', ""), r"joint 'along' has no limits .* give them in \[limits\]"),
        ("<mujoco><worldbody></mujoco>", "is no MJCF or URDF that MuJoCo reads"),
        ("solid", "is no MJCF or URDF that MuJoCo reads"),
    ],
)
def test_a_bad_model_is_refused_with_what_to_change(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        read_robot(*files(tmp_path, model=model))


def test_a_circle_of_urdf_mimics_is_refused(tmp_path):
    urdf = two_hands_urdf().replace(
        '<joint name="left_index_1_joint" type="revolute">',
        '<joint name="left_index_1_joint" type="revolute"><mimic joint="left_index_2_joint"/>',
    )
    with pytest.raises(ValueError, match="circle: left_index_1_joint -> left_index_2_joint -> left_index_1_joint"):
        read_robot(*files(tmp_path, urdf, TWO_HANDS_TOML, "two.urdf"))


def test_robot_check_draws_a_page_and_fails_on_problems(tmp_path, capsys):
    model, description = files(tmp_path)
    command = ["robot", "check", str(model), "--output", str(tmp_path / "page")]
    cli.main([*command, "--description", str(description)])
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("<svg") == 2 + 1 + 6  # two sides of the hand, the whole robot, six joints
    assert "rightIndexFingerTip" in page
    assert "problem" not in capsys.readouterr().out
    description.write_text(HAND_TOML.replace("[right]", "[left]"))
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--description", str(description)])
    assert ended.value.code == 1
    assert capsys.readouterr().out.startswith("problem: all fingers of the left hand bend out of its back")
    for words, message in (
        ([str(model)], "needs a description of its hand"),
        (["alegro-right"], "did you mean allegro-right"),
        ([str(tmp_path / "gone.xml"), "--description", str(description)], "is no file"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["robot", "check", *words])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_a_package_that_is_missing_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr("dexworld.robots.described_robot.find_installed", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps 'gymnasium-robotics==1\.4\.2'"):
        named_robot("adroit")


def test_every_shipped_description_reads():
    for name in robot_names():
        description = shipped_description(name)
        assert description.model
        assert description.package
        assert min(len(hand.keypoints) for hand in description.hands.values()) >= 9
