"""Revoked tasks on record: what is revoked while no worker runs, or before one starts, does not run either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

__all__ = ("Revocations",)

logger = get_logger(__name__)


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
        try:
            self.learn(*self.consumer.app.backend.recall_revoked())
        except Exception as error:  # the store has troubles of its own
            logger.warning("The record of revoked tasks could not be read: %r", error)

    def learn(self, ids: list[str], stamps: Mapping[str, list[Any]]) -> None:
        """Take over what is on record."""
        logger.debug("%d revoked tasks are on record that were not known here", len(ids))
        state.revoked.update(ids)
        state.merge_revoked_stamps(stamps)

    def store(self, ids: Iterable[str], stamps: Mapping[str, Iterable[Any]] | None = None) -> None:
        """Record that tasks are revoked, for whoever starts later: the client may be one that does not."""
        consumer = self.consumer
        try:
            consumer.app.control.remember_revoked(ids, stamps or {}, connection=consumer.connection)
        except Exception as error:  # it is revoked here all the same
            logger.warning("That tasks are revoked could not be recorded: %r", error)
