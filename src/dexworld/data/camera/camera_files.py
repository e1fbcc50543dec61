"""Camera and hand-eye files that people have: ROS `camera_info`, OpenCV's YAML and JSON, NPZ, and `easy_handeye`.

Files count pixels from the centre of the first one, as OpenCV does; a `Camera` counts from its corner, so the principal
point moves by half a pixel. Layouts are those that the ROS, OpenCV and easy_handeye (1 and 2) documentation publishes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.camera.camera import FIRST_PIXEL, Camera
from dexworld.data.camera.lens import COEFFICIENTS
from dexworld.data.files import read_arrays
from dexworld.data.rigid_poses import poses_of, quaternion_of, rotations_of
from dexworld.writing import write_text

_MATRIX = ("cameramatrix", "mtx", "intrinsicmatrix", "intrinsics", "k", "m1")
_DISTORTION = ("distortioncoefficients", "distcoeffs", "distortion", "dist", "d", "d1")
_WIDTH, _HEIGHT, _SIZE = ("imagewidth", "width"), ("imageheight", "height"), ("imagesize", "resolution")
_MODELS = {"plumb_bob": "plumb_bob", "radtan": "plumb_bob", "rational_polynomial": "rational_polynomial"}
_MODELS |= {"equidistant": "equidistant", "fisheye": "equidistant", "kannala_brandt4": "equidistant"}
_UNIT = 1e-2  # of a quaternion's length


@dataclass(frozen=True)
class HandEye:
    """Where a camera is mounted: on the robot's base (on_hand false) or on its flange.

    parent_from_camera: (4, 4), the optical frame in the base's or the flange's. base, effector, camera: names of the
    frames, empty where the file names none.
    """

    on_hand: bool
    parent_from_camera: np.ndarray
    base: str = ""
    effector: str = ""
    camera: str = ""


def read_camera(path: Path | str) -> Camera:
    """The camera of a file. Raises ValueError that names the file and what is wrong; OSError if it isn't there."""
    path = Path(path)
    values = _values(path)
    if "transformation" in values or "transform" in values:
        raise ValueError(f"{path} holds the pose of a camera, not its intrinsics: it is a hand-eye file")
    matrix = _array(path, values, _MATRIX, "a camera matrix", "camera_matrix, K or mtx")
    if matrix.size != 9:
        raise ValueError(f"{path}: the camera matrix has {matrix.size} numbers, not 9")
    given = next((values[name] for name in _DISTORTION if name in values), None)
    found = np.zeros(0) if given is None else _numbers(path, given, "the distortion").reshape(-1)
    model, kept = _model(path, values, found)
    try:
        return Camera(matrix.reshape(3, 3) + FIRST_PIXEL, _size(path, values), model, kept)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_hand_eye(path: Path | str) -> HandEye:
    """The pose of an `easy_handeye` file (version 1 or 2). Raises as `read_camera` does."""
    path = Path(path)
    values = _values(path)
    facts = values | {_plain(name): each for name, each in _mapping(values.get("parameters", {})).items()}
    try:
        if "transform" in values:
            parts = [_mapping(values["transform"])[name] for name in ("translation", "rotation")]
            numbers = [float(parts[0][each]) for each in "xyz"] + [float(parts[1][each]) for each in "xyzw"]
        else:
            pose = _mapping(values["transformation"])
            numbers = [float(pose[name]) for name in ("x", "y", "z", "qx", "qy", "qz", "qw")]
    except (KeyError, TypeError, ValueError) as error:
        wanted = "`transformation` with x, y, z, qx, qy, qz, qw (easy_handeye), or `transform` (easy_handeye2)"
        raise ValueError(f"{path} is no hand-eye file: it needs {wanted}") from error
    kind = facts.get("calibrationtype")
    on_hand = facts.get("eyeonhand") if kind is None else {"eye_in_hand": True, "eye_on_base": False}.get(kind)
    if not isinstance(on_hand, bool):
        raise ValueError(
            f"{path} doesn't say where the camera is: give eye_on_hand (true or false) or calibration_type "
            "(eye_in_hand or eye_on_base)"
        )
    place, turn = np.array(numbers[:3]), np.array(numbers[3:])
    length = float(np.linalg.norm(turn))
    if not np.isfinite(numbers).all() or abs(length - 1) > _UNIT:
        raise ValueError(
            f"{path}: the rotation {turn.tolist()} is no unit quaternion x, y, z, w (its length is {length:.3g}); "
            "angles in degrees or radians have to be converted"
        )
    known = {"base": "robotbaseframe", "effector": "roboteffectorframe", "camera": "trackingbaseframe"}
    names = {field: str(facts.get(name) or "") for field, name in known.items()}
    return HandEye(on_hand, poses_of(rotations_of(turn[None])[0], place), **names)


def write_camera(path: Path, camera: Camera, name: str = "camera") -> None:
    """Write a camera with a size as a ROS `camera_info` YAML file."""
    assert camera.size is not None
    matrix = (camera.intrinsics - FIRST_PIXEL).round(9).reshape(-1).tolist()
    projection = np.column_stack([(camera.intrinsics - FIRST_PIXEL).round(9), np.zeros(3)]).reshape(-1).tolist()
    coefficients = np.round(camera.distortion, 12).tolist()
    lines = [f"image_width: {camera.size[1]}", f"image_height: {camera.size[0]}", f"camera_name: {name}"]
    lines += [*_rows("camera_matrix", 3, 3, matrix), f"distortion_model: {camera.model}"]
    lines += _rows("distortion_coefficients", 1, len(coefficients), coefficients)
    lines += _rows("rectification_matrix", 3, 3, np.eye(3).reshape(-1).tolist())
    write_text(path, "\n".join(lines + _rows("projection_matrix", 3, 4, projection)) + "\n")


