"""The program ``celery``."""

from __future__ import annotations

import sys
from typing import NoReturn

from . import maybe_patch_concurrency

__all__ = ("main",)


def main() -> NoReturn:
    """Run the command line; exits with its status."""
    # ``multi`` passes -P on to the workers it starts, and needs no patch itself
    if "multi" not in sys.argv:
        try:
            maybe_patch_concurrency(_asked_for_at_shell() or sys.argv)
        except ImportError as error:
            package = error.name or "its package"
            print(f"Error: this pool needs {package}. Install it: pip install 'celery[{package}]'", file=sys.stderr)
            sys.exit(2)
    from celery.bin.celery import main as run

    sys.exit(run())


def _asked_for_at_shell() -> list[str]:
    """Return ``-P`` and the green threads that ``celery shell --gevent`` asks for."""
    words = sys.argv if "shell" in sys.argv else ()
    return next((["-P", name] for name in ("gevent", "eventlet") if f"--{name}" in words), [])


if __name__ == "__main__":
    main()
