"""The channel's side of settling: acknowledge, reject, put back, set aside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu.log import get_logger
from kombu.utils.json import dumps

from celery.transports.dead_letters import dead_envelope
from celery.transports.message import Message, count_loss, lost_too_often, mark_redelivered
from celery.transports.redis.recovery import LAST, NEXT, Move, give_back
from celery.transports.redis.resp import pack
from celery.utils.failpoints import is_active

__all__ = ("Settling",)

logger = get_logger("celery.transports.redis")

#: Whether a test of the tests has switched this protection off.
_FORGETS_WHAT_BEGAN = is_active("unprotect.begun")


class Settling:
    """Part of a channel."""

    def basic_ack(self: Any, delivery_tag: str, multiple: bool = False) -> None:
        held = self.qos._delivered
        if multiple and delivery_tag in held:
            for tag in list(held):
                if tag == delivery_tag:
                    break
                self.basic_ack(tag)
        lease = self.lease
        if lease.begun and lease.end(delivery_tag):
            self.engine.wake()
            return
        message = held.pop(delivery_tag, None) or lease.detached.pop(delivery_tag, None)
        if delivery_tag[0] == "~" and (message is not None or delivery_tag in lease.returns):
            lease.returns.pop(delivery_tag, None)
            if self.ack_emulation:
                lease.acks.append(delivery_tag)
                self.engine.wake()

    def basic_reject(self: Any, delivery_tag: str, requeue: bool = False) -> None:
        if not requeue:
            self.basic_ack(delivery_tag)
            return
        message = self._release(delivery_tag)
        if message is not None:
            mark_redelivered(message._raw)
            self._move_to(message, LAST)

    def requeue_lost(self: Any, message: Message, cause: str = "") -> str | None:
        """Put ``message`` back to be taken next, counting that what ran it was lost; once too often, set it aside.

        Returns the reason then.
        """
        if self._release(message.delivery_tag) is None:
            return None
        losses, _ = count_loss(message._raw, started=True)
        if losses >= self.max_redeliveries:
            reason = lost_too_often(losses, cause)
            self.dead_letter(message, reason)
            return reason
        self._move_to(message, NEXT)
        return None

    def dead_letter(self: Any, message: Message, reason: str) -> None:
        """Set ``message`` aside: take it off the queue and keep it, with the reason, in the list ``<queue>.dead``."""
        payload = dead_envelope(message._raw, message.queue, reason)
        key = f"{self.key_for(message.queue, None)}.dead"
        if message._state == "ACK":  # acknowledged before its body was looked at: there is nothing left to move
            self.put_payload(f"{message.queue}.dead", key, payload.encode())
            return
        self._release(message.delivery_tag)
        self._settle(message.delivery_tag, LAST, key, payload)
        message._state = "REJECTED"

    def message_started(self: Any, message: Message) -> None:
        if message.delivery_tag[0] == "~":
            self.lease.marks.append(message.delivery_tag)

    def message_begun(self: Any, message: Message) -> bool:
        tag = message.delivery_tag
        if _FORGETS_WHAT_BEGAN or tag[0] != "~" or not self.ack_emulation:
            return False
        if self.qos._delivered.pop(tag, None) is None:  # it goes back already
            return False
        self.lease.begin(tag)
        self.engine.wake()
        return True

    def basic_recover(self: Any, requeue: bool = False) -> None:
        """Put back everything that is not settled."""
        if not requeue:
            raise NotImplementedError("Redis cannot deliver again on the same channel; use requeue=True")
        self.restore_unacked(started_too=True)
        self.engine.flush()

    def restore_unacked(self: Any, started_too: bool = False) -> None:
        """Put back what was delivered and is neither settled nor (but if asked for) started."""
        held = self.qos._delivered
        messages = [message for message in held.values() if started_too or not message.has_started]
        for message in messages:
            del held[message.delivery_tag]
        if messages and not self.do_restore:
            return
        recorded = [message for message in messages if message.delivery_tag[0] == "~"]
        if recorded and self.ack_emulation:
            logger.info("Putting back %d unacknowledged message(s)", len(recorded))
            self.engine.move(self.moves_back(recorded))
        elif recorded:
            for message in recorded:
                self._push_raw(message.queue, dumps(message._raw).encode())

    def moves_back(self: Any, messages: Iterable[Message]) -> list[Move]:
        return give_back(messages, self.key_for)

    def _release(self: Any, tag: str) -> Message | None:
        lease = self.lease
        lease.begun.pop(tag, None)
        for holder in (self.qos._delivered, lease.detached, lease.returns):
            if tag in holder:
                return holder.pop(tag)  # type: ignore[no-any-return]
        return None

    def _move_to(self: Any, message: Message, side: str) -> None:
        if message.delivery_tag[0] != "~":  # a publication: nobody else has it, so it is ours to deliver again
            self.keep_broadcast(message.queue, message.delivery_tag, dumps(message._raw).encode())
            return
        self._settle(message.delivery_tag, side, self.key_for(message.queue, message._raw), dumps(message._raw))

    def _settle(self: Any, tag: str, side: str, key: str, payload: str) -> None:
        """Take ``tag`` out of the record and push ``payload``, now; on another connection if ours is lost."""
        if tag[0] != "~" or not self.ack_emulation:
            self._send([pack(("RPUSH" if side == NEXT else "LPUSH", key, payload))])
            return
        self.engine.move_or_queue(Move(tag, -1, side, key, payload))

    def _set_aside_raw(self: Any, queue: str, tag: str, payload: bytes, reason: str) -> None:
        key = f"{self.key_for(queue, None)}.dead"
        kept = dead_envelope(payload, queue, reason)
        if tag[0] == "~" and self._suffix(queue):
            self.engine.move([Move(tag, -1, LAST, key, kept)])
        else:
            self._send([pack(("LPUSH", key, kept))])
        self.connection.on_set_aside(queue, payload, reason)

    def flush(self: Any) -> None:
        """Send every waiting acknowledgement and wait until Redis has confirmed it."""
        self.engine._guarded(self.engine.flush)
