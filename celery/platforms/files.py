"""Descriptors: which are open, and closing them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def fd_by_path(paths: Iterable[str]) -> list[int]:
    """Return the open descriptors of the files at ``paths``."""
    wanted = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        wanted.add((status.st_dev, status.st_ino))
    return [fd for fd in _open_fds() if _identity(fd) in wanted]


def _open_fds() -> Iterable[int]:
    """Return the descriptors that are open, or all there may be where the system does not tell."""
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return range(min(get_fdmax(2048), 65536))


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def get_fdmax(default: Any = None) -> Any:
    """Return the highest number of descriptors this process may have, or ``default`` where there is no limit."""
    try:
        import resource
    except ImportError:  # not on this system
        return default
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if limit == resource.RLIM_INFINITY else limit


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close all descriptors but those of ``keep`` (numbers or files)."""
    kept = sorted({fd for fd in map(maybe_fileno, keep or ()) if fd is not None})
    low = 0
    for fd in [*kept, get_fdmax(2048)]:
        if low < fd:  # an empty range from 0 closes everything, where Python asks the system for it
            os.closerange(low, fd)
        low = fd + 1


def maybe_fileno(file: Any) -> int | None:
    """Return the descriptor of a file given as such or by number; ``None`` if it has none any more."""
    if isinstance(file, int):
        return file
    try:
        return file.fileno()  # type: ignore[no-any-return]
    except (AttributeError, OSError, ValueError):  # closed, or no file at all
        return None


def isatty(fh: Any) -> Any:
    """Say whether ``fh`` is a terminal; ``None`` where that makes no sense."""
    try:
        return fh.isatty()
    except AttributeError:
        return None
