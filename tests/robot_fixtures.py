"""Small robots in files: an MJCF hand on a sliding arm and a URDF of two hands; and where MuJoCo says they are."""

import numpy as np

from dexworld.robots.model_file import find_installed

# Slides, anchors off the body's origin, two joints on a body, a coupled joint, references, nested turned offsets.
HAND_MJCF = """
<mujoco model="sliding hand">
  <compiler angle="radian" eulerseq="xyz"/>
  <worldbody>
    <body name="table" pos="0 0 -1"><geom type="box" size="1 1 0.1"/></body>
    <body name="rail" pos="0.1 0.2 0.3" euler="0.2 -0.1 0.4">
      <joint name="along" type="slide" axis="1 1 0" range="-0.2 0.3"/>
      <joint name="turn" axis="0 0 1" pos="0.02 0 0.01" range="-1 1" ref="0.1"/>
      <geom type="capsule" size="0.03" fromto="0 0 0 0 0 0.2"/>
      <body name="palm" pos="0 0 0.2" euler="0.1 0 0">
        <geom type="box" size="0.01 0.04 0.04" pos="0 0 0.04"/>
        {fingers}
        <body name="thumb1" pos="0 0.04 0.02" euler="-0.8 0 0">
          <joint name="thumb_bend" axis="0 1 0" range="0 1.2"/>
          <geom type="capsule" size="0.008" fromto="0 0 0 0 0 0.04"/>
          <body name="thumb2" pos="0 0 0.04"><site name="thumb_tip" pos="0 0 0.03"/></body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality>{couplings}</equality>
</mujoco>
"""
_FINGER = """
        <body name="{name}1" pos="0 {across} 0.08">
          <joint name="{name}_bend" axis="0 1 0" pos="0 0 0.002" range="0 1.5"/>
          <geom type="capsule" size="0.008" fromto="0 0 0 0 0 0.04"/>
          <body name="{name}2" pos="0 0 0.04">
            <joint name="{name}_end" axis="0 1 0" range="0 1.6"/>
            <geom type="capsule" size="0.007" fromto="0 0 0 0 0 0.03"/>
            <site name="{name}_tip" pos="0 0 0.03"/>
          </body>
        </body>"""
NAMES = {"index": 0.03, "middle": 0.01, "ring": -0.01}

HAND_TOML = """
name = "sliding hand"
arm = ["along", "turn"]
fingers = ["thumb_bend", "index_bend", "middle_bend", "ring_bend"]

[right]
wrist = "palm"
thumb = ["thumb1", "thumb2", { at = "thumb2", offset = [0.0, 0.0, 0.015] }, "thumb_tip"]
index = ["index1", "index2", { at = "index2", offset = [0.0, 0.0, 0.015] }, "index_tip"]
middle = ["middle1", "middle2", { at = "middle2", offset = [0.0, 0.0, 0.015] }, "middle_tip"]
ring = ["ring1", "ring2", "", "ring_tip"]
little = "ring"
"""


def hand_mjcf(couplings: str | None = None) -> str:
    """The sliding hand; the ends of its fingers follow the first joints by quadratic polynomials."""
    fingers = "".join(_FINGER.format(name=name, across=across) for name, across in NAMES.items())
    rows = [f'<joint joint1="{name}_end" joint2="{name}_bend" polycoef="0.05 0.8 0.1 0 0"/>' for name in NAMES]
    return HAND_MJCF.format(fingers=fingers, couplings="".join(rows) if couplings is None else couplings)


def _link(name: str) -> str:
    return f'<link name="{name}"/>'


def _joint(name: str, parent: str, child: str, origin: str, axis: str = "", more: str = "") -> str:
    kind = "revolute" if axis else "fixed"
    axis = f'<axis xyz="{axis}"/><limit lower="0" upper="1.4" effort="1" velocity="1"/>' if axis else ""
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{origin}" rpy="0.1 -0.2 0.3"/>{axis}{more}</joint>'
    )


