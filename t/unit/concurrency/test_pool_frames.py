"""Frames, however the stream is cut."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from celery.concurrency.processes.child import Child
from celery.concurrency.processes.frames import ANSWER, DONE_THROUGH, HEADER, JOB, LARGE, FrameStream

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


@pytest.mark.parametrize("size", [1 << 16, LARGE - 7, LARGE + HEADER.size, 10 * LARGE])
def test_a_large_frame_comes_as_a_view_that_nobody_else_holds(size):
    large = bytes(range(256)) * (LARGE // 256) + b"end"
    sent = [(JOB, 1, b"before"), (JOB, 2, large), (JOB, 3, large), (JOB, 4, b"behind")]
    data = b"".join(HEADER.pack(kind, len(body), number) + body for kind, number, body in sent)
    stream = FrameStream()
    frames = [frame for at in range(0, len(data), size) for frame in stream.feed(data[at : at + size])]

    assert [(kind, number, bytes(body)) for kind, number, body in frames] == sent
    assert not stream.is_inside_frame
    if size < LARGE:
        view = frames[1][2]
        room = view.obj
        view.release()
        room.clear()  # a BufferError if there were another view


class Parent:
    """A child's parent, with its end of the socket."""

    def __init__(self):
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.child = Child(SimpleNamespace(name="child", pid=os.getpid(), exitcode=0), ours, None)

    def close(self):
        self.child.let_go()
        self.theirs.close()


@pytest.fixture
def parent():
    parent = Parent()
    yield parent
    parent.close()


def test_frames_of_any_size_arrive_in_the_order_in_which_they_were_put(parent):
    bodies = [b"a", b"b" * 1000, b"c" * LARGE, b"d" * LARGE, b"e", b"f" * LARGE, b"g"]
    job, stream, came = SimpleNamespace(name="job"), FrameStream(), []
    for body in bodies:
        parent.child.put(JOB, body, job, 0.0)
    while not parent.child.push():
        came += stream.feed(parent.theirs.recv(1 << 20))
    parent.child.put(JOB, b"last", job, 0.0)
    assert parent.child.push()
    while len(came) < len(bodies) + 1:
        came += stream.feed(parent.theirs.recv(1 << 20))

    assert [bytes(body) for _, _, body in came] == [*bodies, b"last"]
    assert [number for _, number, _ in came] == list(range(1, len(bodies) + 2))
