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
        maybe_patch_concurrency()
    from celery.bin.celery import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
