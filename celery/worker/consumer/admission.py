"""Where messages are signed: only those get in that are signed as a whole, fresh, and not here before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.exceptions import SecurityError
from celery.security.nonces import MemoryNonces, SharedNonces, Standing
from celery.security.signing import COMMAND, TASK, check_queue
from celery.transports import scheme_of
from celery.transports.dead_letters import dead_letter
from celery.utils.log import get_logger
from celery.utils.text import truncate
from celery.worker import state

__all__ = ("Admission", "CommandAdmission")

logger = get_logger("celery.security")

#: By how many seconds the clock of who commands may be behind that of a worker that has just started.
START_TOLERANCE_SECONDS = 1.0

#: Schemes of brokers in which nonces can be kept as well.
_REDIS_SCHEMES = frozenset({"redis", "rediss", "sentinel"})


class Admission:
    """Checks each message before anything in it is believed, and tells the nonces what became of it."""

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.app = consumer.app
        self.nonces = _nonces_for(self.app)
        #: What was admitted and is not settled yet, with its nonce, by identity: headers can be copied.
        self._admitted: dict[int, tuple[Any, str]] = {}

    def admits(self, message: Any) -> bool:
        """Return whether ``message`` may be taken; else it has been dealt with.  Its headers are only those signed.

        Raises:
            ConnectionError: what remembers nonces cannot be reached.
        """
        consumer = self.consumer
        try:
            verified = self.app.signing.check(TASK, message)
            if verified is None:
                return True
            queue = getattr(message, "queue", None)
            if queue:
                check_queue(verified.to, queue, self.app.amqp.queues.get(queue))
        except SecurityError as error:
            self._refuse(message, _in_a_line(error))
            return False
        message.headers = verified.headers
        is_redelivered = bool((message.delivery_info or {}).get("redelivered"))
        adoption = consumer.adoption
        if adoption and is_redelivered and adoption.take(message, consumer.acknowledge_now):
            return False
        standing = self.nonces.take(verified.nonce, verified.forget_at, is_redelivered)
        if standing is Standing.NEW or (standing is Standing.HELD and is_redelivered):
            self._admitted[id(message)] = message, verified.nonce
            return True
        if is_redelivered:
            logger.info("Acknowledged once more: %s was done when the broker delivered it again", _named(message))
            consumer.acknowledge_now(message)
        else:
            self._refuse(message, "it was taken before: a copy of a message that was sent once")
        return False

    def vouches_for(self, message: Any) -> bool:
        """Return whether ``message``, which will not be run, is signed.  Its headers are only those signed."""
        try:
            verified = self.app.signing.check(TASK, message)
        except SecurityError as error:
            logger.error("Nobody is told of the end of %s: %s", _named(message), error)
            return False
        if verified is not None:
            message.headers = verified.headers
        return True

    def _refuse(self, message: Any, reason: str) -> None:
        logger.error("Refused a message, set aside: %s: %s", _named(message), reason)
        dead_letter(message, f"refused: {reason}")
        signals.task_rejected.send(sender=self.consumer, message=message, exc=SecurityError(reason))

    # -- what became of it

    def acknowledge(self, message: Any, logger: Any, errors: Any) -> None:
        self._settle(message, self.nonces.spend)
        self.consumer.acknowledge(message, logger, errors)

    def reject(self, message: Any, logger: Any, errors: Any, requeue: bool = False) -> None:
        self._settle(message, self.nonces.give_back if requeue else self.nonces.spend)
        self.consumer.reject(message, logger, errors, requeue)

    def give_back(self, message: Any) -> None:
        """It goes without having run: it may come again."""
        self._settle(message, self.nonces.give_back)

    def on_close(self) -> None:
        """The connection is going: the broker delivers again what was not acknowledged and does not run here."""
        running = {id(request.message) for request in state.requests.values()}
        for identity, (message, _) in list(self._admitted.items()):
            if identity not in running:
                self._settle(message, self.nonces.give_back)

    def _settle(self, message: Any, tell: Callable[[str], None]) -> None:
        _, nonce = self._admitted.pop(id(message), (None, None))
        if nonce is None:
            return
        try:
            tell(nonce)
        except ConnectionError as error:
            # This process remembers it all the same; the answer to the broker must not wait for the store.
            logger.warning("%s", error)


class CommandAdmission:
    """Checks remote control commands: signed, meant for now, and not here before.

    Each worker gets a copy of its own, so what was here before is remembered by each; what was signed before this
    worker started may have been here with one that is gone.
    """

    def __init__(self, app: Any, clock: Callable[[], float] = time.time) -> None:
        self.app = app
        self.nonces = MemoryNonces()
        self._started_at = clock()

    def admits(self, message: Any) -> bool:
        """Return whether the command in ``message`` may run.  Its headers are only those signed."""
        try:
            verified = self.app.signing.check(COMMAND, message)
            if verified is None:
                return True
            if verified.issued_at < self._started_at - START_TOLERANCE_SECONDS:
                raise SecurityError("it was signed before this worker started")
            if self.nonces.take(verified.nonce, verified.forget_at) is not Standing.NEW:
                raise SecurityError("it was here before: a copy of a command that was sent once")
            self.nonces.spend(verified.nonce)
        except SecurityError as error:
            logger.error("Refused a remote control command: %s", _in_a_line(error))
            return False
        message.headers = verified.headers
        return True


def _named(message: Any) -> str:
    headers = message.headers or {}
    return _in_a_line(f"{headers.get('task')}[{headers.get('id')}]", 200)


def _in_a_line(text: Any, most: int = 500) -> str:
    """Return ``text``, of which an intruder may have written a part, so that it stays one line."""
    return " ".join(truncate(str(text), most).split())


def _nonces_for(app: Any) -> MemoryNonces:
    """Return the nonces that the setting ``security_nonce_store`` names: by default a Redis broker, else memory."""
    conf = app.conf
    url = conf.security_nonce_store or conf.broker_read_url
    url = url[0] if isinstance(url, (list, tuple)) else url
    if scheme_of(str(url or "")) not in _REDIS_SCHEMES:
        return MemoryNonces()

    def make_client() -> Any:
        connection = app.connection_for_read(url)
        return connection.default_channel._client_factory()()

    return SharedNonces(make_client, prefix=conf.broker_transport_options.get("global_keyprefix") or "")
