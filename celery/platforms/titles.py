"""What tools such as ``ps`` show of us."""

from __future__ import annotations

import os
import sys
from typing import Any


def strargv(argv: list[str]) -> str:
    """Return the arguments, without the program."""
    return " ".join(argv[1:]) if len(argv) > 1 else ""


def set_process_title(progname: str, info: str | None = None) -> str:
    """Have tools such as ``ps`` show ``[progname] info``, if setproctitle is installed; return that text."""
    title = f"[{progname}]"
    if info:
        title = f"{title} {info}"
    setproctitle = _setproctitle()
    if setproctitle is not None:
        setproctitle.setproctitle(title)
    return title


def _setproctitle() -> Any:
    try:
        import setproctitle
    except ImportError:
        return None
    return setproctitle


def set_mp_process_title(progname: str, info: str | None = None, hostname: str | None = None) -> str:
    """Set a title that names host and pool process; ``NOSETPS`` switches it off."""
    if os.environ.get("NOSETPS"):
        return ""
    if hostname:
        progname = f"{progname}: {hostname}"
    billiard = sys.modules.get("billiard.process") or sys.modules.get("multiprocessing.process")
    name = billiard.current_process().name if billiard else "MainProcess"
    return set_process_title(f"{progname}:{name}", info=info)