def two_hands_urdf() -> str:
    """A torso with two arms of one joint and hands of two fingers, whose second joints mimic the first."""
    parts = [
        _link("torso"),
        '<link name="unseen"><collision><geometry><mesh filename="package://none/gone.stl"/></geometry></collision></link>',
    ]
    parts.append(_joint("seen", "torso", "unseen", "0 0 0.1"))
    for side, sign in (("left", 1), ("right", -1)):
        parts += [_link(f"{side}_palm"), _joint(f"{side}_arm", "torso", f"{side}_palm", f"0 {0.3 * sign} 0", "0 0 1")]
        for finger, across in (("index", -0.03 * sign), ("little", 0.03 * sign)):
            first, second, tip = (f"{side}_{finger}_{number}" for number in (1, 2, 3))
            parts += [_link(first), _link(second), _link(tip)]
            mimic = f'<mimic joint="{first}_joint" multiplier="0.9" offset="0.1"/>'
            parts += [
                _joint(f"{first}_joint", f"{side}_palm", first, f"0 {across} 0.08", "0 1 0"),
                _joint(f"{second}_joint", first, second, "0 0 0.04", "0 1 0", mimic),
                _joint(f"{tip}_joint", second, tip, "0 0 0.03"),
            ]
    return f'<robot name="two">{"".join(parts)}</robot>'


TWO_HANDS_TOML = "\n".join(
    [
        'base = "torso"',
        'arm = ["left_arm", "right_arm"]',
        'fingers = ["left_index_1_joint", "left_little_1_joint", "right_index_1_joint", "right_little_1_joint"]',
        *(
            f'[{side}]\nwrist = "{side}_palm"\n'
            + "\n".join(
                f'{finger} = ["{side}_{finger}_1", "{side}_{finger}_2", "", "{side}_{finger}_3"]'
                for finger in ("index", "little")
            )
            for side in ("left", "right")
        ),
    ]
)


def mujoco_keypoints(path, description, joints, positions) -> np.ndarray:
    """Keypoints (N, 42, 3) in the base frame as MuJoCo computes them, for controlled joints (N, J).

    Joints that the model couples, and those that the description does, are put where their polynomials say.
    """
    import mujoco

    def bare(file, without):
        spec = mujoco.MjSpec.from_file(str(file))
        for geom in [each for each in spec.geoms if each.type == mujoco.mjtGeom.mjGEOM_MESH]:
            spec.delete(geom)
        for mesh in list(spec.meshes):
            spec.delete(mesh)
        for name in without:
            spec.delete(spec.body(name))
        spec.compiler.fusestatic = False
        spec.compiler.balanceinertia, spec.compiler.boundmass, spec.compiler.boundinertia = True, 1e-3, 1e-6
        return spec

    spec = bare(path, description.without)
    for part in description.parts:
        frame = spec.body(part.on).add_frame(pos=part.offset, quat=part.rotation)
        other = bare(find_installed(part.model), part.without)
        for joint in [each for each in other.joints if each.type == mujoco.mjtJoint.mjJNT_FREE]:
            other.delete(joint)
        spec.attach(other, prefix=part.prefix, frame=frame)
    model = spec.compile()
    data, found = mujoco.MjData(model), np.zeros((len(positions), 42, 3))
    couplings = [
        (model.joint(model.eq_obj1id[row]).name, model.joint(model.eq_obj2id[row]).name, model.eq_data[row][:5])
        for row in range(model.neq)
        if model.eq_type[row] == mujoco.mjtEq.mjEQ_JOINT
    ]
    couplings += [(name, each.of, each.polynomial) for name, each in description.coupled.items()]
    address = {model.joint(index).name: model.jnt_qposadr[index] for index in range(model.njnt)}
    base = data.body(description.base)
    for number, row in enumerate(positions):
        data.qpos[:] = model.qpos0
        data.qpos[[address[name] for name in joints]] = row
        for _ in range(2):  # a joint may follow one that follows another
            for name, of, polynomial in couplings:
                by = data.qpos[address[of]] - model.qpos0[address[of]]
                data.qpos[address[name]] = model.qpos0[address[name]] + np.polynomial.polynomial.polyval(by, polynomial)
        mujoco.mj_kinematics(model, data)
        for side, start in (("left", 0), ("right", 21)):
            for place_row, place in description.hands[side].keypoints.items() if side in description.hands else ():
                names = [model.site(index).name for index in range(model.nsite)]
                frame = data.site(place.at) if place.at in names else data.body(place.at)
                world = frame.xpos + frame.xmat.reshape(3, 3) @ place.offset
                found[number, start + place_row] = base.xmat.reshape(3, 3).T @ (world - base.xpos)
    return found
