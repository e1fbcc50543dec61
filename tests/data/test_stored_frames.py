"""Frames of a store: scaled, cut and encoded, with intrinsics that fit."""

from fractions import Fraction

import av
import numpy as np
import pytest
from store_fixtures import make_episode, prepare

from dexworld.data.store.encode import encode_episode
from dexworld.data.store.packs import write_pack
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video_frames import VideoFrames
from dexworld.track import ArrayFrames


@pytest.mark.parametrize(
    ("source", "settings", "scaled", "corner", "stored"),
    [
        ((1080, 1920), PrepareSettings(), (224, 398), (0, 0), (224, 398)),
        ((1080, 1920), PrepareSettings(crop=(224, 392)), (224, 398), (0, 2), (224, 392)),
        ((480, 640), PrepareSettings(width=398), (298, 398), (36, 0), (224, 398)),
        ((180, 320), PrepareSettings(), (224, 398), (0, 0), (224, 398)),
    ],
)
def test_frames_are_scaled_to_cover_and_cut_evenly(source, settings, scaled, corner, stored):
    episode = make_episode(0, 1, frames=ArrayFrames(np.zeros((1, *source, 3), dtype=np.uint8)))
    fit = settings.resolved(episode).fit(source)
    assert (fit.scaled, fit.corner, fit.target) == (scaled, corner, stored)
    # the middle of the picture stays the middle, and the far corner of the scaled picture is that of the source
    far = fit.pixels(np.array([[source[1], source[0]]], dtype=float))[0]
    np.testing.assert_allclose(far, [scaled[1] - corner[1], scaled[0] - corner[0]])
    matrix = np.array([[700.0, 0, 0.3 * source[1]], [0, 710, 0.6 * source[0]], [0, 0, 1]])
    point = np.array([0.2, -0.1, 1.5])
    pixel, moved = (found[:2] / found[2] for found in (matrix @ point, fit.intrinsics(matrix) @ point))
    np.testing.assert_allclose(moved, fit.pixels(pixel[None])[0])


def test_scaled_and_cut_frames_fit_their_intrinsics_and_pixels(tmp_path):
    pixels = np.full((5, 2), 30.0)
    frames = np.zeros((5, 128, 256, 3), dtype=np.uint8)
    frames[:, 40:48, 100:108] = 255  # centred on (104, 44)
    episode = make_episode(0, 5, frames=ArrayFrames(frames), columns={"dot_pixels": pixels})
    episode.intrinsics[:] = [[100, 0, 104], [0, 100, 44], [0, 0, 1]]
    dataset = prepare(tmp_path, [[("a", lambda: episode)]], PrepareSettings(height=64, crop=(48, 96)))
    stored = dataset[0]
    assert stored.frames.size == (48, 96)
    bright = np.argwhere(stored.frames.read([2])[0].mean(axis=-1) > 128) + 0.5
    np.testing.assert_allclose(bright.mean(axis=0)[::-1], stored.intrinsics[:2, 2], atol=0.05)
    np.testing.assert_allclose(stored.columns["dot_pixels"], pixels / 2 - [16, 8])


def test_a_crop_larger_than_the_frames_is_a_mistake_of_the_settings(tmp_path):
    with pytest.raises(ValueError, match="larger than the scaled frame"):
        write_pack(tmp_path, 0, [("a", lambda: make_episode(0))], PrepareSettings(height=64, crop=(64, 98)))


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("codec", ["h264", "h264-444", "jpeg"])
def test_colours_of_a_video_stay_whatever_way_they_take(tmp_path, codec, tagged):
    colours = np.array([[220, 40, 30], [20, 180, 60], [40, 60, 210], [240, 230, 90]], dtype=np.uint8)
    frame = np.repeat(np.repeat(colours[None], 128, axis=0), 48, axis=1)
    path = tmp_path / "source.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"crf": "10", "bf": "3"})
        stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
        if tagged:
            stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        for _ in range(9):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(
                stream.encode(picture.reformat(format="yuv420p", dst_colorspace=1 if tagged else 5, dst_color_range=1))
            )
        container.mux(stream.encode())
    episode = make_episode(0, 9, frames=VideoFrames(path, uneven=True))
    dataset = prepare(tmp_path / "store", [[("a", lambda: episode)]], PrepareSettings(height=64, codec=codec, group=3))
    stored = dataset[0].frames.read([7])[0]
    for place, colour in enumerate(colours):
        found = stored[16:48, 24 * place + 8 : 24 * place + 16].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(found, colour, atol=6)


@pytest.mark.parametrize("codec", ["h264", "av1", "jpeg"])
def test_a_coarser_rate_factor_takes_fewer_bytes(codec):
    generator = np.random.default_rng(0)
    frames = ArrayFrames(generator.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8))
    size = {}
    for crf in (2, 20):
        settings = PrepareSettings(height=64, width=96, codec=codec, crf=crf, fps=30.0)
        size[crf] = sum(len(packet) for packet in encode_episode(frames, settings, "noise").packets)
    assert size[20] < 0.8 * size[2]
