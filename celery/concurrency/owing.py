"""What a pool does about results that their store, being away, has not taken: a runner that ``owes`` keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.utils.stopping import SHORT_PAUSE, stopping

__all__ = ("OWING_SECONDS", "Payer", "owes", "pay_before_leaving")

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


class Payer:
    """Has the runners of a pool without idle threads store what they keep: now, and again until the store is back.

    ``call_later(seconds, function, *args)`` calls it where runners may be used.
    """

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self._is_due = False

    def pay(self, runner: Any) -> None:
        """Try now; of runners that keep results together, one of them is enough."""
        runner.flush()
        if owes(runner) and not self._is_due:
            self._is_due = True
            self._call_later(OWING_SECONDS, self._pay_again, runner)

    def _pay_again(self, runner: Any) -> None:
        self._is_due = False
        self.pay(runner)
