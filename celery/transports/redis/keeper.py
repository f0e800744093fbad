"""Renews a lease from a thread, for programs that hold messages without turning an event loop."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger

from celery.transports.redis.scripts import BEGIN, RENEW

if TYPE_CHECKING:
    from celery.transports.redis.lease import Lease

__all__ = ("Keeper", "renew_with", "tell_begun")

logger = get_logger("celery.transports.redis")

#: The thread ends after so many rounds with nothing to renew.
IDLE_ROUNDS = 20


class Keeper(threading.Thread):
    """Started with the first delivery that is held while no event loop runs; ends when nothing is held any more."""

    def __init__(self, lease: Lease, ttl: float) -> None:
        super().__init__(name=f"celery-lease-{lease.prefix}", daemon=True)
        self.lease = lease
        self.ttl = ttl
        self.wake = threading.Event()

    @classmethod
    def watch(cls, lease: Lease, ttl: float) -> None:
        """See to it that ``lease`` is renewed by some thread, often enough for ``ttl``."""
        keeper = lease.keeper
        if keeper is None or not keeper.is_alive():
            with lease.lock:
                keeper = lease.keeper
                if keeper is None or not keeper.is_alive():
                    keeper = lease.keeper = cls(lease, ttl)
                    keeper.start()
        if ttl < keeper.ttl:
            keeper.ttl = ttl
            keeper.wake.set()

    def run(self) -> None:
        idle_rounds = 0
        while idle_rounds < IDLE_ROUNDS:
            self.wake.wait(self.ttl / 3)
            self.wake.clear()
            if self.lease.is_closing:
                return
            idle_rounds = idle_rounds + 1 if self.lease.is_idle else 0
            if monotonic() - self.lease.renewed_at >= self.ttl / 4:
                try:
                    renew_with(self.lease, self.ttl)
                except Exception as error:  # the next round tries again; the lease lasts three
                    logger.warning("Could not renew the lease at Redis: %s", error)


def renew_with(lease: Lease, ttl: float) -> None:
    """Renew everything held, over a client of redis-py."""
    client = lease.open_client()
    lease.renewed_at = monotonic()
    for tags, count_started in zip(lease.held(), (True, False), strict=True):
        for start in range(0, len(tags), 1000):
            part = tags[start : start + 1000]
            client.eval(RENEW.text, 0, lease.unacked, lease.index, ttl, len(part) if count_started else 0, *part)
    tell_begun(client, lease, ttl)


def tell_begun(client: Any, lease: Lease, ttl: float) -> None:
    """Extend the time for which all that runs counts as running, over a client of redis-py."""
    tags = list(lease.begun)
    lease.begun.update((tag, True) for tag in tags if tag in lease.begun)
    for start in range(0, len(tags), 1000):
        part = tags[start : start + 1000]
        client.eval(BEGIN.text, 0, lease.unacked, lease.index, lease.begun_index, ttl, *part)
