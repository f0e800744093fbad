"""What a pool does about results that their store, being away, has not taken: a runner that ``owes`` keeps them."""

from __future__ import annotations

import time
from typing import Any

from celery.utils.stopping import SHORT_PAUSE, stopping

__all__ = ("OWING_SECONDS", "owes", "pay_before_leaving")

#: Seconds between two tries to store what the store did not take, while there is nothing else to do.
OWING_SECONDS = 1.0


def owes(runner: Any) -> bool:
    """Return whether ``runner`` keeps results; those of users' pools may not say."""
    return bool(getattr(runner, "owes", False))


def pay_before_leaving(runner: Any) -> None:
    """Wait until ``runner``, which is not to run anything more, has stored what it keeps; not if the worker stops."""
    while owes(runner) and not stopping:
        time.sleep(SHORT_PAUSE)
        runner.flush()  # tries only now and then
