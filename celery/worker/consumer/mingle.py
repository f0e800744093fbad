"""Hello to the neighbours: their revoked tasks become ours, and the logical clocks agree."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer.events import Events

__all__ = ("Mingle",)

logger = get_logger(__name__)

#: Seconds for which answers are collected.
PATIENCE = 1.0


class Mingle(bootsteps.StartStopStep):
    """Asks the other workers of this cluster what they have revoked.

    The first time this is waited for, so that no revoked task is taken.  After a reconnect it is done beside the
    loop, which has better things to do than to wait.
    """

    label = "Mingle"
    requires = (Events,)
    compatible_transports = {"amqp", "redis", "gcpubsub"}

    def __init__(self, c: Any, without_mingle: bool = False, **kwargs: Any) -> None:
        self._lock = threading.Lock()
        self._is_asking = False
        self._is_to_ask_again = False
        self.enabled = not without_mingle and self.compatible_transport(c.app)
        super().__init__(c, without_mingle=without_mingle, **kwargs)

    def compatible_transport(self, app: Any) -> bool:
        with app.connection_for_read() as connection:
            return connection.transport.driver_type in self.compatible_transports

    def start(self, c: Any) -> None:
        if c.restart_count <= 0:
            self.sync(c)
        else:
            self._start_beside(c)

    def _start_beside(self, c: Any) -> None:
        """Ask in a thread; one at a time, as each takes a connection, however often ours is lost."""
        with self._lock:
            self._is_to_ask_again = self._is_asking
            if self._is_asking:
                return
            self._is_asking = True
        threading.Thread(target=self._ask_beside, args=(c,), name="mingle", daemon=True).start()

    def _ask_beside(self, c: Any) -> None:
        while True:
            self._sync_beside(c)
            with self._lock:
                if not self._is_to_ask_again:
                    self._is_asking = False
                    return
                self._is_to_ask_again = False

    def sync(self, c: Any) -> None:
        logger.info("mingle: searching for neighbors")
        self._learn(c, self.send_hello(c))

    def _learn(self, c: Any, replies: dict[str, Any]) -> None:
        if not replies:
            logger.info("mingle: all alone")
            return
        logger.info("mingle: sync with %s nodes", sum(1 for reply in replies.values() if reply))
        for nodename, reply in replies.items():
            self.on_node_reply(c, nodename, reply)
        logger.info("mingle: sync complete")

    def _sync_beside(self, c: Any) -> None:
        try:
            replies = self.send_hello(c)
        except Exception as exc:  # the connection may be lost again already: the next one says hello, too
            logger.debug("mingle: no answers: %r", exc)
        else:
            if replies:
                c.call_soon(self._learn, c, replies)

    def send_hello(self, c: Any) -> dict[str, Any]:
        """Return what the other nodes answer; asks over a connection that is not kept, as nobody will ask again."""
        with c.app.connection_for_write() as connection:
            inspect = c.app.control.inspect(timeout=PATIENCE, connection=connection)
            replies = inspect.hello(c.hostname, list(state.revoked)) or {}
        replies.pop(c.hostname, None)  # our own mailbox may still be open, of the last connection
        return dict(replies)

    def on_node_reply(self, c: Any, nodename: str, reply: Any) -> None:
        logger.debug("mingle: processing reply from %s", nodename)
        try:
            self.sync_with_node(c, **reply)
        except Exception as exc:
            logger.warning("mingle: the answer of %s is not understood: %r", nodename, exc)

    def sync_with_node(self, c: Any, clock: Any = None, revoked: Any = None, **kwargs: Any) -> None:
        self.on_clock_event(c, clock)
        self.on_revoked_received(c, revoked)

    def on_clock_event(self, c: Any, clock: Any) -> None:
        if isinstance(clock, int) and clock:
            c.app.clock.adjust(clock)
        else:
            c.app.clock.forward()

    def on_revoked_received(self, c: Any, revoked: Any) -> None:
        if revoked:
            state.revoked.update(revoked)
