"""The progress page: memory that a child and its parent share, so that "started" and "done" need no message.

The child writes, without a system call, how far it is; the parent reads that when it is awake anyway, and for the
last time when the child is dead.  Each field is one aligned store of 8 bytes, so none is ever seen half written.

Frames to one child are numbered 1, 2, 3, ….  For frame *n* the child sets ``CLAIMED`` to *n*, then reads
``WITHDRAWN``: at or above *n* it skips the frame, else it sets ``RUNNING`` to *n* and runs it, and ``DONE`` after
that.  The parent withdraws by the mirrored order: set ``WITHDRAWN``, wait for stores to arrive, read ``CLAIMED``.
So at most one of them thinks that a frame is its own; where the child claimed and skipped, it says so.
"""

from __future__ import annotations

import mmap
import os
import tempfile

__all__ = (
    "CLAIMED",
    "DONE",
    "OWING",
    "RUNNING",
    "SOFT_RAISED",
    "SOFT_TARGET",
    "SOFT_TERMINATED",
    "STARTED_AT",
    "STOPPING",
    "TERMINATED_BY",
    "WITHDRAWN",
    "ProgressPage",
)

#: Written by the child: numbers of frames, when the running one began (``time.monotonic()``), and whether it only
#: waits for the store of results before it ends.
CLAIMED, RUNNING, DONE, SOFT_RAISED, STARTED_AT, OWING = range(6)

#: Written by the parent, on another cache line.
WITHDRAWN, SOFT_TARGET, SOFT_TERMINATED, TERMINATED_BY, STOPPING = range(16, 21)

SIZE = mmap.PAGESIZE


class ProgressPage:
    """Counters and times of one child; ``fd`` is the way to it for a child that does not inherit memory."""

    __slots__ = ("_memory", "counters", "fd", "times")

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, SIZE)
        view = memoryview(self._memory)
        #: Whole numbers, by the names above.
        self.counters = view.cast("Q")
        #: The same memory as seconds; only ``STARTED_AT`` is one.
        self.times = view.cast("d")

    @classmethod
    def on_file(cls) -> ProgressPage:
        """Return a page that another program can map, too."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("celery-progress")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def close(self) -> None:
        """Unmap it; numbers read before stay valid."""
        self.counters.release()
        self.times.release()
        try:
            self._memory.close()
        except BufferError:  # somebody still looks at it; it goes with the last view
            pass
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
