"""Rendering: every backend draws the same scene, and a backend that can't run says so."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from dexworld.sim import render
from dexworld.sim.render import RendererUnavailable, View, choose_backend, make_renderer, probe

HEIGHT, WIDTH = 112, 196
CAMERA = "eye"
FLOOR, BOX, SPHERE, CAPSULE, HIDDEN = range(5)

SCENE = """
<mujoco>
  <visual>
    <headlight ambient=".35 .35 .35" diffuse=".3 .3 .3" specular=".1 .1 .1"/>
    <quality shadowsize="1024" offsamples="0" numslices="64" numstacks="48"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  <statistic extent="1" center="0 0 0"/>
  <asset>
    <texture name="check" type="2d" builtin="checker" rgb1=".9 .8 .6" rgb2=".3 .3 .5" width="64" height="64"/>
    <material name="check" texture="check" texrepeat="2 3" texuniform="true"/>
  </asset>
  <worldbody>
    <light type="spot" pos=".3 -.2 2" dir="-.1 .1 -1" cutoff="70" diffuse=".6 .6 .6"/>
    <geom type="plane" size="2 2 .1" material="check"/>
    <geom type="box" size=".2 .15 .1" pos="0 0 .1" euler="0 0 20" material="check"/>
    <geom type="sphere" size=".1" pos=".4 -.2 .1" rgba=".9 .2 .1 1"/>
    <geom type="capsule" size=".05" fromto="-.5 -.2 .05 -.3 .2 .3" rgba=".1 .7 .2 1"/>
    <geom type="sphere" size=".1" pos="0 -.4 .3" group="3"/>
    <camera name="eye" pos="0 -1.2 .9" xyaxes="1 0 0 0 .6 1"/>
    <camera name="down" pos="0 .6 2" xyaxes="1 0 0 0 1 0"/>
  </worldbody>
</mujoco>
"""


def compiled(xml):
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture(scope="module")
def scene():
    return compiled(SCENE)


@pytest.fixture(scope="module")
def ray(scene):
    with make_renderer(scene[0], HEIGHT, WIDTH, "ray") as renderer:
        yield renderer


@pytest.fixture(scope="module")
def gl(scene):
    failures = {backend: probe(backend) for backend in ("egl", "osmesa")}
    works = [backend for backend, failure in failures.items() if failure is None]
    if not works:
        pytest.skip(f"no OpenGL on this machine to compare with: {failures}")
    with make_renderer(scene[0], HEIGHT, WIDTH, works[0]) as renderer:
        yield renderer


@pytest.fixture
def unprobed(monkeypatch):
    """No backend is chosen yet; `unprobed(*works)` says which ones draw, and returns those that are tried."""
    monkeypatch.setenv("MUJOCO_GL", "")

    def set_up(*works):
        tried = []

        def try_it(backend):
            tried.append(backend)
            return None if backend in works else "no such library"

        render.first_that_draws.cache_clear()
        monkeypatch.setattr(render, "probe", try_it)
        return tried

    yield set_up
    render.first_that_draws.cache_clear()


def test_nothing_hit_is_black_and_has_no_geom(scene, ray):
    ids, picture = ray.segmentation(scene[1], CAMERA), ray.rgb(scene[1], CAMERA)
    empty = ids == -1
    assert empty[0].all()  # above the horizon of a finite floor
    assert picture[empty].max() == 0


def test_hidden_groups_are_not_drawn_unless_the_view_asks_for_them(scene, ray):
    assert HIDDEN not in ray.segmentation(scene[1], CAMERA)
    assert set(np.unique(ray.segmentation(scene[1], CAMERA, View(groups=(3,))))) == {-1, HIDDEN}
    with pytest.raises(KeyError, match=r"'nose'.*'down', 'eye'|'nose'.*eye.*down"):
        ray.rgb(scene[1], "nose")


def test_shadows_only_darken(scene, ray):
    lit = ray.rgb(scene[1], CAMERA, View(shadows=False)).astype(int)
    shadowed = ray.rgb(scene[1], CAMERA).astype(int)
    assert (shadowed <= lit).all()
    assert 0.01 < (shadowed < lit - 10).any(-1).mean() < 0.3


def test_rays_and_opengl_draw_nearly_the_same_picture(scene, ray, gl):
    drawn, cast = gl.rgb(scene[1], CAMERA), ray.rgb(scene[1], CAMERA)
    assert drawn.shape == cast.shape == (HEIGHT, WIDTH, 3)
    assert drawn.dtype == cast.dtype == np.uint8
    assert np.abs(drawn.astype(int) - cast).mean() < 8  # of 255: same lights, textures and shadows


@pytest.mark.parametrize(("view", "seen"), [(View(), {-1, FLOOR, BOX, SPHERE, CAPSULE}), (View((3,)), {-1, HIDDEN})])
def test_rays_and_opengl_agree_on_segmentation_and_hide_the_same_groups(scene, ray, gl, view, seen):
    drawn, cast = gl.segmentation(scene[1], CAMERA, view), ray.segmentation(scene[1], CAMERA, view)
    assert set(np.unique(drawn)) == set(np.unique(cast)) == seen
    assert (drawn == cast).mean() > 0.97


def test_a_closed_renderer_refuses_to_draw(scene):
    renderer = make_renderer(scene[0], 8, 8, "ray")
    renderer.close()
    renderer.close()
    with pytest.raises(RuntimeError, match="closed"):
        renderer.rgb(scene[1], CAMERA)


@pytest.mark.parametrize(
    ("backend", "side", "error", "complaint"),
    [
        (None, 5000, ValueError, "offwidth"),
        ("vulkan", 8, ValueError, "unknown rendering backend 'vulkan'.*egl"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_to_do(scene, request, backend, side, error, complaint):
    with pytest.raises(error, match=complaint):
        make_renderer(scene[0], side, side, backend or request.getfixturevalue("gl").backend)


def test_an_opengl_that_cannot_run_is_refused_with_what_to_do(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    with pytest.raises(RendererUnavailable, match="backend='ray'"):
        make_renderer(scene[0], 8, 8, "osmesa")


def test_auto_falls_back_to_rays_when_no_opengl_works_and_says_so(unprobed, caplog):
    unprobed()
    assert choose_backend() == "ray"
    assert "ray renderer" in caplog.text


def test_auto_tries_egl_then_osmesa_once_and_leaves_the_environment_of_other_commands(unprobed):
    tried = unprobed("osmesa")
    before = dict(os.environ)
    assert [choose_backend(), choose_backend()] == ["osmesa", "osmesa"]
    assert tried == ["egl", "osmesa"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("setting", "backend"), [("egl", "egl"), ("OSMesa", "osmesa"), ("disable", "ray"), ("0", "ray")]
)
def test_the_environment_decides_without_a_probe(monkeypatch, setting, backend):
    monkeypatch.setenv("MUJOCO_GL", setting)
    monkeypatch.setattr(render, "probe", lambda backend: pytest.fail("probed"))
    assert choose_backend() == backend
    assert choose_backend("ray") == "ray"  # an argument beats the environment
    monkeypatch.setenv("MUJOCO_GL", "elg")
    with pytest.raises(ValueError, match="MUJOCO_GL='elg'"):
        choose_backend()


def test_a_crashing_driver_is_reported_and_not_fatal(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert probe("egl") == "the test process ended with exit code 1"


def test_an_environment_setting_that_breaks_the_import_of_mujoco_is_explained():
    environment = {**os.environ, "MUJOCO_GL": "vulkan"}
    command = [sys.executable, "-c", "import dexworld.sim.render"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "RendererUnavailable: MUJOCO_GL='vulkan'" in done.stderr
