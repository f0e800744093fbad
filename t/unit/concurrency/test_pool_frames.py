"""Frames, however the stream is cut."""

from __future__ import annotations

import pytest

from celery.concurrency.processes.frames import ANSWER, DONE_THROUGH, HEADER, JOB, FrameStream

FRAMES = [(JOB, 1, b""), (ANSWER, 2, b"x" * 1000), (DONE_THROUGH, 2**40, b"y")]
STREAM = b"".join(HEADER.pack(kind, len(body), number) + body for kind, number, body in FRAMES)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 100, 1016, len(STREAM)])
def test_a_stream_gives_the_same_frames_however_it_is_cut(size):
    stream = FrameStream()
    frames = [frame for at in range(0, len(STREAM), size) for frame in stream.feed(STREAM[at : at + size])]

    assert frames == FRAMES
    assert not stream.is_inside_frame


def test_an_incomplete_frame_is_kept_until_the_rest_comes():
    stream = FrameStream()

    assert stream.feed(STREAM[:20]) == FRAMES[:1]
    assert stream.is_inside_frame
    assert stream.feed(STREAM[20:]) == FRAMES[1:]
