import io

import av
import numpy as np
import pytest

from dexworld.report.media import encode_jpeg, encode_mp4, enlarged, even, film, films


def decoded(content: bytes, kind: str) -> tuple[np.ndarray, str, str]:
    with av.open(io.BytesIO(content), format=kind) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.codec_context.name, stream.codec_context.pix_fmt or ""


def test_a_video_is_h264_that_browsers_play_shows_what_went_in_and_is_the_same_every_time(moving_disc):
    frames, codec, pixel_format = decoded(encode_mp4(moving_disc, fps=5), "mp4")
    assert (codec, pixel_format) == ("h264", "yuv420p")
    assert frames.shape == (6, 224, 392, 3)  # four times larger
    error = np.abs(frames.astype(int) - enlarged(moving_disc).astype(int))
    assert error.mean() < 3.0
    assert encode_mp4(moving_disc, 5) == encode_mp4(moving_disc, 5)


def test_odd_sizes_are_made_even_and_large_frames_stay_as_they_are():
    frames = np.zeros((2, 225, 393, 3), dtype=np.uint8)
    assert enlarged(frames).shape == frames.shape
    assert even(frames).shape == (2, 226, 394, 3)
    assert decoded(encode_mp4(frames, fps=12.5), "mp4")[0].shape == (2, 226, 394, 3)


def test_a_jpeg_shows_what_went_in(moving_disc):
    content = encode_jpeg(moving_disc[0])
    frames, _, _ = decoded(content, "jpeg_pipe")
    assert content[:2] == b"\xff\xd8"
    assert np.abs(frames[0].astype(int) - moving_disc[0].astype(int)).mean() < 3.0


def test_what_is_no_video_is_refused():
    for wrong in (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"\(F, H, W, 3\) uint8"):
            encode_mp4(wrong, fps=5)
    with pytest.raises(ValueError, match="frame rate"):
        encode_mp4(np.zeros((2, 8, 8, 3), np.uint8), fps=0)


def test_videos_of_a_clip_share_one_group_with_a_slider(moving_disc):
    markup = films([film(moving_disc, 5, "one", kind="own"), film(moving_disc, 5, "two", "a note")])
    assert markup.count("<video") == 2
    assert markup.count("data-films") == 1
    assert 'class="own"' in markup
    assert 'type="range"' in markup
