"""Frames between parent and child: a header of kind, length and number, then opaque bytes.

A large frame is collected where it will stay, and handed on as a view of that, because every copy counts then.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ("ANSWER", "CALL", "DONE_THROUGH", "HEADER", "JOB", "LARGE", "RETIRING", "SKIPPED", "UP", "FrameStream")

HEADER = struct.Struct("=BxxxIQ")
HEADER_SIZE = HEADER.size

#: What a header can say of a body.
LONGEST_BODY = 2**32 - 1

#: From this many bytes on, a frame is not put together with others.
LARGE = 1 << 20

#: To the child: bytes for the runner; a pickled ``(target, args, kwargs)``.
JOB, CALL = 1, 2

#: From the child.  UP: ready for work.  DONE_THROUGH: all up to this number ended as plain successes; the body is
#: when each of them began and when the last ended, as C doubles.  ANSWER: two doubles, begin and end, then the bytes.
#: SKIPPED: this number was withdrawn.  RETIRING: this number was the last one, the process is about to end.
UP, DONE_THROUGH, ANSWER, SKIPPED, RETIRING = 11, 12, 13, 14, 15


class FrameStream:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_have", "_large", "_need", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = self._need = 0
        #: Kind, number and room of the large frame that is on its way.
        self._large: tuple[int, int, bytearray] | None = None

    @property
    def is_inside_frame(self) -> bool:
        """Whether the last frame is incomplete."""
        return bool(self._parts) or self._large is not None

    def feed(self, data: bytes) -> list[tuple[int, int, Any]]:
        """Take the next bytes of the stream; return ``(kind, number, body)`` of the frames that are complete now.

        A body is bytes, or a view of bytes that nobody else holds.
        """
        if self._large is not None:
            return self._feed_large(data)
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        frames: list[tuple[int, int, Any]] = []
        at, size = 0, len(data)
        need = HEADER_SIZE
        unpack = HEADER.unpack_from
        while size - at >= HEADER_SIZE:
            kind, length, number = unpack(data, at)
            begin = at + HEADER_SIZE
            end = begin + length
            if end > size:
                if length >= LARGE:
                    self._large = kind, number, bytearray(length)
                    self._have = 0
                    self._feed_large(data[begin:])
                    return frames
                need = end - at
                break
            frames.append((kind, number, data[begin:end]))
            at = end
        if at < size:
            rest = data[at:] if at else data
            self._parts.append(rest)
            self._have, self._need = len(rest), need
        return frames

    def _feed_large(self, data: bytes) -> list[tuple[int, int, Any]]:
        kind, number, room = self._large  # type: ignore[misc]  # the caller has looked
        have = self._have
        self._have = end = min(have + len(data), len(room))
        room[have:end] = memoryview(data)[: end - have]
        if end < len(room):
            return []
        self._large = None
        self._have = 0
        return [(kind, number, memoryview(room)), *self.feed(data[end - have :])]
