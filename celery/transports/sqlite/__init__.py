"""A broker in one SQLite file: nothing to install, nothing lost when a process is killed.

For a machine on its own: a demo, a test suite, a small site.  The URL is ``sqlite:///relative/path`` or
``sqlite:////absolute/path``.

A message that is taken stays in the file, marked with its holder, until it is acknowledged.  A holder is alive as long
as it holds a lock on a byte of ``<file>-holders``.  The kernel gives the lock up when the process dies, so what a
killed worker held is taken by another at once, and what a living one holds is never given away.
"""

from __future__ import annotations

from celery.transports.sqlite.transport import Channel, Transport

__all__ = ("Channel", "Transport")
