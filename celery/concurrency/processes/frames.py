"""Frames between parent and child: a header of kind, length and number, then opaque bytes."""

from __future__ import annotations

import struct

__all__ = ("ANSWER", "CALL", "DONE_THROUGH", "HEADER", "JOB", "RETIRING", "SKIPPED", "UP", "FrameStream")

HEADER = struct.Struct("=BxxxIQ")
HEADER_SIZE = HEADER.size

#: What a header can say of a body.
LONGEST_BODY = 2**32 - 1

#: To the child: bytes for the runner; a pickled ``(target, args, kwargs)``.
JOB, CALL = 1, 2

#: From the child.  UP: ready for work.  DONE_THROUGH: all up to this number ended as plain successes; the body is
#: when each of them began and when the last ended, as C doubles.  ANSWER: two doubles, begin and end, then the bytes.
#: SKIPPED: this number was withdrawn.  RETIRING: this number was the last one, the process is about to end.
UP, DONE_THROUGH, ANSWER, SKIPPED, RETIRING = 11, 12, 13, 14, 15


class FrameStream:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_have", "_need", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = self._need = 0

    @property
    def is_inside_frame(self) -> bool:
        """Whether the last frame is incomplete."""
        return bool(self._parts)

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Take the next bytes of the stream; return ``(kind, number, body)`` of the frames that are complete now."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        frames = []
        at, size = 0, len(data)
        need = HEADER_SIZE
        unpack = HEADER.unpack_from
        while size - at >= HEADER_SIZE:
            kind, length, number = unpack(data, at)
            begin = at + HEADER_SIZE
            end = begin + length
            if end > size:
                need = end - at
                break
            frames.append((kind, number, data[begin:end]))
            at = end
        if at < size:
            rest = data[at:] if at else data
            self._parts.append(rest)
            self._have, self._need = len(rest), need
        return frames