def write_hand_eye(path: Path, mounted: HandEye) -> None:
    """Write a pose as an `easy_handeye` YAML file."""
    place, turn = mounted.parent_from_camera[:3, 3], quaternion_of(mounted.parent_from_camera[:3, :3])
    numbers = dict(zip(("x", "y", "z", "qx", "qy", "qz", "qw"), [*place.tolist(), *turn.tolist()], strict=True))
    lines = ["parameters:", f"  eye_on_hand: {str(mounted.on_hand).lower()}"]
    lines += [f"  robot_base_frame: {mounted.base}", f"  robot_effector_frame: {mounted.effector}"]
    lines += [f"  tracking_base_frame: {mounted.camera}", "transformation:"]
    write_text(path, "\n".join(lines + [f"  {name}: {value:.9f}" for name, value in numbers.items()]) + "\n")


def _values(path: Path) -> dict[str, Any]:
    """What a file holds, by names in small letters without underscores."""
    if path.suffix.lower() == ".npz":
        if not path.exists():
            raise FileNotFoundError(2, "No such file", str(path))
        return {_plain(name): value for name, value in read_arrays(path)[0].items()}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text; camera files are .yaml, .json and .npz") from error
    if text.lstrip().startswith("<"):
        raise ValueError(f"{path} is XML; write it as YAML or JSON (cv::FileStorage takes the kind from the name)")
    try:
        values = json.loads(text) if path.suffix.lower() == ".json" else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} holds no values by name; camera files are .yaml, .json and .npz")
    return {_plain(str(name)): value for name, value in values.items()}


def _yaml(text: str) -> Any:
    """YAML, also as OpenCV writes it: with `%YAML:1.0`, and matrices as mappings of a type of their own."""
    import yaml  # comes with transformers

    class Loader(yaml.SafeLoader):
        pass

    def matrix(loader: Any, node: Any) -> Any:
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", matrix)
    try:
        return yaml.load(re.sub(r"\A%YAML:.*", "", text), Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.40} holds no values by name")
    return dict(value)


def _array(path: Path, values: Mapping[str, Any], names: tuple[str, ...], what: str, keys: str) -> np.ndarray:
    for name in names:
        if name in values:
            return _numbers(path, values[name], what)
    raise ValueError(f"{path} has no {what.removeprefix('a ')} ({keys}); it has {', '.join(values) or 'nothing'}")


def _numbers(path: Path, value: Any, what: str) -> np.ndarray:
    """Numbers of a list, of a mapping with `data`, or of an array."""
    try:
        return np.asarray(value["data"] if isinstance(value, Mapping) else value, float)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {what} is {value!r:.60}, no list of numbers") from error


def _model(path: Path, values: Mapping[str, Any], found: np.ndarray) -> tuple[Any, tuple[float, ...]]:
    """The lens model and its coefficients; without a name their number tells."""
    name = str(values.get("distortionmodel", "")).strip().lower()
    if bool(values.get("fisheyemodel", False)):
        name = "equidistant"
    if name and name not in _MODELS:
        raise ValueError(f"{path}: the distortion model {name!r} is unknown; known are {', '.join(COEFFICIENTS)}")
    model = _MODELS.get(name, "plumb_bob" if len(found) <= 5 else "rational_polynomial")
    most = max(COEFFICIENTS[model])
    if model == "plumb_bob" and len(found) > most and found[most:].any():
        raise ValueError(
            f"{path}: plumb_bob has at most 5 coefficients, the file {len(found)}: is it rational_polynomial?"
        )
    if found[most:].any():
        raise ValueError(
            f"{path}: coefficients from the {most + 1}th on (thin prism, tilted sensor) are not supported; calibrate "
            f"with {most} coefficients"
        )
    if not len(found) and model == "equidistant":
        raise ValueError(f"{path}: an equidistant lens has 4 distortion coefficients, the file none")
    found = found[:most]
    shortfall = 0 if len(found) in COEFFICIENTS[model] or len(found) else min(COEFFICIENTS[model])
    return model, tuple(np.concatenate([found, np.zeros(shortfall)]).tolist())


def _size(path: Path, values: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width), or None where the file doesn't say."""
    width, height = (next((values[name] for name in names if name in values), None) for names in (_WIDTH, _HEIGHT))
    if width is None and height is None:
        sides = next((values[name] for name in _SIZE if name in values), None)
        if sides is None:
            return None
        width, height = _numbers(path, sides, "the picture size").reshape(-1)[:2]
    try:
        size = int(np.asarray(height)), int(np.asarray(width))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the picture size is {width!r} x {height!r}, no two whole numbers") from error
    if min(size) < 1 or max(size) > 100_000:
        raise ValueError(f"{path}: the picture size is {size[1]} x {size[0]} (width x height)")
    return size


def _rows(name: str, rows: int, columns: int, data: list[float]) -> list[str]:
    return [f"{name}:", f"  rows: {rows}", f"  cols: {columns}", f"  data: {data}"]
