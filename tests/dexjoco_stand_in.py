"""A package with DexJoCo's published interface and none of its content: an arm, a hand, and a mouse on a table.

`write_package(folder)` puts it there as `dexjoco`. Robot: our Panda and Allegro numbers in DexJoCo's names. Its
controller is a weld to the pose that an action names, which follows at once.
"""

from pathlib import Path

from dexworld.robots.franka_allegro import ARM

MODEL = Path("dexjoco") / "sim" / "envs" / "xmls" / "panda_allegro_copy.xml"
_FINGER = '<inertial pos="0 0 0.02" mass="0.02" diaginertia="1e-4 1e-4 1e-4"/>'
_LIMITS = {"0": "-0.47 0.47", "1": "-0.196 1.61", "2": "-0.174 1.709", "3": "-0.227 1.618"}
_SCENE = """
<mujoco><compiler angle="radian"/><option timestep="0.002"/><visual><global offwidth="640" offheight="640"/></visual>
<default><geom contype="0" conaffinity="0"/></default>
<worldbody><light pos="0 0 3"/><geom name="table_visual" type="box" size="0.4 0.4 0.02" pos="-0.15 0 0.9"/>
<camera name="right" pos="-1 -0.8 2" quat="0.85355332 0.35355357 -0.14644619 -0.35355357" fovy="45"/>
<body name="mousepad" pos="-0.2 -0.2 0.93">
<geom name="mousepad" type="cylinder" size="0.1 0.001" rgba="1 0 1 1"/></body>
<body name="link_3" pos="-0.2 0 0.94" gravcomp="1"><freejoint name="mouse_root"/>
<geom type="box" size="0.05 0.03 0.02" rgba="0 0 0 1"/><body pos="0 0 0.02" gravcomp="1">
<joint name="mouse_joint_0" type="slide" axis="0 0 -1" range="-0.008 0.008" limited="true" stiffness="10"/>
<geom type="box" size="0.02 0.02 0.002"/></body></body>
<body name="target" mocap="true"/>ROBOT</worldbody>
<equality><weld body1="target" body2="flange" relpose="0 0 0 1 0 0 0" solref="0.01 1"/></equality>
<actuator>ACTUATORS</actuator></mujoco>
"""
_RENDERING = """
class MujocoRenderer:
    def render(self, render_mode, camera_id=None):
        raise RuntimeError("four pictures a step are slow")
"""
_TASKS = """
import time
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

from dexjoco.sim.rendering import MujocoRenderer

HOME = [0, -0.785, 0, -2.35, 0, 1.57, np.pi / 4, *[0.0] * 12, 0.263, 0, 0, 0]


class Mouse(gymnasium.Env):
    def __init__(self, seed):
        np.random.seed(seed)
        self.hz, self.control_dt, self.count, self.on_pad, self.speeds = 30, 0.02, 0, False, [0.0]
        xml = Path(__file__).parent.parent / "scene.xml"
        self.model = mujoco.MjModel.from_xml_path(str(xml))
        self.data, self.viewer = mujoco.MjData(self.model), MujocoRenderer()

    def seen(self):
        picture = self.viewer.render("rgb_array", camera_id=0)
        return {"state": np.zeros(31), **dict.fromkeys(("front", "ego_left", "ego_right", "wrist"), picture)}

    def reset(self, seed=None):
        mujoco.mj_resetData(self.model, self.data)
        self.model.body("mousepad").pos[:2] = np.random.uniform([-0.25, -0.25], [-0.15, -0.15])
        self.data.qpos[8:31] = HOME
        self.data.ctrl[:] = HOME[7:]
        mujoco.mj_forward(self.model, self.data)
        flange = self.data.body("flange")
        self.data.mocap_pos[0], self.data.mocap_quat[0] = flange.xpos, flange.xquat
        self.count = 0
        return self.seen(), {"succeed": False}

    def step(self, action):
        assert action.shape == (23,)
        self.data.mocap_pos[0], self.data.mocap_quat[0], self.data.ctrl[:] = action[:3], action[3:7], action[7:]
        for _ in range(10):
            mujoco.mj_step(self.model, self.data)
        time.sleep(1 / self.hz)
        self.on_pad = bool(np.linalg.norm((self.data.body("link_3").xpos - self.data.body("mousepad").xpos)[:2]) < 0.05)
        self.count = self.count + 1 if self.on_pad else 0
        self.speeds = [float(self.data.qvel[0])]
        print("a step")  # as DexJoCo does
        return self.seen(), 0.0, self.count > 3, False, {"succeed": self.count > 3}


class Config:
    def get_environment(self, policy_mode, render_mode, randomize, seed, randomize_dynamics):
        assert policy_mode and render_mode == "rgb_array" and not randomize and not randomize_dynamics
        return Mouse(seed)


CONFIG_MAPPING = {"click_mouse": Config}
"""


def write_package(folder: Path) -> Path:
    """Write the package below the folder; gives the folder `dexjoco`."""
    actuators = "".join(
        f'<position joint="{finger}j{joint}" kp="1"/>' for finger in ("ff", "mf", "rf", "th") for joint in range(4)
    )
    package, robot = folder / "dexjoco", _robot()
    files = {
        MODEL: f"<mujoco><compiler angle='radian'/><worldbody>{robot}</worldbody></mujoco>",
        "dexjoco/scene.xml": _SCENE.replace("ROBOT", robot).replace("ACTUATORS", actuators),
        "dexjoco/sim/rendering.py": _RENDERING,
        "dexjoco/tasks/__init__.py": _TASKS,
        "dexjoco/sim/__init__.py": "",
        "dexjoco/__init__.py": "",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return package


def _robot() -> str:
    joints, body = ' damping="1" armature="0.1"/>', ""
    for finger, place in (("ff", "0 0.0435 0"), ("mf", "0 0 0"), ("rf", "0 -0.0435 0"), ("th", "-0.02 0.02 -0.04")):
        names, ways = ("base", "proximal", "medial", "distal"), ("", "0 0 0.0164", "0 0 0.054", "0 0 0.0384")
        for number, (name, way) in enumerate(zip(names, ways, strict=True)):
            axis = "0 0 1" if number == 0 else "0 1 0"
            limits = "0.263 1.396" if (finger, number) == ("th", 0) else _LIMITS[str(number)]
            joint = f'<joint name="{finger}j{number}" axis="{axis}" range="{limits}" limited="true" damping="0.1"/>'
            body += f'<body name="{finger}_{name}" gravcomp="1" pos="{way or place}">{joint}{_FINGER}'
        body += "</body>" * 4
    palm = f'<body name="allegro_palm" pos="-0.05 0 0.03" quat="0.707 0 -0.707 0" gravcomp="1">{_FINGER}{body}</body>'
    flange = '<site name="attachment_site" quat="0 0 0 1"/><body name="flange" quat="0 0 0 1"/>'
    text = f'<body name="attachment" pos="0 0 0.107" quat="0.3826834 0 0 0.9238795">{flange}{palm}</body>'
    for number, joint in reversed(list(enumerate(ARM, 1))):
        place, turn, axis, limits = (
            " ".join(map(str, each)) for each in (joint.origin, joint.quaternion, joint.axis, joint.limits)
        )
        hinge = f'<joint name="joint{number}" axis="{axis}" range="{limits}" limited="true"{joints}'
        shape = '<geom type="sphere" size="0.05" mass="1"/>'
        text = f'<body name="link{number}" pos="{place}" quat="{turn}" gravcomp="1">{hinge}{shape}{text}</body>'
    return f'<body name="link0" pos="-0.75 0 0.924">{text}</body>'
