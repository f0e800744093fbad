"""Revoked tasks on record: what is revoked while no worker runs, or before one starts, does not run either."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from celery.backends.base import DisabledBackend
from celery.utils.log import get_logger
from celery.worker import state

__all__ = ("Revocations",)

logger = get_logger(__name__)

#: Seconds for which a new connection waits for the record of a result store; what comes later is taken over then.
RECALL_SECONDS = 2.0


class Revocations:
    """Reads the record of revoked tasks before newer messages are delivered, and adds to it.

    It is the broker's if that keeps one, and read with the messages; else the result store's, read at each connection.
    """

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer

    def hear_of(self, transport: Any) -> None:
        """Let ``transport`` tell of what others have recorded, if it keeps such a record."""
        if hasattr(transport, "on_revoked"):
            transport.on_revoked = self.learn
            return
        if isinstance(self.consumer.app.backend, DisabledBackend):
            return
        found: deque[tuple[list[str], dict[str, list[Any]]]] = deque()
        is_over = threading.Event()

        def recall() -> None:
            try:
                found.append(self.consumer.app.backend.recall_revoked())
                self.consumer.call_soon(take_over)
            finally:
                is_over.set()

        def take_over() -> None:
            if found:
                self.learn(*found.pop())

        self.consumer.bookkeeper.submit(recall)
        is_over.wait(RECALL_SECONDS)  # so that messages find it read, if the store is well
        take_over()

    def learn(self, ids: list[str], stamps: Mapping[str, list[Any]]) -> None:
        """Take over what is on record."""
        logger.debug("%d revoked tasks are on record that were not known here", len(ids))
        state.revoked.update(ids)
        state.merge_revoked_stamps(stamps)

    def store(self, ids: Iterable[str], stamps: Mapping[str, Iterable[Any]] | None = None) -> None:
        """Record that tasks are revoked, for whoever starts later: the client may be one that does not."""
        consumer, stamps = self.consumer, stamps or {}
        try:
            if consumer.app.control.broker_remembers_revoked(ids, stamps, consumer.connection):
                return
        except Exception as error:  # it is revoked here all the same
            logger.warning("That tasks are revoked could not be recorded: %r", error)
        else:
            if not isinstance(consumer.app.backend, DisabledBackend):
                consumer.bookkeeper.submit(self._remember, list(ids), stamps)

    def _remember(self, ids: list[str], stamps: Mapping[str, Iterable[Any]]) -> None:
        self.consumer.app.backend.remember_revoked(ids, stamps)
